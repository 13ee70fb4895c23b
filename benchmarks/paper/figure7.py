"""Fig. 7: what saliency partition (SP) and the selection of top-m candidates cost and save.

(a) Time of an explanation with and without them. (b) Edits for different m.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import plain, save
from results import Table, absences, choose, measured
from study import Study, script

from fgvce_jax.explain import explain_cells
from fgvce_jax.heads import searchable

SEARCHES = {
    "sp_sel": ("SP, top 10", 0.8, 10),
    "sp": ("SP, all cells", 0.8, None),
    "sel": ("no SP, top 10", 0.0, 10),
    "neither": ("no SP, all cells", 0.0, None),
    "m1": ("SP, top 1", 0.8, 1),
    "m5": ("SP, top 5", 0.8, 5),
    "m20": ("SP, top 20", 0.8, 20),
}
"""Heading, sigma (0 is without SP) and top_m (None is without selection)."""
TIMED = ("sp_sel", "sp", "sel", "neither")
COUNTED = ("m1", "m5", "sp_sel", "m20", "sp")
REPEATS = 7
COLUMNS = ["Search", "Candidates", "ms a sample, median"]
COLUMNS += ["Edits, mean", "median", "most", "Not changed"]


def measure_row(study: Study, sigma: float, top_m: int | None) -> dict[str, Any]:
    """Milliseconds of every search (the fastest of `REPEATS`), features given, and its edits."""
    bank, config = study.bank(top_m, sigma), replace(study.config.search, sigma=sigma)
    devices = tuple(jax.local_devices()[:1])
    search = partial(explain_cells, searchable(study.clf.head), config=config, devices=devices)
    inputs = []
    for i in range(len(study)):
        target = study.target[i : i + 1]
        inputs.append(jax.device_put((bank.for_targets(target), study.cells[i : i + 1], target)))
    found = [search(*arguments) for arguments in inputs]
    seconds = np.zeros((REPEATS, len(study)))
    for repeat in range(REPEATS):
        for i, arguments in enumerate(inputs):
            start = time.perf_counter()
            jax.block_until_ready(search(*arguments))
            seconds[repeat, i] = time.perf_counter() - start
    return {
        "milliseconds": np.round(1000 * seconds.min(axis=0), 3).tolist(),
        "edits": [int(f.num_edits[0]) for f in found],
        "flipped": [bool(f.flipped[0]) for f in found],
        "candidates": bank.cells.shape[1],
    }


def edits_of(found: dict[str, Any]) -> list[int]:
    """Edits until the prediction changed, of the samples where it did."""
    return [e for e, flipped in zip(found["edits"], found["flipped"], strict=True) if flipped]


def draw(rows: dict[str, Any]) -> Figure:
    """(a) bars of milliseconds, (b) boxes of edits."""
    figure = Figure(figsize=(8.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = [name for name in TIMED if name in rows]
    for place, name in enumerate(ways):
        low, middle, high = np.percentile(rows[name]["milliseconds"], [25, 50, 75])
        left.bar(place, middle, color="#e8590c" if name == "sp_sel" else "#adb5bd")
        left.plot([place, place], [low, high], color="#343a40", linewidth=1.5)
    left.set_xticks(range(len(ways)), [SEARCHES[n][0].replace(", ", "\n") for n in ways])
    left.set_ylabel("ms a sample, search alone", fontsize=7)
    left.set_title("(a) median and quartiles", fontsize=8)
    sizes = [name for name in COUNTED if name in rows]
    series = [edits_of(rows[name]) for name in sizes]
    boxes = right.boxplot(series, patch_artist=True, showmeans=True)
    for name, box in zip(sizes, boxes["boxes"], strict=True):
        box.set_facecolor("#ff922b" if name == "sp_sel" else "#dee2e6")
    labels = [SEARCHES[name][0].removeprefix("SP, ") for name in sizes]
    right.set_xticks(range(1, len(sizes) + 1), labels)
    right.set_xlabel("candidates of each reference", fontsize=7)
    right.set_ylabel("edits", fontsize=7)
    right.set_title("(b) edits until the prediction changes", fontsize=8)
    plain(left, right)
    return figure


def table_of(rows: dict[str, Any]) -> Table:
    """Times, edits of the samples whose prediction changed, and how many others there are."""
    table: list[list[Any]] = []
    for name, found in rows.items():
        line: list[Any] = [None] * (len(COLUMNS) - 1)
        if "missing" not in found:
            edits = edits_of(found)
            line = [found["candidates"], median(found["milliseconds"])]
            line += [f(edits) if edits else None for f in (fmean, median, max)]
            line.append(len(found["flipped"]) - len(edits))
        table.append([SEARCHES[name][0], *line])
    notes = absences(rows, {name: SEARCHES[name][0] for name in rows})
    return Table(COLUMNS, table, notes)


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    names = choose("method", study.options.methods, SEARCHES)
    results = study.results("figure7", repeats=REPEATS)
    results.measure(names, lambda name: measure_row(study, *SEARCHES[name][1:]))
    rows = results.among(SEARCHES)
    results.finish(table=table_of(rows))
    save(draw(measured(rows)), study.options.out / "figure7.png")


if __name__ == "__main__":
    script(measure, __doc__)
