"""Real processes on loopback: one run, split; and what happens when one is missing."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from fgvce_jax.cli import main
from fgvce_jax.distributed import Processes
from fgvce_jax.errors import Unfinished
from fgvce_jax.models import ModelSpec, build, save_classifier
from fgvce_jax.results import read_run

ROOT = Path(__file__).parents[1]
PROGRAM = textwrap.dedent("""
    import os, signal, sys, time
    sys.path.insert(0, sys.argv[1])
    import fgvce_jax.results as results
    write = results.Run.write_part
    def slowly(self, number, found):
        time.sleep(float(sys.argv[2]))
        write(self, number, found)
    results.Run.write_part = slowly
    if "DIE_IN_THE_MERGE" in os.environ:
        results.Run.merge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    from fgvce_jax.cli import main
    raise SystemExit(main(sys.argv[3:]))
""")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """`fgvce explain` on digits with a classifier that knows very little."""
    folder = tmp_path_factory.mktemp("classifier") / "checkpoint"
    spec = ModelSpec("small_resnet", widths=(8, 16), blocks=(1, 1), stem_stride=2)
    clf = build(spec, 10, 32, jax.random.key(1), class_names=[str(k) for k in range(10)])
    save_classifier(clf, folder)
    return [
        *("explain", "--data.name", "digits", "--model.checkpoint", str(folder)),
        *("--limit", "120", "--batch_size", "16", "--part_size", "16"),
        *("--bank.per_class", "2", "--bank.top_m", "3"),
    ]


def start(arguments, process, port, *, count=2, timeout=60, pause=0.0, **environment):
    with socket.socket() as probe:
        if port is None:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    together = [
        *("--distributed.coordinator", f"127.0.0.1:{port}"),
        *("--distributed.num_processes", str(count), "--distributed.process_id", str(process)),
        *("--distributed.timeout_s", str(timeout)),
    ]
    command = [sys.executable, "-c", PROGRAM, str(ROOT), str(pause), *arguments, *together]
    pipe = subprocess.PIPE
    environment = os.environ | environment
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment), port


def test_two_processes_give_what_one_gives(arguments, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert main([*arguments, "--out", str(alone)]) == 0
    first, port = start([*arguments, "--out", str(shared)], 0, None)
    second, _ = start([*arguments, "--out", str(shared)], 1, port)
    for process in (first, second):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-2000:]

    one, two = read_run(alone), read_run(shared)
    assert two.info["processes"] == 2
    assert one.table.num_rows > 50
    assert one.table.drop_columns(["time_s"]).equals(two.table.drop_columns(["time_s"]))
    assert one.predictions.equals(two.predictions)
    for name, values in one.maps.items():
        np.testing.assert_array_equal(values, two.maps[name])


def test_many_devices_give_what_one_gives(arguments, tmp_path):
    """A run on 4 virtual devices, with batches that do not divide evenly by them."""
    alone, many = tmp_path / "alone", tmp_path / "many"
    here = [*arguments, "--batch_size", "10"]
    assert main([*here, "--out", str(alone)]) == 0
    command = [sys.executable, "-c", PROGRAM, str(ROOT), "0", *here, "--out", str(many)]
    flags = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(command, env=flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one, four = read_run(alone), read_run(many)
    assert four.info["device"].startswith("4 x")
    exact = ["id", "target", "predicted", "flipped", "num_edits"]
    assert one.table.select(exact).equals(four.table.select(exact))
    np.testing.assert_allclose(one.maps["dominant"], four.maps["dominant"], atol=1e-5)


def test_a_process_that_never_comes_is_said(arguments, tmp_path):
    process, _ = start([*arguments, "--out", str(tmp_path / "run")], 1, None, timeout=3)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1] == (
        "fgvce: error: distributed: not every process was there within 3 s"
    )
    assert not (tmp_path / "run").exists()


def test_a_slow_part_is_no_dead_process(tmp_path):
    """Its part takes four times as long as the others wait for a sign of life."""
    first, slow = (Processes(index, 2, timeout_s=0.5) for index in (0, 1))
    done = set()

    def work():
        with slow.alive(tmp_path):
            time.sleep(2)
            done.add(0)

    thread = threading.Thread(target=work)
    thread.start()
    with first.alive(tmp_path):
        first.wait_for_parts(tmp_path, lambda: frozenset(done), 1)
    thread.join()
    assert not list(tmp_path.iterdir())
    with first.alive(tmp_path), pytest.raises(Unfinished, match=r"no sign of life within 0\.5 s"):
        first.wait_for_parts(tmp_path, frozenset, 1)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_leaves_whole_results_and_a_clear_error(arguments, tmp_path, victim):
    folder = tmp_path / "run"
    here = [*arguments, "--out", str(folder)]
    dying, port = start(here, victim, None, timeout=8, pause=0.4)
    living, _ = start(here, 1 - victim, port, timeout=8, pause=0.4)
    parts = folder / "parts"
    while not (parts.exists() and len(list(parts.glob("part-*"))) >= 2):
        assert dying.poll() is None, dying.communicate()[1][-2000:]
        time.sleep(0.05)
    os.kill(dying.pid, signal.SIGKILL)
    _, errors = living.communicate(timeout=120)
    assert living.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith("fgvce: error: distributed: no sign of life within 8 s")
    assert f"(process {victim} of 2)" in last

    assert main(here) == 0  # alone, it continues
    counts = read_run(folder).info["counts"]
    assert counts["read"] == 120


def test_a_survivor_fails_when_the_writer_dies_in_the_merge(arguments, tmp_path):
    folder = tmp_path / "run"
    here = [*arguments, "--out", str(folder)]
    dying, port = start(here, 0, None, timeout=8, DIE_IN_THE_MERGE="1")
    living, _ = start(here, 1, port, timeout=8)
    _, errors = living.communicate(timeout=120)
    dying.communicate(timeout=10)
    assert dying.returncode == -signal.SIGKILL
    assert living.returncode == 2
    assert errors.strip().splitlines()[-1] == (
        "fgvce: error: distributed: no sign of life within 8 s of the process that puts the parts "
        "together (process 0 of 2)"
    )
    assert not (folder / "run.json").exists()

    assert main(here) == 0  # alone, it continues
    assert read_run(folder).info["counts"]["read"] == 120
