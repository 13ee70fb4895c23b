"""A real Ray cluster of three nodes: lost workers, machines that come and go, a dying driver."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("ray")

from ray_run import (
    environment,
    explain_digits,
    kill_a_busy_worker,
    save_classifier_of_digits,
    three_nodes,
    timeless_differences,
    wait_for_parts,
)

from fgvce_jax import cluster as pools
from fgvce_jax.cli import main
from fgvce_jax.cluster import Pool, connected
from fgvce_jax.config import RayConfig
from fgvce_jax.errors import InputError, Stopped, Unfinished
from fgvce_jax.results import read_run
from fgvce_jax.stop import Stop
from fgvce_jax.workers import Task

# Parts take half a second longer, and workers see the run's folder or do not.
PROGRAM = """
import sys
from functools import partial
from fgvce_jax import run
from fgvce_jax.cli import main
from ray_run import open_slowly
run.open_worker = partial(open_slowly, 0.5, far=sys.argv[1] == "far")
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def cluster():
    with three_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier") / "digits"
    save_classifier_of_digits(folder)
    return explain_digits(folder)


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main([*arguments, "--out", str(folder)]) == 0
    assert read_run(folder).info["counts"]["explained"] > 20
    return folder


def tasks(count):
    return {i: Task((i,), 2) for i in range(count)}


def ignore(count):
    pass


def results(cluster, worker, count, **options):
    """What the pool returns for `count` tasks, by their numbers."""
    config, moved = RayConfig(cluster.address, **options), []
    with connected(config):
        pool = Pool(worker, config, Stop(), most=count)
        pool.everywhere(worker.hold, 10)
        found = dict(pool.map(worker.work, tasks(count), moved.append))
    assert sum(moved) == 2 * len(found)
    return found


# --- the pool -----------------------------------------------------------------------------------


def test_a_slow_node_costs_less_than_its_share(cluster, tmp_path):
    """One of three takes ten times as long: a third of 30 tasks would take it 10 s."""

    class Sleeper:
        def meet(self, i):
            """Return when there are three workers; one of them is the slow one."""
            self.seconds = 1.0 if i == 0 else 0.1
            (tmp_path / str(os.getpid())).touch()
            while len(list(tmp_path.iterdir())) < 3:
                time.sleep(0.05)

        def work(self, i):
            time.sleep(self.seconds)
            return i, self.seconds

    config = RayConfig(cluster.address)
    with connected(config):
        pool = Pool(Sleeper, config, Stop(), most=3)
        assert len(list(pool.map(Sleeper.meet, tasks(3), ignore))) == 3
        begun = time.monotonic()
        found = dict(pool.map(Sleeper.work, tasks(30), ignore))
        seconds = time.monotonic() - begun
    assert {i: value for i, (value, _) in found.items()} == {i: i for i in range(30)}
    assert 0 < sum(pause == 1.0 for _, pause in found.values()) < 10 / 2
    assert seconds < 10 / 2


def test_a_worker_that_hangs_is_overtaken(cluster, tmp_path):
    class Hanging:
        def hold(self, offset):
            self.offset = offset

        def work(self, i):
            if i == 0 and not (tmp_path / "hung").exists():
                (tmp_path / "hung").touch()
                time.sleep(1000)
            return i + self.offset

    assert results(cluster, Hanging, 6) == {i: i + 10 for i in range(6)}


def test_a_task_that_ends_its_workers_is_given_up(cluster, monkeypatch):
    monkeypatch.setattr(pools, "_TRIES", 2)

    class Poisoned:
        def hold(self, offset):
            pass

        def work(self, i):
            if i == 1:
                os._exit(1)
            return i

    with pytest.raises(Unfinished, match="2 workers were lost with the same part"):
        results(cluster, Poisoned, 3)


def test_workers_that_cannot_start_are_given_up(cluster, monkeypatch):
    monkeypatch.setattr(pools, "_TRIES", 1)

    class Stillborn:
        def __init__(self):
            os._exit(1)

        def hold(self, offset):
            pass

        def work(self, i):
            pass

    with pytest.raises(Unfinished, match=r"\d workers in a row could not start"):
        results(cluster, Stillborn, 3)


def test_an_error_of_a_worker_is_the_drivers(cluster):
    class Picky:
        def hold(self, offset):
            pass

        def work(self, i):
            raise InputError("tea: expected milk, got lemon")

    with pytest.raises(InputError, match=r"^tea: expected milk, got lemon$"):
        results(cluster, Picky, 3)


def test_what_is_asked_to_stop_finishes_what_is_in_hand(cluster):
    class Steady:
        def work(self, i):
            time.sleep(0.5)
            return i

    config, found = RayConfig(cluster.address), []

    def work():
        with connected(config), Stop() as stop, stop.deferred():
            for i, _ in Pool(Steady, config, stop, most=3).map(Steady.work, tasks(1000), ignore):
                found.append(i)
                if len(found) == 5:
                    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"asked to end \(SIGTERM\)"):
        work()
    assert 5 <= len(found) <= 8
    assert sorted(found) == list(range(len(found)))  # none in hand was left


def test_workers_see_the_gpus_that_they_were_promised(cluster):
    """One each by default, and no other's; it is Ray that counts them, and no one looks for any."""

    class Looking:
        def hold(self, offset):
            pass

        def work(self, i):
            time.sleep(0.5)
            return os.environ["CUDA_VISIBLE_DEVICES"]

    node = cluster.add_node(num_cpus=2, num_gpus=2)
    try:
        assert set(results(cluster, Looking, 8).values()) == {"0", "1"}
        both = results(cluster, Looking, 2, gpus_per_worker=2)
        assert {frozenset(seen.split(",")) for seen in both.values()} == {frozenset("01")}
    finally:
        cluster.remove_node(node)


def test_a_cluster_that_is_not_there_is_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    for address, words in (("127.0.0.1:1", "cannot connect"), ("ray://here:1", "expected auto")):
        code = main(["explain", "--data.name", "digits", f"--ray={address}", "--out", str(out)])
        assert code == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not out.exists()


# --- a run --------------------------------------------------------------------------------------


def start(seen, arguments):
    command = [sys.executable, "-c", PROGRAM, seen, *arguments]
    pipe, here = subprocess.PIPE, os.environ | environment()
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=here)


def end(driver, code=0):
    """The driver's messages, once it has ended with this code."""
    output, errors = driver.communicate(timeout=200)
    assert driver.returncode == code, errors[-3000:]
    assert "raylet" not in output + errors
    return errors


def test_machines_come_and_go(cluster, arguments, alone, tmp_path):
    """A worker is killed, a node is taken away and one added, all in the middle of a run."""
    folder = tmp_path / "run"
    driver = start("near", [*arguments, "--ray", cluster.address, "--out", str(folder)])
    wait_for_parts(driver, folder, 2)
    kill_a_busy_worker(driver)
    wait_for_parts(driver, folder, 5)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    wait_for_parts(driver, folder, 8)
    cluster.add_node(num_cpus=1)
    assert "a worker is lost and replaced" in end(driver)
    assert timeless_differences(folder, alone) == []
    assert read_run(folder).info["workers"] >= 2


def test_the_driver_may_die_and_workers_need_not_see_the_folder(
    cluster, arguments, alone, tmp_path
):
    folder = tmp_path / "run"
    there = [*arguments, "--ray", cluster.address, "--out", str(folder)]
    driver = start("far", there)
    wait_for_parts(driver, folder, 3)
    driver.kill()
    driver.communicate()
    assert not (folder / "run.json").exists()

    driver = start("far", there)
    wait_for_parts(driver, folder, 7)
    driver.terminate()
    assert "asked to end (SIGTERM); give the same command again" in end(driver, code=75)

    assert "parts are done" in end(start("far", there))
    assert timeless_differences(folder, alone) == []
