"""The tables of benchmarks/paper, without measuring one."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fgvce_jax.errors import InputError
from fgvce_jax.methods import METHODS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "paper"))
import parts
import results
import rows
import scores
import study as studies
import table2
import table3

STAMP = {"checkpoint": "abc", "code": "c0de"}


def study(out, **settings):
    found = SimpleNamespace(
        options=SimpleNamespace(out=out, rise_masks=500, ep_iterations=800, calm=None),
        clf=SimpleNamespace(class_names=("a", "b"), spec=None),
        config=SimpleNamespace(data=SimpleNamespace(name="birds")),
        ids=("x.png", "y.png"),
        predicted=np.array([0, 1]),
        target=np.array([1, 0]),
    )
    found.results = lambda name, stamp=STAMP: results.Results(
        out / f"{name}.json", {"images": 2} | settings, stamp
    )
    return found


def test_unknown_names_are_answered_with_those_known():
    assert results.choose("method", "gradcam, ig", rows.ROWS) == ["gradcam", "ig"]
    with pytest.raises(InputError, match=r"method 'grad_cam': expected one of gbp, ig.*gradcam\?"):
        results.choose("method", "ig,grad_cam", rows.ROWS)
    assert results.choose("method", None, rows.ROWS, ["ig"]) == ["ig"]


def test_a_script_exits_with_2(capsys):
    def main():
        studies.open_preset("no such preset")

    with pytest.raises(SystemExit) as ended:
        results.run(main)
    assert ended.value.code == 2
    assert "no such preset: no such file, nor a preset" in capsys.readouterr().err


def test_numbers_of_things_are_1_or_more(capsys):
    assert results.parser("").parse_args(["--images", "1"]).images == 1
    with pytest.raises(SystemExit) as ended:
        results.parser("").parse_args(["--images", "0"])
    assert ended.value.code == 2


def test_presets_are_configs_of_explain():
    assert studies.open_preset("birds").model.checkpoint.endswith("checkpoints/birds")
    for name in ("cub_resnet50", "dogs_vgg16"):
        config = studies.open_preset(name)
        assert config.split != config.reference_split
    with pytest.raises(InputError, match="preset digits: expected a config of `fgvce explain`"):
        studies.open_preset("digits")


def test_every_method_is_a_row_under_its_own_label():
    of_transformers = {"legrad", "rollout"}
    assert not of_transformers & set(rows.ROWS)
    for name in set(METHODS) - of_transformers:
        method = METHODS[name]
        assert (rows.ROWS[name].label, rows.ROWS[name].explains) == (method.label, method.explains)
        assert name in rows.TABLE1
    explains = [rows.ROWS[name].explains for name in rows.TABLE1]
    assert explains == sorted(explains)
    assert set(table3.PAIRS) | set(table3.PAIRS.values()) <= set(rows.ROWS)
    assert set(parts.SHOWN) <= set(rows.ROWS)


def test_every_row_of_the_paper_has_a_row(tmp_path):
    cub = study(tmp_path)
    cub.config.data.name, cub.clf.spec = "cub", SimpleNamespace(arch="resnet50")
    for table in ("table1", "table3"):
        found = [scores.paper_scores(cub, name, table) for name in rows.ROWS]
        found = {tuple(values.values()) for values in found if values}
        values = results.PAPER[table]["rows"].values()
        assert {tuple(row.get("cub", row)["resnet50"]) for row in values} == found
    assert list(table2.LABELS.values()) == ["CE", "CVE", "CCE", "RISE", "FG-VCE"]


def test_the_papers_figures_stand_beside_its_own_dataset_only(tmp_path):
    birds = study(tmp_path)
    assert scores.paper_scores(birds, "gradcam", "table1") is None
    cub = study(tmp_path)
    cub.config.data.name, cub.clf.spec = "cub", SimpleNamespace(arch="vgg16_bn")
    expected = {"insertion": 24.87, "deletion": 11.95, "compactness": 4.92}
    assert scores.paper_scores(cub, "gradcam", "table1") == expected
    cub.clf.spec.arch = "resnet50"
    assert scores.paper_scores(cub, "ce_sp", "table3")["deletion"] == 16.29
    assert scores.paper_scores(cub, "fgvce_dominant", "table3")["deletion"] == 9.27
    cub.clf.spec.arch = "small_resnet"
    assert scores.paper_scores(cub, "gradcam", "table1") is None


def test_results_continue(tmp_path):
    calls = []

    def measure(name):
        calls.append(name)
        if name == "calm":
            raise InputError("calm: needs its head")
        return {"scores": {"insertion": [1.0, None]}, "excluded": ["y.png"], "empty": 0}

    study(tmp_path).results("t").measure(["a", "calm"], measure)
    again = study(tmp_path).results("t", {"checkpoint": "abc", "code": "1a7e"})
    again.measure(["a", "calm", "b"], measure)
    assert calls == ["a", "calm", "calm", "b"]  # what is missing is tried again
    kept = again.among(["b", "calm", "other"])
    assert list(kept) == ["b", "calm"]
    assert kept["calm"]["missing"] == "needs its head"
    with pytest.raises(InputError, match="holds results with images 2, expected 3"):
        study(tmp_path, images=3).results("t")
    with pytest.raises(InputError, match="holds results with checkpoint abc, expected def"):
        study(tmp_path).results("t", {"checkpoint": "def", "code": "c0de"})


def test_each_row_keeps_the_code_that_measured_it(tmp_path):
    study(tmp_path).results("t").measure(["a"], lambda name: {})
    again = study(tmp_path).results("t", {"checkpoint": "abc", "code": "1a7e"})
    again.measure(["a", "b"], lambda name: {})
    written = json.loads((tmp_path / "t.json").read_text())
    assert {name: row["code"] for name, row in written["rows"].items()} == {
        "a": "c0de",
        "b": "1a7e",
    }


def test_a_table_tells_the_missing_rows_and_the_samples_left_out(tmp_path, capsys):
    kinds = {"a": rows.Row("A", "P", None), "calm": rows.Row("CALM", "P", None)}
    found = {
        "a": {
            "scores": {"insertion": [10.0, None, 20.0]},
            "excluded": ["y.png"],
            "without_global_map": ["z.png"],
            "empty": 1,
        },
        "calm": {"missing": "needs its head"},
    }
    table = scores.score_table(study(tmp_path), found, ["insertion"], kinds, "table1")
    assert table.rows == [["A", "P", "15.0 ± 5.0"], ["CALM", "P", None]]
    assert table.notes == [
        "CALM: — because needs its head.",
        "A: NaN in 1 of the maps, left out (y.png).",
        "A: no compactness for 1 samples whose global map has no positive value, left out of it "
        "(z.png).",
        "A: no positive value in 1 of the maps.",
    ]
    study(tmp_path).results("t").finish(table=table)
    printed = capsys.readouterr().out
    assert "| CALM   | P     | —           |" in printed
    assert json.loads((tmp_path / "t.json").read_text())["tables"]["table"]["rows"] == table.rows


def test_differences_are_of_the_samples_that_both_have():
    found = {
        "ce": {"scores": {"insertion": [1.0, None, 3.0, 8.0]}},
        "ce_sp": {"scores": {"insertion": [3.0, 2.0, None, 7.0]}},
        "scout": {"missing": "not here"},
    }
    pairs = [("ce_sp", "ce"), ("ce", "scout"), ("ce", "rise")]
    table = scores.differences(found, pairs, ["insertion"])
    assert table.rows == [["CE + SP − CE", "P", "+0.5 ± 1.5"]]  # of 2 and -1


def test_nan_maps_have_no_scores(tmp_path):
    one = study(tmp_path)
    one.images = np.zeros((2, 8, 8, 3))
    one.batched = lambda function, *arrays: {m: np.ones(2) for m in scores.MEASURES}
    one.kept, one.cells = tmp_path, np.ones((2, 4, 4, 3))
    maps = np.zeros((2, 4, 4))
    maps[1, 2, 2] = np.nan
    explained = rows.maps_of(one, "gradcam", rows.Row("", "P", lambda study: maps))
    assert explained.maps[1, 2, 2] == 0
    assert explained.left_out() == {"excluded": ["y.png"], "empty": 1}
    one.options.share, one.options.batch_size = 0.5, 2
    for _ in range(2):  # measured, then from the disk
        found = scores.scores_of(explained, ["insertion", "deletion"], "gradcam")
        np.testing.assert_array_equal(found["insertion"], [1, np.nan])
        one.batched = None
    kept = rows.maps_of(one, "gradcam", rows.Row("", "P", None))  # from the disk
    np.testing.assert_array_equal(kept.maps, explained.maps)


def test_classes_take_turns():
    labels = np.array([0, 0, 0, 2, 2, 1])
    assert studies.in_turns(labels).tolist() == [0, 5, 3, 1, 4, 2]
    assert studies.in_turns(np.arange(7) % 3).tolist() == list(range(7))  # the birds' order


def test_no_picture_shows_photographs_unless_it_is_asked_for(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(rows, "save", lambda figure, path: drawn.append(path.name))
    monkeypatch.setattr(
        rows, "maps_of", lambda study, row: SimpleNamespace(maps=np.ones((2, 4, 4)))
    )
    drawable = studies.Study.drawable.fget
    one = study(tmp_path)
    one.images, one.captions = np.zeros((2, 8, 8, 3)), ["a", "b"]
    for name, panels in (("birds", False), ("folder", False), ("folder", True)):
        one.config.data.name, one.options.panels = name, panels
        one.drawable = drawable(one)
        rows.draw(one, f"{name}-{panels}", ["gradcam"], slice(2))
    assert drawn == ["birds-False.png", "folder-True.png"]


def test_the_readme_names_every_script():
    text = (BENCHMARKS / "README.md").read_text()
    named = set(re.findall(r"benchmarks/(\w+/\w+\.py)", text))
    scripts = {
        f"{path.parent.name}/{path.name}"
        for path in BENCHMARKS.glob("*/*.py")
        if "__main__" in path.read_text()
    }
    assert named == scripts
