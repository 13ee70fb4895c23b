"""The lines that a run prints, held to counts made by hand."""

import numpy as np
import pytest

from fgvce_jax.results import Edit, ImageResult, flips, open_run, read_run, skip_reasons, summary

INFO = {
    "cells": 4,
    "preprocessing": {"text": "squashed to 64 x 64 pixels"},
    "timings": {"seconds": {"start": 1.5, "search": 0.01, "report": 2.0}, "total": 6.0},
}


def result(index, edits=None, final=0.0, flipped=True, status="explained"):
    """An image with so many edits; without, one that is right."""
    if edits is None:
        return ImageResult(index, f"{index}.png", 0, "unexplained", 0)
    maps = {
        name: np.zeros((4, 4), np.float32)
        for name in ("invariant", "dominant", "contributions_before", "contributions_after")
    }
    made = tuple(Edit(k, "a.png", 0, 0, 0.5) for k in range(edits))
    p = (*[0.1] * edits, final)
    options = {"flipped": flipped, "edits": made, "p_target": p, "p_predicted": p}
    return ImageResult(index, f"{index}.png", 0, status, 1, 0, **options, time_s=0.004, maps=maps)


def skipped(index, why):
    return ImageResult(index, f"{index}.png", 0, "skipped", why=why)


@pytest.fixture
def run(tmp_path):
    results = [
        result(0),
        result(1, 2, 0.35),
        result(2, 4, 0.9),
        result(3, 12, 0.6),
        result(4, 16, 0.4, flipped=False),
        result(5, 0, 0.1, flipped=False, status="no_reference"),
        skipped(6, "1x1 pixels; expected at least 2x2"),
        skipped(7, "1x9 pixels; expected at least 2x2"),
        skipped(8, "the file is empty; expected a whole JPEG file"),
    ]
    with open_run(tmp_path / "run", {"limit": 9}) as opened:
        opened.write_part(0, results)
        opened.merge(("a", "b"), 1, INFO | {"timings": INFO["timings"] | {"images": 8}})
        opened.add_info({"peak_memory_mib": 7})
        opened.finish()
    return tmp_path / "run"


def test_what_the_explanations_come_to(run):
    results = read_run(run)
    assert results.info["peak_memory_mib"] == 7
    assert results.info["cells"] == 4  # and what was there before stays
    assert results.info["skipped_by_reason"] == {"too small": 2, "the file is empty": 1}
    found = flips(results)
    assert found.pop("share_replaced") == pytest.approx((2 + 4 + 12 + 16) / 4 / 16)
    assert found.pop("search_s") == pytest.approx(0.004)
    assert found == {
        "explained": 4,
        "flipped": 3,
        "likely": 2,
        "many_edits": 2,
        "edits_median": 4.0,
        "edits_most": 12,
    }


def test_the_lines(run):
    assert summary(run).splitlines() == [
        "images          6 (3 skipped: 2 too small, 1 the file is empty)",
        "preprocessing   squashed to 64 x 64 pixels",
        "accuracy        16.7%",
        "misclassified   5",
        "explained       4 (1 without a reference)",
        "flipped         3 (75.0%), 2 to a probability above 0.5",
        "edits           median 4, most 12; 2 images over 10; 53.1% of the cells replaced",
        "time            6.0 s: start 1.5, report 2.0",
        "                750 ms per image over everything; 4.0 ms per search",
        f"report          {run / 'report.html'}",
    ]


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("9000x9000 pixels; expected at most 64,000,000 (data.max_pixels)", "too large"),
        ("a file of 800 MiB; expected at most 489 for 64,000,000 pixels", "too large"),
        ("too large for the memory that is free", "too large"),
        ("cannot be decoded (not an image file); expected a whole JPEG", "cannot be decoded"),
        ("cannot be read (No such file or directory)", "cannot be read"),
    ],
)
def test_reasons_leave_an_images_own_numbers_out(why, reason):
    assert skip_reasons([{"why": why}, {"why": why}]) == {reason: 2}
