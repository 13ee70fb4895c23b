"""Fig. 7: what saliency partition (SP) and the selection of top-m candidates cost and save.

(a) Time of an explanation with and without them. (b) Edits for different m.
"""

from dataclasses import replace
from functools import partial
from operator import itemgetter
from statistics import fmean, median
from typing import Any

import jax
import numpy as np
from pictures import boxes, save
from results import Table, absences, measured
from study import Study, script

from benchmarks.speed.timing import fastest
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


def measure_row(study: Study, name: str) -> dict[str, Any]:
    """Milliseconds of every search (the fastest of `REPEATS`), features given, and its edits."""
    _, sigma, top_m = SEARCHES[name]
    bank, config = study.bank(top_m, sigma), replace(study.config.search, sigma=sigma)
    devices = tuple(jax.local_devices()[:1])
    search = partial(explain_cells, searchable(study.clf.head), config=config, devices=devices)
    samples = [
        (study.target[i, None], jax.tree.map(itemgetter([i]), study.feature_map))
        for i in range(len(study.target))
    ]
    given = [jax.device_put((bank.for_targets(q), at_cut, q)) for q, at_cut in samples]
    runs = (fastest(partial(search, *arguments), REPEATS) for arguments in given)
    seconds, found = zip(*runs, strict=True)
    return {
        "milliseconds": np.round(1000 * np.array(seconds), 3).tolist(),
        "edits": [int(f.num_edits[0]) for f in found],
        "flipped": [bool(f.flipped[0]) for f in found],
        "candidates": bank.cells.shape[1],
    }


def edits_of(found: dict[str, Any]) -> list[int]:
    """Edits until the prediction changed, of the samples where it did."""
    return [e for e, flipped in zip(found["edits"], found["flipped"], strict=True) if flipped]


def line(found: dict[str, Any]) -> list[Any]:
    """A row of the table; the last column counts the samples whose prediction did not change."""
    if "missing" in found:
        return [None] * (len(COLUMNS) - 1)
    edits = edits_of(found)
    counts = [statistic(edits) if edits else None for statistic in (fmean, median, max)]
    left = len(found["flipped"]) - len(edits)
    return [found["candidates"], median(found["milliseconds"]), *counts, left]


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    function = partial(measure_row, study)
    results, rows = study.measure("figure7", function, SEARCHES, repeats=REPEATS)
    labels = {name: SEARCHES[name][0] for name in rows}
    table = [[labels[name], *line(found)] for name, found in rows.items()]
    results.finish(table=Table(COLUMNS, table, absences(rows, labels)))
    done = measured(rows)
    times = {labels[name]: done[name]["milliseconds"] for name in TIMED if name in done}
    edits = {labels[name]: edits_of(done[name]) for name in COUNTED if name in done}
    charts = {"(a) ms a sample, search alone": times, "(b) edits until the class changes": edits}
    save(boxes(charts), study.options.out / "figure7.png")


if __name__ == "__main__":
    script(measure, __doc__)
