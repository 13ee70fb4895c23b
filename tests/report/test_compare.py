"""Runs side by side."""

import json
import re

import numpy as np
import pytest
from report.runs import CLASSES, VIEW, Images, make_run, mistake

from fgvce_jax.errors import InputError
from fgvce_jax.report import write_comparison
from fgvce_jax.results import ImageResult, read_run


def right(index):
    return ImageResult(index, f"test/<{index}>.png", 1, "unexplained", predicted=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Images 1 to 5: both right; only a wrong; only b; both, the same class; both, another."""
    folder = tmp_path_factory.mktemp("compare")
    ours = [right(1), mistake(2, 0, 1, [3]), right(3), mistake(4, 0, 1, [3, 4, 10])]
    theirs = [right(1), right(2), mistake(3, 0, 1, [7]), mistake(4, 0, 1, [4, 10, 20, 30])]
    theirs[3].maps["dominant"] = -np.eye(7)
    a = make_run(folder / "a", [*ours, mistake(5, 0, 1, [1])])
    b = make_run(folder / "b", [*theirs, mistake(5, 0, 2, [1]), right(6)])
    return [read_run(path) for path in (a, b)]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "compare.html"
    return write_comparison(runs, ["a", "b"], path, Images("test"), VIEW)


def data(path):
    blocks = re.findall(r'json" id="([\w-]+)">(.*?)</script>', path.read_text())
    return {name: json.loads(text) for name, text in blocks}


def test_who_is_wrong_where(page):
    found = data(page)
    index, text = found["index"], page.read_text()
    rows = index["rows"]
    groups = {id: index["groups"][k] for id, k in zip(rows["id"], rows["group"], strict=True)}
    assert groups == {
        "test/<2>.png": "only a wrong",
        "test/<3>.png": "only b wrong",
        "test/<4>.png": "both wrong",
        "test/<5>.png": "both wrong",
    }
    counts = dict(re.findall(r'row">((?:only|both|all)[^<]*)</th><td>(\d+)</td>', text))
    assert counts == {"both wrong": "2", "only a wrong": "1", "only b wrong": "1", "all right": "1"}
    assert "over the 5 images that all of them read" in text
    assert text.count("<td>40.0%</td>") == 2  # both right on 2 of 5


def test_edits_maps_and_agreement(page):
    found = data(page)
    one = found["cards-0"][2]["runs"]
    assert [run["edits"] for run in one] == [[3, 4, 10], [4, 10, 20, 30]]
    assert [run["pQ"] for run in one] == [pytest.approx([0.1, 0.9])] * 2
    assert found["cards-0"][0]["runs"][1] is None
    names = found["index"]["classes"]
    assert [names[str(run["P"])] for run in found["cards-0"][3]["runs"]] == list(CLASSES[1:3])
    text = page.read_text()
    agreement = dict(re.findall(r'row">(b: [^<]*)</th><td>([^<]*)</td>', text))
    assert agreement == {
        "b: same wrong class, of 2 images wrong in both": "50.0%",
        "b: edited cells in common, of the shorter list": "66.7%",
        "b: rank correlation, evidence for P": "1.00",
        "b: rank correlation, deciding for Q": "-1.00",
    }
    assert "8.2%" in text  # 4 of 49 cells: the chance that one of the three is among the four


def test_runs_of_other_images_are_refused(runs, tmp_path):
    other = make_run(tmp_path / "other", [right(9)])
    with pytest.raises(InputError, match="none in common"):
        write_comparison([runs[0], read_run(other)], ["a", "o"], tmp_path / "x.html", None, VIEW)
    with pytest.raises(InputError, match="at least two to compare, got 1"):
        write_comparison(runs[:1], ["a"], tmp_path / "x.html", None, VIEW)
    assert not (tmp_path / "x.html").exists()
