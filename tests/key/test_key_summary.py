"""Means, standard errors and paired differences by hand; the page shows them."""

import csv

import numpy as np
import pytest
from cases import samples

from fgvce_jax.key import summary
from fgvce_jax.key.page import shown, write_csv, write_page
from fgvce_jax.key.scores import Measure
from fgvce_jax.key.summary import figure, summarise


def test_a_figure():
    values, other = np.array([1, 0, 1, np.nan]), np.array([0.0, 0.0, np.nan, 1.0])
    found = figure(values, other)
    # Of 1, 0, 1: deviation sqrt(1/3), over sqrt(3). Both have the first two samples: 1 and 0.
    assert found == pytest.approx(
        {
            "mean": 2 / 3,
            "error": 1 / 3,
            "n": 3,
            "median": 1.0,
            "difference": 0.5,
            "difference_error": 0.5,
        }
    )
    assert figure(np.array([np.nan]))["mean"] is None
    assert figure(np.array([2.0])) == {"mean": 2.0, "error": None, "n": 1, "median": 2.0}


def test_how_a_figure_is_shown():
    percent, ratio = Measure("A, %"), Measure("B", percent=False, high=False)
    clear = {"mean": 0.5, "error": 0.01, "median": 1.0, "difference": 0.25}
    assert shown(clear | {"difference_error": 0.1}, percent) == "50.0 ± 1.0 (+25.0)"
    assert shown(clear | {"difference_error": 0.2}, percent) == "50.0 ± 1.0"  # two errors: none
    assert shown(clear, ratio) == "0.50 ± 0.01"
    assert shown(clear, Measure("C", percent=False, high=None)) == "1"
    assert shown(None, percent) == shown({"mean": None}, percent) == "—"


@pytest.fixture
def found(monkeypatch):
    """Two searches and a map on four samples: one mistake, three right, one of them confident."""
    settings = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1]], bool)
    monkeypatch.setattr(
        summary, "chance", lambda samples: {"edit_changed": np.full(4, 0.125, np.float32)}
    )
    rows = [
        {"name": "fgvce", "label": "F", "explains": "P", "scores": {"edit_changed": [0, 0, 0, 1]}},
        {"name": "cve_edits", "label": "C", "explains": "Q",
         "scores": {"edit_changed": [1, None, 1, 1]}},
        {"name": "gradcam", "label": "G", "explains": "P", "scores": {"precision": [0.5] * 4}},
        {"name": "calm", "label": "CALM", "explains": "P", "missing": "no such head"},
        {"name": "fgvce@head", "label": "F", "explains": "P", "stage": 0,
         "scores": {"edit_changed": [0, 1]}},
    ]  # fmt: skip
    return summarise(rows, samples(4, settings=settings))


def test_each_setting_has_its_own_samples(found):
    assert found["samples"] == {"mistakes": 1, "siblings": 3, "confident": 1}
    own, other = (row["figures"]["siblings"]["edit_changed"] for row in found["rows"][:2])
    assert own["mean"] == pytest.approx(1 / 3)
    assert "difference" not in own  # from itself
    assert (other["mean"], other["n"], other["difference"]) == (1, 2, 0.5)
    assert found["chance"]["siblings"]["edit_changed"]["mean"] == 0.125


def test_page_and_csv(found, tmp_path):
    write_page(tmp_path / "key.md", {"key": "key-1", "seed": 3}, found)
    page = (tmp_path / "key.md").read_text()
    assert page.startswith("# key-1\n\nkey key-1, seed 3.\n")
    assert "| F      | P     | 33.3 ± 33.3" in page
    assert "| chance |       | 12.5 ± 0.0 " in page
    assert "CALM: not measured, no such head." in page
    line = "| F      | First edit in the true change, % | 33.3 ± 33.3 | 50.0 ± 50.0 |"
    assert line in page.partition("## Random weights")[2]
    write_csv(tmp_path / "key.csv", found)
    with open(tmp_path / "key.csv") as file:
        lines = list(csv.DictReader(file))
    (line,) = (x for x in lines if (x["row"], x["setting"]) == ("cve_edits", "siblings"))
    assert (line["mean"], line["n"], line["difference"]) == ("1.0", "2", "0.5")
