import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import dataset

import fgvce_jax as fg
from fgvce_jax import results
from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import whole_file
from fgvce_jax.results import (
    CORE_MAPS,
    Edit,
    ImageResult,
    merge,
    open_run,
    read_run,
)
from fgvce_jax.results.parts import PART, part_path, read_part, write_part

CLASSES = ("wren", "finch & co", "owl")
CONFIG = {"data": {"name": "birds", "path": None}, "bank": {"widths": (1, 2), "sigma": 0.8}}
NUM_PARTS, PART_SIZE = 5, 6


def record(i: int) -> ImageResult:
    """Image i of a made-up split: every third is misclassified, every eleventh cannot be read."""
    label = i % 3
    if i % 11 == 10:
        return ImageResult(i, f"dir/{i}.png", label, "skipped", why="empty file")
    if i % 3:
        return ImageResult(i, f"dir/{i}.png", label, "unexplained", predicted=label)
    rng = np.random.default_rng(i)
    edits = tuple(
        Edit(int(rng.integers(9)), f"ref{k}", k, k + 1, float(np.float32(rng.random())))
        for k in range(i % 4)
    )
    return ImageResult(
        i,
        f"dir/{i}.png",
        label,
        "explained" if edits else "no_reference",
        predicted=label + 1,
        flipped=bool(edits),
        edits=edits,
        p_predicted=rng.random(len(edits) + 1).astype(np.float32).tolist(),
        p_target=rng.random(len(edits) + 1).astype(np.float32).tolist(),
        time_s=time.perf_counter(),
        logits=rng.normal(size=3).astype(np.float32),
        logit_changes=rng.normal(size=3 * len(edits)).astype(np.float32),
        nearest=rng.integers(3, size=4),
        maps={name: rng.normal(size=(3, 3)).astype(np.float32) for name in CORE_MAPS},
    )


def part(number: int) -> list[ImageResult]:
    return [record(i) for i in range(number * PART_SIZE, (number + 1) * PART_SIZE)]


def complete(folder, config=CONFIG, numbers=range(NUM_PARTS)):
    with open_run(folder, config) as run:
        for number in numbers:
            if number not in run.done:
                run.write_part(number, part(number))
        run.merge(CLASSES, NUM_PARTS, {"device": "cpu"})
        run.finish()
    return read_run(folder)


def assert_same(a, b):
    assert a.table.drop_columns("time_s").equals(b.table.drop_columns("time_s"))
    assert a.predictions.equals(b.predictions)
    assert set(a.maps) == set(b.maps)
    for name in a.maps:
        np.testing.assert_array_equal(a.maps[name], b.maps[name])
    assert a.info == b.info


def test_a_run_reads_back_as_it_was_written(tmp_path):
    run = complete(tmp_path / "run")
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "config.json",
        "explanations.parquet",
        "maps.parquet",
        "predictions.parquet",
        "run.json",
    ]
    assert run.table.schema.equals(results.EXPLANATIONS)
    assert run.predictions.schema.equals(results.PREDICTIONS)
    wanted = [record(i) for i in range(NUM_PARTS * PART_SIZE)]
    mistakes = [r for r in wanted if r.status in ("explained", "no_reference")]
    rows = run.table.to_pylist()
    assert [row["id"] for row in rows] == [r.id for r in mistakes]
    for row, r in zip(rows, mistakes, strict=True):
        assert row["index"] == r.index
        assert (row["target"], row["predicted"]) == (r.label, r.predicted)
        assert (row["target_name"], row["predicted_name"]) == ("wren", "finch & co")
        assert (row["status"], row["flipped"]) == (r.status, r.flipped)
        assert row["num_edits"] == len(r.edits) == len(row["p_target"]) - 1
        for name, p in (("p_predicted", r.p_predicted), ("p_target", r.p_target)):
            assert row[name] == list(p)
            assert row[f"{name}_before"] == p[0]
            assert row[f"{name}_after"] == p[-1]
        assert row["edits"] == [vars(edit) for edit in r.edits]
    assert run.predictions.to_pylist() == [
        {"index": r.index, "id": r.id, "target": r.label, "predicted": r.predicted}
        for r in wanted
        if r.status != "skipped"
    ]
    assert set(run.maps) == set(CORE_MAPS)
    for name in CORE_MAPS:
        assert run.maps[name].dtype == np.float32
        np.testing.assert_array_equal(run.maps[name], np.stack([r.maps[name] for r in mistakes]))
    # 30 images: 0, 3, ..., 27 are misclassified, 10 and 21 unreadable, 0, 12 and 24 without edits
    assert run.info["counts"] == {
        "images": 30,
        "skipped": 2,
        "read": 28,
        "correct": 19,
        "misclassified": 9,
        "explained": 6,
        "no_reference": 3,
        "flipped": 6,
    }
    assert run.info["skipped"] == [
        {"index": 10, "id": "dir/10.png", "why": "empty file"},
        {"index": 21, "id": "dir/21.png", "why": "empty file"},
    ]
    assert run.info["device"] == "cpu"
    assert run.info["config"] == json.loads(json.dumps(CONFIG))


def test_a_target_of_its_own_and_a_map_that_is_missing(tmp_path):
    first, second = (
        ImageResult(
            i,
            f"{i}",
            0,
            "explained",
            predicted=0,
            target=2,
            maps={"cam": np.full((4, 4), 1.0 * i)} | m,
        )
        for i, m in ((0, {"cam": np.eye(4)}), (1, {}))
    )
    second = ImageResult(**(vars(second) | {"maps": {}}))
    with open_run(tmp_path / "run", {}) as run:
        run.write_part(0, [first])
        run.write_part(1, [second])
        run.merge(CLASSES, 2, {})
    got = read_run(tmp_path / "run")
    assert got.predictions["target"].to_pylist() == [0, 0]
    assert got.table["target_name"].to_pylist() == ["owl", "owl"]
    assert got.info["counts"]["correct"] == 2
    np.testing.assert_array_equal(got.maps["cam"][0], np.eye(4))
    assert np.isnan(got.maps["cam"][1]).all()


def test_a_map_keeps_its_shape(tmp_path):
    a = ImageResult(0, "a", 0, "explained", predicted=1, maps={"cam": np.zeros((4, 4))})
    b = ImageResult(1, "b", 0, "explained", predicted=1, maps={"cam": np.zeros((3, 3))})
    with open_run(tmp_path / "run", {}) as run:
        with pytest.raises(InputError, match=r"map cam of image b.*\(4, 4\)"):
            run.write_part(0, [a, b])
        run.write_part(0, [a])
        run.write_part(1, [b])
        with pytest.raises(InputError, match=r"map cam has shape \[3, 3\], before \[4, 4\]"):
            run.merge(CLASSES, 2, {})


def test_nothing_misclassified(tmp_path):
    with open_run(tmp_path / "run", {}) as run:
        run.write_part(0, [ImageResult(0, "a", 1, "unexplained", predicted=1)])
        run.merge(CLASSES, 1, {})
        run.finish()
    got = read_run(tmp_path / "run")
    assert len(got.table) == 0
    assert len(got.predictions) == 1
    assert all(len(got.maps[name]) == 0 for name in CORE_MAPS)


# --- interruptions ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return complete(tmp_path_factory.mktemp("whole") / "run")


def test_a_crash_between_parts_is_continued(tmp_path, uninterrupted):
    def crash():
        with open_run(tmp_path / "run", CONFIG) as run:
            run.write_part(0, part(0))
            run.write_part(3, part(3))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    with pytest.raises(InputError, match="not finished"):
        read_run(tmp_path / "run")
    (tmp_path / "run/parts/.part-00001.parquet.77.tmp").write_bytes(b"half")
    with open_run(tmp_path / "run", CONFIG) as run:
        assert run.resumed == {0, 3}
        assert not list(run.parts.glob(".*"))
    assert_same(complete(tmp_path / "run"), uninterrupted)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_results import *
print("ready", flush=True)
complete(sys.argv[1])
"""


@pytest.mark.parametrize("wait", [0.0, 0.005, 0.015, 0.04, 0.07])
def test_killed_at_any_moment(tmp_path, uninterrupted, wait):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(folder), os.path.dirname(__file__)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    for path in folder.glob("parts/part-*"):
        assert len(pq.read_table(path)) == PART_SIZE
    if (folder / "run.json").exists():
        assert_same(read_run(folder), uninterrupted)
    assert_same(complete(folder), uninterrupted)


def test_killed_before_the_parts_are_removed(tmp_path, uninterrupted):
    with open_run(tmp_path / "run", CONFIG) as run:
        for number in range(NUM_PARTS):
            run.write_part(number, part(number))
        run.merge(CLASSES, NUM_PARTS, {"device": "cpu"})
    assert_same(read_run(tmp_path / "run"), uninterrupted)
    with open_run(tmp_path / "run", CONFIG) as run:
        assert run.resumed == set(range(NUM_PARTS))
    assert_same(complete(tmp_path / "run"), uninterrupted)


def stop(folder, error, *, bank=True, parts=(0,)):
    """A run that an error ends after what it has written."""
    with open_run(folder, CONFIG) as run:
        run.check_inputs({"classifier": "a"})
        if bank:
            with whole_file(folder / "bank.npz") as file:
                file.write(b"of use to this run alone")
        for number in parts:
            run.write_part(number, part(number))
        raise error


@pytest.mark.parametrize(
    "case",
    [
        {"error": InputError("NaN logits")},  # it would meet them again
        {"error": InputError("NaN logits"), "parts": ()},
        {"error": KeyboardInterrupt(), "bank": False, "parts": ()},
        {"error": Unfinished("disk full"), "bank": False, "parts": ()},
    ],
    ids=["unusable", "unusable early", "interrupted early", "disk full early"],
)
def test_a_run_with_nothing_to_continue_leaves_no_trace(tmp_path, case):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "a/b/run", tmp_path / "empty"):
        with pytest.raises(type(case["error"])):
            stop(folder, **case)
    assert [p.name for p in tmp_path.rglob("*")] == ["empty"]

    before = complete(tmp_path / "done")
    (tmp_path / "done/bank.npz").write_bytes(b"of use to this run alone")
    (tmp_path / "done/inputs.json").write_text('{"classifier": "a"}')
    files = {p: p.read_bytes() for p in (tmp_path / "done").rglob("*") if p.is_file()}
    with pytest.raises(type(case["error"])):
        stop(tmp_path / "done", **case)
    done = (tmp_path / "done").rglob("*")
    assert {p: p.read_bytes() for p in done if p.is_file()} == files
    assert_same(read_run(tmp_path / "done"), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Unfinished("disk full"), RuntimeError()])
@pytest.mark.parametrize("parts", [(), (0, 2)])
def test_a_run_that_is_stopped_from_outside_keeps_its_bank_and_parts(tmp_path, error, parts):
    with pytest.raises(type(error)):
        stop(tmp_path / "run", error, parts=parts)
    assert (tmp_path / "run/bank.npz").exists()
    assert open_run(tmp_path / "run", CONFIG).resumed == set(parts)


def test_other_weights_of_the_same_name_are_another_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stop(tmp_path / "run", KeyboardInterrupt())
    files = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with (
        pytest.raises(InputError, match="run: holds a run with another classifier of the same"),
        open_run(tmp_path / "run", CONFIG) as run,
    ):
        run.check_inputs({"classifier": "b"})
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == files
    open_run(tmp_path / "run", CONFIG).check_inputs({"classifier": "a"})


def test_a_finished_run_is_redone(tmp_path, uninterrupted):
    complete(tmp_path / "run")
    with open_run(tmp_path / "run", CONFIG) as run:
        assert run.resumed == frozenset()
        assert_same(read_run(tmp_path / "run"), uninterrupted)  # the old results, for now
        for number in range(NUM_PARTS):
            run.write_part(
                number, [ImageResult(number, f"{number}", 0, "unexplained", predicted=0)]
            )
        (run.folder / "report.html").write_text("of the old results")
        run.merge(CLASSES, NUM_PARTS, {})
        assert not (run.folder / "report.html").exists()
        run.finish()
    assert read_run(tmp_path / "run").info["counts"]["images"] == NUM_PARTS


def test_others_that_see_the_mark_write_parts_beside_it(tmp_path, uninterrupted):
    with open_run(tmp_path / "run", CONFIG) as run:
        beside = run.mark().parent
        write_part(part_path(beside, 1), 1, part(1))
        write_part(part_path(beside, 3), 3, part(3))
        run.write_part(0, part(0))
        run.write_part(2, part(2))
        with pytest.raises(InputError, match="1 of 5 parts are missing, the first is part 4"):
            run.merge(CLASSES, NUM_PARTS, {})
        write_part(part_path(beside, 4), 4, part(4))
        run.merge(CLASSES, NUM_PARTS, {"device": "cpu"})
        run.finish()
    assert_same(read_run(tmp_path / "run"), uninterrupted)


def test_a_mark_names_this_run_and_no_other(tmp_path):
    with open_run(tmp_path / "run", CONFIG) as run:
        first = run.mark()
        run.write_part(0, part(0))
    with open_run(tmp_path / "run", CONFIG) as run:
        assert run.resumed == {0}
        assert not first.exists()
        assert run.mark().exists()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG | {"bank": {"widths": [1, 2], "sigma": 0.5}}, r"bank.sigma = 0.8 .* has 0.5;"),
        (CONFIG | {"data": {"name": "digits", "path": "x"}}, r'name = "birds" .* has "digits"'),
        (CONFIG | {"limit": 3}, r"limit = null .* has 3"),
        ({"data": CONFIG["data"]}, r"bank = \{.*\} .* has null"),
    ],
)
def test_another_config_is_refused(tmp_path, config, message):
    with open_run(tmp_path / "run", CONFIG) as run:
        run.write_part(0, part(0))
    with pytest.raises(InputError, match=message):
        open_run(tmp_path / "run", config)
    assert open_run(tmp_path / "run", CONFIG).resumed == {0}


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"photos: expected a new .* holds cat.png and is no run"):
        open_run(tmp_path / "photos", CONFIG)
    (tmp_path / "photos/config.json").write_text('{"model": 3}')
    with pytest.raises(InputError, match="is no run"):
        open_run(tmp_path / "photos", CONFIG)
    with pytest.raises(InputError, match="expected a folder, this is a file"):
        open_run(tmp_path / "photos/cat.png", CONFIG)
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        open_run(tmp_path / "photos/cat.png/run", CONFIG)
    with pytest.raises(InputError, match=r"nowhere: expected the folder of a run"):
        read_run(tmp_path / "nowhere")


# --- disk full ----------------------------------------------------------------------------------


class FullDisk:
    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(bytes(data)[:100])
        raise OSError(28, "No space left on device")


def test_disk_full_keeps_the_parts_before(tmp_path, uninterrupted, monkeypatch):
    def fill():
        with open_run(tmp_path / "run", CONFIG) as run:
            run.write_part(0, part(0))
            with monkeypatch.context() as patch:
                write_table = pq.write_table
                patch.setattr(
                    pq, "write_table", lambda table, file, **_: write_table(table, FullDisk(file))
                )
                run.write_part(1, part(1))

    with pytest.raises(InputError, match=r"part-00001.*No space left on device"):
        fill()
    assert [p.name for p in (tmp_path / "run/parts").iterdir()] == ["part-00000.parquet"]
    assert_same(complete(tmp_path / "run"), uninterrupted)


@pytest.mark.parametrize(("limit", "wanted_parts"), [(100, 0), (12_000, 5)])
def test_files_that_may_not_grow(tmp_path, uninterrupted, limit, wanted_parts):
    """The kernel refuses the bytes after `limit`, in the config or in a merged file."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), os.path.dirname(__file__)]

    def restrict():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    child = subprocess.run(command, preexec_fn=restrict, capture_output=True, text=True)
    assert child.returncode == 1
    assert "cannot be written (File too large)" in child.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("*.tmp"))
    parts = len(list(tmp_path.glob("run/parts/*")))
    assert (parts, (tmp_path / "run").exists()) == (wanted_parts, wanted_parts > 0)
    assert_same(complete(tmp_path / "run"), uninterrupted)


def test_a_file_is_whole_or_absent(tmp_path):
    def crash():
        with whole_file(tmp_path / "a") as file:
            file.write(b"new")
            assert not (tmp_path / "a").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert not list(tmp_path.iterdir())
    with whole_file(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_memory_of_a_merge_does_not_grow_with_the_split(tmp_path):
    """Arrow's high-water mark over 4 and over 32 parts of the same size."""

    def peak(num_parts):
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        before = pa.default_memory_pool()
        with open_run(tmp_path / f"{num_parts}", {}) as run:
            cam = {"cam": np.zeros((64, 64), np.float32)}
            for k in range(num_parts):
                rows = [
                    ImageResult(i, f"{i}", 0, "explained", predicted=1, p_target=[0.5], maps=cam)
                    for i in range(k * 64, k * 64 + 64)
                ]
                run.write_part(k, rows)
            pa.set_memory_pool(pool)
            try:
                run.merge(CLASSES, num_parts, {})
            finally:
                pa.set_memory_pool(before)
        return pool.max_memory()

    assert peak(32) < 3 * peak(4)  # all parts at once would be 8 times


# --- what must not be lost or wrong -------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the report"), OSError()])
def test_a_finished_run_is_never_removed(tmp_path, uninterrupted, error):
    """Whatever happens after its results are there; no bank in the folder keeps it."""

    def fail():
        with open_run(tmp_path / "run", CONFIG) as run:
            for number in range(NUM_PARTS):
                run.write_part(number, part(number))
            run.merge(CLASSES, NUM_PARTS, {"device": "cpu"})
            run.finish()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert_same(read_run(tmp_path / "run"), uninterrupted)


def test_a_run_that_fails_after_its_results_are_there_keeps_them(tmp_path, uninterrupted):
    def fail():
        with open_run(tmp_path / "run", CONFIG) as run:
            for number in range(NUM_PARTS):
                run.write_part(number, part(number))
            run.merge(CLASSES, NUM_PARTS, {"device": "cpu"})
            raise InputError("the report")

    with pytest.raises(InputError, match="the report"):
        fail()
    assert_same(read_run(tmp_path / "run"), uninterrupted)


def test_a_folder_has_one_owner(tmp_path, uninterrupted):
    with open_run(tmp_path / "run", CONFIG) as run:
        run.write_part(0, part(0))
        with pytest.raises(InputError, match=r"run: another process writes a run there"):
            open_run(tmp_path / "run", CONFIG)
        child = subprocess.run(
            [sys.executable, "-c", KILLED, str(run.folder), os.path.dirname(__file__)],
            capture_output=True,
            text=True,
        )
        assert "another process writes a run there" in child.stderr.splitlines()[-1]
    assert_same(complete(tmp_path / "run"), uninterrupted)


def test_a_lock_dies_with_its_process(tmp_path):
    program = KILLED.split("complete(")[0].replace(
        'print("ready"', "run = open_run(sys.argv[1], CONFIG)\nprint('ready'"
    )
    command = [sys.executable, "-c", program + "time.sleep(60)"]
    child = subprocess.Popen(
        [*command, str(tmp_path / "run"), os.path.dirname(__file__)], stdout=subprocess.PIPE
    )
    child.stdout.readline()
    with pytest.raises(InputError, match="another process"):
        open_run(tmp_path / "run", CONFIG)
    child.kill()
    child.communicate()
    open_run(tmp_path / "run", CONFIG)


def stopped(folder):
    """A run that is stopped after all its parts are written."""
    with pytest.raises(KeyboardInterrupt):
        stop(folder, KeyboardInterrupt(), bank=False, parts=range(NUM_PARTS))
    return folder / "parts"


def test_every_changed_bit_of_a_part_is_found_or_changes_nothing(tmp_path):
    parts = stopped(tmp_path / "run")
    path = parts / "part-00003.parquet"
    whole, wanted = path.read_bytes(), read_part(path, 3)
    rng = np.random.default_rng(0)
    found = 0
    positions, bits = rng.permutation(len(whole))[:1500], rng.integers(8, size=1500)
    for position, bit in zip(positions, bits, strict=True):
        changed = bytearray(whole)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        try:
            got = read_part(path, 3)
        except Unfinished:
            found += 1
            continue
        assert got.schema.equals(wanted.schema)
        assert got.select(PART.names).equals(wanted.select(PART.names))
        for name in CORE_MAPS:
            ours, theirs = (t[f"map:{name}"].combine_chunks() for t in (got, wanted))
            np.testing.assert_array_equal(ours.to_numpy_ndarray(), theirs.to_numpy_ndarray())
    assert found > 900  # the others lie in statistics, paddings and names that are not read


def other_part(parts):
    (parts / "part-00003.parquet").write_bytes((parts / "part-00004.parquet").read_bytes())


def cut_part(parts):
    path = parts / "part-00003.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def changed_part(parts):
    path = parts / "part-00003.parquet"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)


def no_part(parts):
    (parts / "part-00003.parquet").write_bytes(b"")


@pytest.mark.parametrize("damage", [other_part, cut_part, changed_part, no_part])
def test_a_damaged_part_is_named_and_done_again(tmp_path, uninterrupted, damage, capsys):
    parts = stopped(tmp_path / "run")
    damage(parts)
    with open_run(tmp_path / "run", CONFIG) as run:
        assert run.resumed == run.done == {0, 1, 2, 4}
    error = capsys.readouterr().err
    assert "part-00003.parquet: damaged (" in error
    assert "it is done again" in error
    assert_same(complete(tmp_path / "run"), uninterrupted)


@pytest.mark.parametrize("damage", [other_part, cut_part, changed_part, no_part])
def test_a_part_that_is_damaged_later_is_not_merged(tmp_path, uninterrupted, damage):
    stopped(tmp_path / "run")
    with open_run(tmp_path / "run", CONFIG) as run:
        damage(run.parts)
        with pytest.raises(Unfinished, match=r"part-00003.parquet: damaged \(.*run again to redo"):
            run.merge(CLASSES, NUM_PARTS, {})
    assert_same(complete(tmp_path / "run"), uninterrupted)


def test_parts_of_images_out_of_order_are_not_merged(tmp_path):
    with open_run(tmp_path / "run", CONFIG) as run:
        run.write_part(0, part(1))
        run.write_part(1, part(0))
        with pytest.raises(Unfinished, match=r"part-00001.*images 0 to 5, expected .* above 11"):
            run.merge(CLASSES, 2, {})


def test_methods_with_nothing_misclassified(tmp_path):
    names = (*CORE_MAPS, "scout")
    with open_run(tmp_path / "run", {}) as run:
        run.write_part(0, [ImageResult(0, "a", 1, "unexplained", predicted=1)])
        run.merge(CLASSES, 1, {}, names)
        run.finish()
    assert {name: len(values) for name, values in read_run(tmp_path / "run").maps.items()} == (
        dict.fromkeys(names, 0)
    )


CUT = {
    "nothing": b"",
    "half": b'{"format": "fgvce-run/2", "conf',
    "a list": b"[1]",
    "bytes": b"\xff\xfe\x00",
    "a number": b"3",
}


@pytest.mark.parametrize("content", CUT.values(), ids=CUT)
@pytest.mark.parametrize("name", ["run.json", "inputs.json", "config.json"])
def test_json_that_is_cut_or_of_another_type(tmp_path, name, content):
    folder = tmp_path / "run"
    complete(folder)
    (folder / "inputs.json").write_text('{"classifier": "a"}')
    (folder / name).write_bytes(content)

    def read():
        read_run(folder)
        open_run(folder, CONFIG).check_inputs({"classifier": "a"})

    with pytest.raises(InputError, match=rf"{name}: (cannot be read as JSON|expected a JSON obj)"):
        read()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "fgvce-run/1"}, "format: expected fgvce-run/2, got fgvce-run/1"),
        ({"counts": None}, "counts: expected a dict, got NoneType"),
        ({"config": [1]}, "config: expected a dict, got list"),
    ],
)
def test_a_run_json_of_something_else(tmp_path, entry, message):
    complete(tmp_path / "run")
    path = tmp_path / "run/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    with pytest.raises(InputError, match=f"run.json: {message}"):
        read_run(tmp_path / "run")


def test_the_config_of_a_run_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"run\.json: config: expected that of a run"):
        complete(tmp_path / "run", {"bank": 3}).config  # noqa: B018


@pytest.mark.parametrize("name", ["explanations.parquet", "maps.parquet"])
def test_damaged_results_are_named(tmp_path, name):
    folder = tmp_path / "run"
    complete(folder)
    content = (folder / name).read_bytes()
    for damaged in (content[: len(content) // 2], b""):
        (folder / name).write_bytes(damaged)
        with pytest.raises(InputError, match=f"{name}: damaged"):
            read_run(folder)


def test_maps_of_another_run_are_named(tmp_path):
    folder = tmp_path / "run"
    complete(folder)
    with open_run(tmp_path / "other", {}) as other:
        other.write_part(0, part(0))
        other.merge(CLASSES, 1, {})
    (folder / "maps.parquet").write_bytes((tmp_path / "other/maps.parquet").read_bytes())
    with pytest.raises(InputError, match=r"maps.parquet: expected the maps of \d+ images"):
        read_run(folder)


@pytest.mark.parametrize("name", ["explanations.parquet", "maps.parquet", "predictions.parquet"])
def test_a_changed_byte_is_found_where_it_is_read(tmp_path, name):
    folder = tmp_path / "run"
    complete(folder)
    content = bytearray((folder / name).read_bytes())
    content[60] ^= 1
    (folder / name).write_bytes(content)

    def read():
        run = read_run(folder)
        return run.table, run.predictions, *run.maps.values()

    with pytest.raises(InputError, match=f"{name}: damaged"):
        read()


# --- more than a file holds ---------------------------------------------------------------------


@pytest.fixture
def in_parts(monkeypatch):
    """Splits of more than 20 images stay in parts, of a file for each 2 rows and a part's rest."""
    monkeypatch.setattr(merge, "IN_ONE_FILE", 20)
    monkeypatch.setattr(merge, "ROWS_OF_A_FILE", 2)


def test_a_large_run_stays_in_parts(tmp_path, uninterrupted, in_parts):
    run = complete(tmp_path / "run")
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "config.json",
        "explanations",
        "predictions.parquet",
        "run.json",
    ]
    counts = [pq.read_metadata(p).num_rows for p in sorted((run.folder / "explanations").iterdir())]
    assert counts == [2, 2, 2, 3]  # the parts have 2, 2, 2, 1 and 2 mistakes
    assert_same(run, uninterrupted)
    assert run.maps["dominant"].dtype == np.float32
    assert fg.read_run(tmp_path / "run").table.equals(run.table)


def test_others_read_a_large_run_as_one_dataset(tmp_path, uninterrupted, in_parts):
    run = complete(tmp_path / "run")
    table = dataset.dataset(run.folder / "explanations").to_table()
    assert table.column_names == [*results.EXPLANATIONS.names, *CORE_MAPS]
    columns = ["id", "target_name", "num_edits", "edits", "p_target"]
    assert table.select(columns).equals(uninterrupted.table.select(columns))
    for name in CORE_MAPS:  # lists of lists, of no type that only Arrow knows
        assert table[name].type == pa.list_(pa.list_(pa.float32(), 3), 3)
        np.testing.assert_array_equal(table[name].to_pylist(), uninterrupted.maps[name])


def test_a_large_run_with_maps_that_are_missing(tmp_path, in_parts):
    cam = ImageResult(6, "a", 0, "explained", predicted=1, maps={"cam": np.full((2, 2), 1.0)})
    none = ImageResult(30, "b", 0, "explained", predicted=1)
    right = [ImageResult(i, f"{i}", 0, "unexplained", predicted=0) for i in range(40)]
    with open_run(tmp_path / "run", {}) as run:
        for number, rows in enumerate([right[:6], [cam], right[7:30], [none], right[31:]]):
            run.write_part(number, rows)
        run.merge(CLASSES, 5, {}, ())
    got = read_run(tmp_path / "run")
    assert got.table["id"].to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(got.maps["cam"], [np.ones((2, 2)), np.full((2, 2), np.nan)])


def test_a_large_run_without_mistakes(tmp_path, in_parts):
    with open_run(tmp_path / "run", {}) as run:
        run.write_part(0, [ImageResult(i, f"{i}", 1, "unexplained", 1) for i in range(30)])
        run.merge(CLASSES, 1, {})
    got = read_run(tmp_path / "run")
    assert len(got.table) == len(got.maps["dominant"]) == 0
    assert set(got.maps) == set(CORE_MAPS)


def test_a_run_leaves_one_form_of_its_tables(tmp_path, uninterrupted, monkeypatch):
    for limit in (20, 50_000, 20):
        monkeypatch.setattr(merge, "IN_ONE_FILE", limit)
        run = complete(tmp_path / "run")
        assert (run.folder / "explanations").exists() == (limit == 20)
        assert (run.folder / "maps.parquet").exists() == (limit != 20)
        assert_same(run, uninterrupted)


@pytest.mark.parametrize("large", [False, True])
def test_a_sample_of_a_run(tmp_path, uninterrupted, monkeypatch, large):
    if large:
        monkeypatch.setattr(merge, "IN_ONE_FILE", 20)
        monkeypatch.setattr(merge, "ROWS_OF_A_FILE", 2)
    run = complete(tmp_path / "run")
    some, rows = run.sample(4), [0, 2, 5, 8]  # of 9
    assert len(some.explanations) == len(some.table) == 4
    assert some.table["id"].equals(uninterrupted.table["id"].take(rows))
    np.testing.assert_array_equal(some.maps["invariant"], uninterrupted.maps["invariant"][rows])
    assert some.info == run.info
    assert run.sample(9) is run


@pytest.mark.parametrize("damage", ["cut", "gone", "all gone"])
def test_damage_to_a_large_run_is_named(tmp_path, in_parts, damage):
    folder = complete(tmp_path / "run").folder
    files = sorted((folder / "explanations").iterdir())
    if damage == "cut":
        files[1].write_bytes(files[1].read_bytes()[:-10])
    for file in {"gone": files[:1], "all gone": files}.get(damage, []):
        file.unlink()
    message = {
        "cut": "part-00001.parquet: damaged",
        "gone": r"explanations.parquet: expected the explanations of 9 images, got 7",
        "all gone": "explanations: damaged or missing",
    }
    with pytest.raises(InputError, match=message[damage]):
        read_run(folder)
