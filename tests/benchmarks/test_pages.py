"""The pages: figures of one checkpoint only, and those of earlier code marked."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from benchmarks.pages import build
from benchmarks.provenance import checkpoint_hash, code_hash, stamp
from fgvce_jax.errors import InputError
from fgvce_jax.models import ModelSpec, load_classifier, save_classifier
from fgvce_jax.models import build as build_model

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
MARK = "*Measured with an earlier version of the code"


@pytest.fixture(scope="module")
def shipped():
    return checkpoint_hash(load_classifier(ROOT / "checkpoints" / "birds"))


def copied(folder, names):
    folder.mkdir()
    for name in names:
        (folder / f"{name}.json").write_bytes((RESULTS / f"{name}.json").read_bytes())
    return folder


def changed(folder, name, change):
    path = folder / f"{name}.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def of_checkpoint(checkpoint, dataset="birds"):
    def change(found):
        found["provenance"]["checkpoint"] = checkpoint
        found["settings"]["dataset"] = dataset

    return change


def test_how_far_two_seeds_lie_apart():
    def row(name, mean, error):
        return {"name": name, "figures": {"mistakes": {"edits": {"mean": mean, "error": error}}}}

    one = {
        "rows": [row("a", 1.0, 0.3), row("b", 5.0, 0.0), row("c", 2.0, 0.6), row("d", None, None)]
    }
    other = {
        "rows": [row("a", 2.25, 0.4), row("b", 5.0, 0.0), row("c", 1.0, 0.8), row("d", 3.0, 1)]
    }
    assert build.apart(one, other) == {"figures": 2, "within": 1, "largest": pytest.approx(2.5)}


# --- provenance ---------------------------------------------------------------------------------


def test_the_checkpoint_is_known_by_its_weights(tmp_path):
    spec = ModelSpec("small_resnet", widths=(4, 4, 4), blocks=(1, 1, 1))
    clf = build_model(spec, 3, 32, jax.random.key(0))
    save_classifier(clf, tmp_path / "a")
    assert checkpoint_hash(load_classifier(tmp_path / "a")) == checkpoint_hash(clf)
    other = replace(clf, head=replace(clf.head, bias=clf.head.bias.at[1].add(1e-6)))
    assert checkpoint_hash(other) != checkpoint_hash(clf)
    assert stamp(clf)["checkpoint"] == checkpoint_hash(clf)
    assert stamp()["checkpoint"] is None


def test_the_code_is_known_by_what_runs(tmp_path):
    def hashed(text, name="a.py"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / name).write_text(text)
        return code_hash(folder)

    code = hashed('"""One."""\n\ndef f(x):\n    """Two."""\n    return x + 1\n')
    assert hashed("def f(x):  # why\n    return (x+1)\n") == code
    assert hashed("def f(x):\n    return x - 1\n") != code
    assert hashed("def f(x):\n    return x + 1\n", "b.py") != code


def test_what_only_shows_results_is_not_their_code(tmp_path):
    (tmp_path / "search.py").write_text("x = 1\n")
    code = code_hash(tmp_path)
    for folder, same in (("report", True), ("methods", False)):
        other = tmp_path.with_name(f"{tmp_path.name}_{folder}")
        shutil.copytree(tmp_path, other)
        (other / folder).mkdir()
        (other / folder / "page.py").write_text("y = 1\n")
        assert (code_hash(other) == code) is same


# --- refusals -----------------------------------------------------------------------------------


def test_another_checkpoint_than_the_shipped_one_is_refused(tmp_path, shipped):
    folder = copied(tmp_path / "results", ["table1", "table3"])
    assert build.render("results", folder, shipped, "")
    changed(folder, "table3", of_checkpoint("0123456789ab"))
    with pytest.raises(InputError, match=r"table3\.json: measured checkpoint 0123456789ab"):
        build.render("results", folder, shipped, "")
    copied(tmp_path / "speed", ["agreement"])
    changed(tmp_path / "speed", "agreement", lambda f: f["provenance"].update(checkpoint="0123"))
    with pytest.raises(InputError, match=r"agreement\.json: measured checkpoint 0123"):
        build.render("performance", tmp_path / "speed", shipped, "")


def test_two_checkpoints_are_refused_on_one_page(tmp_path, shipped):
    folder = copied(tmp_path / "results", ["table1", "table3"])
    for name, checkpoint in (("table1", "aaaa"), ("table3", "aaaa")):
        changed(folder, name, of_checkpoint(checkpoint, "cub"))
    assert "`cub`" in build.render("results", folder, shipped, "")
    changed(folder, "table3", of_checkpoint("bbbb", "cub"))
    with pytest.raises(InputError, match=r"expected files of one checkpoint, got table1\.json"):
        build.render("results", folder, shipped, "")


def test_the_builder_exits_with_2_and_one_line(tmp_path):
    folder = copied(tmp_path / "results", ["table1"])
    changed(folder, "table1", of_checkpoint("0123456789ab"))
    command = [sys.executable, ROOT / "benchmarks/pages/build.py", "results", "--results", folder]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert re.fullmatch(r"build.py: error: .*table1\.json: measured .*\n", ended.stderr)
    assert not (tmp_path / "results.md").exists()


def test_a_file_without_a_stamp_is_refused(tmp_path, shipped):
    folder = copied(tmp_path / "results", ["table1"])
    changed(folder, "table1", lambda found: found.pop("provenance"))
    with pytest.raises(InputError, match="expected a benchmark's JSON"):
        build.render("results", folder, shipped, "")


# --- footnotes ----------------------------------------------------------------------------------


def processor(folder, name):
    measured = json.loads((folder / f"{name}.json").read_text())
    return measured["provenance"]["machine"]["processor"]


def test_figures_of_earlier_code_are_marked(tmp_path, shipped):
    folder = copied(tmp_path / "results", ["table1"])

    def codes(found):
        for name, row in found["rows"].items():
            row["code"] = "now" if name != "rise" else "before"

    changed(folder, "table1", codes)
    where = processor(folder, "table1")
    assert f"{MARK}: rise, on {where}.*" in build.render("results", folder, shipped, "now")
    assert f"{MARK}, on {where}.*" in build.render("results", folder, shipped, "later")
    changed(folder, "table1", lambda found: found["rows"]["rise"].update(code="now"))
    assert MARK not in build.render("results", folder, shipped, "now")


def test_speed_figures_of_earlier_code_are_marked(tmp_path, shipped):
    folder = copied(tmp_path / "results", ["scaling"])
    changed(folder, "scaling", lambda found: found["provenance"].update(code="now"))
    assert MARK not in build.render("performance", folder, shipped, "now")
    where = processor(folder, "scaling")
    assert f"{MARK}, on {where}.*" in build.render("performance", folder, shipped, "later")


def test_tables_of_photographs_follow_those_of_the_birds(tmp_path, shipped):
    folder = copied(tmp_path / "results", ["table1"])
    plain = build.render("results", folder, shipped, "")
    copied(folder / "photos", ["table1", "table2"])
    for name, images in (("table1", 200), ("table2", 16)):
        changed(folder / "photos", name, of_checkpoint("1234abcd", "folder"))
        more = {"images": images, "looked_at": 800, "share": 0.125}
        changed(folder / "photos", name, lambda found, more=more: found["settings"].update(more))
    text = build.render("results", folder, shipped, "")
    assert "on photographs" not in plain
    assert "the tables for 200 mistakes" in " ".join(text.split())
    assert "(12.5 % of the pixels each, not 1.8 %)" in text
    assert "### Table 2, on photographs\n\nThe first 16 of them.\n\n| Method" in text
    assert text.count("The first 16 of them.") == 1


# --- the pages as they are ----------------------------------------------------------------------


@pytest.mark.parametrize("page", build.PAGES)
def test_the_page_is_what_the_builder_makes_of_the_json(page, shipped):
    texts = build.render(page, RESULTS, shipped, ""), RESULTS.with_name(f"{page}.md").read_text()
    ours, kept = (
        [line for line in text.splitlines() if line and MARK not in line] for text in texts
    )
    assert ours == kept


@pytest.mark.parametrize(
    ("page", "missing"),
    [(page, name) for page, names in build.PAGES.items() for name in names if len(names) > 1],
)
def test_the_page_does_without_what_was_not_measured(tmp_path, shipped, page, missing):
    names = [n for n in build.PAGES[page] if n != missing and (RESULTS / f"{n}.json").exists()]
    text = build.render(page, copied(tmp_path / "results", names), shipped, "")
    assert "None" not in text
    assert "Undefined" not in text
