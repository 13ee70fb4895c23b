"""What the benchmarks' tables are made of, without running one."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import problems
import pytest

import fgvce_jax as fg
from fgvce_jax.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import run_all
import script
import study as studies
import tables
from results import Page, difference, verdict

CLF_SIZE, CLASSES = 12, 3


def study(out, **settings):
    return SimpleNamespace(
        options=SimpleNamespace(out=out, rise_masks=500, ep_iterations=800),
        settings={"images": 2} | settings,
        samples=[],
        clf=SimpleNamespace(class_names=("a", "b"), spec=None),
        config=SimpleNamespace(data=SimpleNamespace(name="birds")),
        ids=("x.png", "y.png"),
        predicted=np.array([0, 1]),
        target=np.array([1, 0]),
    )


def test_unknown_names_are_answered_with_those_known():
    assert script.choose("method", "gradcam, ig", tables.ROWS) == ["gradcam", "ig"]
    with pytest.raises(InputError, match=r"method 'grad_cam': expected one of gbp, ig.*gradcam\?"):
        script.choose("method", "ig,grad_cam", tables.ROWS)


def test_a_script_exits_with_2(capsys):
    def main():
        studies.open_preset("no such preset")

    with pytest.raises(SystemExit) as ended:
        script.run(main)
    assert ended.value.code == 2
    assert "preset 'no such preset': expected birds, cub_resnet50" in capsys.readouterr().err


def test_presets_are_configs_of_explain():
    assert studies.open_preset("birds").model.checkpoint.endswith("checkpoints/birds")
    assert {"cub_resnet50", "dogs_vgg16"} < set(studies.presets())
    for name in studies.presets():
        config = studies.open_preset(name)
        assert config.split != config.reference_split


def test_every_row_of_the_paper_has_a_row():
    keys = {row.paper for row in tables.ROWS.values()}
    for table in ("table1", "table3"):
        assert set(script.PAPER[table]["rows"]) <= keys


def test_the_papers_figures_stand_beside_its_own_dataset_only(tmp_path):
    birds = study(tmp_path)
    assert tables.paper_scores(birds, "gradcam", "table1") is None
    cub = study(tmp_path)
    cub.config.data.name, cub.clf.spec = "cub", SimpleNamespace(arch="vgg16_bn")
    expected = {"insertion": 24.87, "deletion": 11.95, "compactness": 4.92}
    assert tables.paper_scores(cub, "gradcam", "table1") == expected
    cub.clf.spec.arch = "resnet50"
    assert tables.paper_scores(cub, "ce_sp", "table3")["deletion"] == 16.29
    cub.clf.spec.arch = "small_resnet"
    assert tables.paper_scores(cub, "gradcam", "table1") is None


def test_results_continue(tmp_path):
    calls = []

    def measure(name):
        calls.append(name)
        if name == "calm":
            raise InputError("calm: needs its head")
        return {"scores": {"insertion": [1.0, None]}, "excluded": ["y.png"], "empty": 0}

    script.Results("t", study(tmp_path)).measure(["a", "calm"], measure)
    again = script.Results("t", study(tmp_path))
    again.measure(["a", "calm", "b"], measure)
    assert calls == ["a", "calm", "calm", "b"]  # what is missing is tried again
    again.measure(["a"], measure, lambda name: {"masks": 7})
    assert calls[4:] == ["a"]  # and what was measured with other constants
    rows = again.among(["b", "calm", "other"])
    assert list(rows) == ["b", "calm"]
    assert rows["calm"]["missing"] == "needs its head"
    with pytest.raises(InputError, match="holds results with images 2, expected 3"):
        script.Results("t", study(tmp_path, images=3))


def test_a_table_says_what_is_missing_and_what_was_left_out(tmp_path, capsys):
    kinds = {
        "a": tables.Row("A", "P", None),
        "calm": tables.Row("CALM", "P", None),
    }
    rows = {
        "a": {
            "scores": {"insertion": [10.0, None, 20.0]},
            "excluded": ["y.png"],
            "without_global_map": ["z.png"],
            "empty": 1,
        },
        "calm": {"missing": "needs its head"},
    }
    table = tables.score_table(study(tmp_path), rows, ["insertion"], kinds, "table1")
    assert table.rows == [["A", "P", "15.0 ± 5.0"], ["CALM", "P", None]]
    assert table.notes == [
        "CALM: — because needs its head.",
        "A: NaN in 1 of the maps, left out (y.png).",
        "A: no compactness for 1 samples whose global map has no positive value, left out of it "
        "(z.png).",
        "A: no positive value in 1 of the maps.",
    ]
    results = script.Results("t", study(tmp_path))
    results.finish(table)
    printed = capsys.readouterr().out
    assert "| CALM   | P     | —           |" in printed
    assert json.loads((tmp_path / "t.json").read_text())["table"]["rows"] == table.rows
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "A,P,15.0 ± 5.0"


def test_nan_maps_have_no_scores(tmp_path):
    one = study(tmp_path)
    one.images = np.zeros((2, 8, 8, 3))
    one.batched = lambda function, *arrays: {m: np.ones(2) for m in tables.MEASURES}
    one.kept, one.cells = tmp_path, np.ones((2, 4, 4, 3))
    maps = np.zeros((2, 4, 4))
    maps[1, 2, 2] = np.nan
    explained = tables.maps_of(one, "gradcam", tables.Row("", "P", lambda study: maps))
    assert explained.maps[1, 2, 2] == 0
    assert tables.left_out(explained) == {"excluded": ["y.png"], "empty": 1}
    scores = tables.scores_of(explained, ["insertion", "deletion"])
    np.testing.assert_array_equal(scores["insertion"], [1, np.nan])


def test_the_best_of_a_whole_bank_is_a_smaller_bank():
    rng = np.random.default_rng(0)
    head = problems.planted(rng, n=4, channels=6, classes=CLASSES)[0]
    images = rng.uniform(size=(30, CLF_SIZE, CLF_SIZE, 3)).astype(np.float32)
    kernel = rng.normal(size=(27, 6)).astype(np.float32)

    def features(kernel, images):
        patches = images.reshape(-1, 4, 3, 4, 3, 3).swapaxes(2, 3)
        return jax.nn.relu(patches.reshape(-1, 4, 4, 27) @ kernel)

    clf = fg.Classifier(jax.tree_util.Partial(features, kernel), head, CLASSES, CLF_SIZE)
    labels = np.asarray(clf(images)).argmax(-1)
    whole = fg.build_bank(clf, images, labels, 4, None)
    small, expected = studies.best(whole, 3, 16), fg.build_bank(clf, images, labels, 4, 3)
    assert jax.tree.structure(small) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(small), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# --- the page -----------------------------------------------------------------------------------


def test_level_is_within_two_standard_errors():
    words = [verdict(d) for d in [(0.0, 0.0), (2.0, 1.0), (2.1, 1.0), (-2.1, 1.0)]]
    assert words == ["level", "level", "better", "worse"]
    assert verdict((-2.1, 1.0), lowest=True) == "better"
    assert verdict(None) == ""


def test_a_difference_needs_two_samples_that_have_both():
    assert difference([1.0, None, 3.0], [0.5, 2.0, None]) is None
    assert difference([1.0, None, 3.0], [0.5, 2.0, 1.5], 10) == (10.0, 5.0)


RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_page_is_what_the_script_makes_of_the_json(tmp_path):
    run_all.write(RESULTS, tmp_path / "results.md")
    ours, kept = (tmp_path / "results.md").read_text(), RESULTS.with_suffix(".md").read_text()
    assert ours == kept


@pytest.mark.parametrize("missing", ["table3", "figure6", "figure7", "parts", "everything else"])
def test_the_page_does_without_what_was_not_measured(tmp_path, missing):
    folder = tmp_path / "results"
    folder.mkdir()
    for path in RESULTS.glob("*.json"):
        if path.stem != missing and (missing != "everything else" or path.stem == "table1"):
            (folder / path.name).write_bytes(path.read_bytes())
    run_all.write(folder, tmp_path / "results.md")
    assert "Not measured here: " in (tmp_path / "results.md").read_text() or missing == "figure6"


def test_the_page_does_without_samples_that_can_be_compared(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("table1", "figure6", "figure7"):
        found = json.loads((RESULTS / f"{name}.json").read_text())
        rows = found["rows"]
        if name == "figure6":  # no keypoint inside any map
            scores = rows["fgvce_invariant"]["scores"]
            scores |= {measure: [None] * len(values) for measure, values in scores.items()}
        if name == "figure7":  # no prediction changed
            rows["sp"]["flipped"] = [False] * len(rows["sp"]["flipped"])
        (folder / f"{name}.json").write_text(json.dumps(found))
    run_all.write(folder, tmp_path / "page.md")
    page = " ".join((tmp_path / "page.md").read_text().split())
    assert "too few change both ways to compare edits" in page


def test_calm_has_no_place_among_those_that_explain_another_classifier(tmp_path):
    found = json.loads((RESULTS / "table1.json").read_text())
    ours = found["rows"]["fgvce_invariant"]
    places = []
    for constants in ({}, {"classifier": "runs/birds_calm"}):
        calm = {"scores": {m: [999.0] * len(v) for m, v in ours["scores"].items()}}
        found["rows"]["calm"] = calm | {"constants": constants}
        (tmp_path / "table1.json").write_text(json.dumps(found))
        places.append(Page(tmp_path).place("insertion", "fgvce_invariant"))
    assert "best: CALM" in places[0]
    assert "CALM" not in places[1]


def test_other_numbers_make_other_sentences(tmp_path):
    """FG-VCE's scores exchanged with the contributions' and GradCAM's: who wins is turned round."""
    found = json.loads((RESULTS / "table1.json").read_text())
    rows = found["rows"]
    for ours, theirs in (("fgvce_invariant", "contributions"), ("fgvce_dominant", "gradcam_q")):
        rows[ours], rows[theirs] = rows[theirs], rows[ours]
    (tmp_path / "table1.json").write_text(json.dumps(found))
    run_all.write(tmp_path, tmp_path / "page.md")
    pages = [path.read_text() for path in (tmp_path / "page.md", RESULTS.with_suffix(".md"))]
    claim = "This is what the measure asks for"
    assert [claim in " ".join(page.split()) for page in pages] == [False, True]
