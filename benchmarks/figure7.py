"""Fig. 7: what saliency partition (SP) and the selection of top-m candidates cost and save.

(a) Time of an explanation with and without them. (b) Edits for different m.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from statistics import fmean, median
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import save
from script import Results, Table, absences, choose, measured, parser, run
from study import Study

from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import explain_features
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
COLUMNS = [
    "Search",
    "Candidates",
    "ms a sample, median",
    "Edits, mean",
    "median",
    "most",
    "Not changed",
]


def measure(study: Study, sigma: float, top_m: int | None) -> dict[str, Any]:
    """Milliseconds of every search, the sample's features given, and its edits."""
    bank, head = study.bank(top_m, sigma), searchable(study.clf.head)
    config = SearchConfig(**asdict(replace(study.config.search, sigma=sigma)))
    devices = (jax.local_devices()[0],)

    def prepared(i):
        label = study.target[i : i + 1]
        candidates, groups = bank.select(label)
        return jax.device_put((candidates, study.cells[i : i + 1], label, groups))

    def search(i):
        return explain_features(head, *inputs[i], config=config, devices=devices)

    inputs = [prepared(i) for i in range(len(study))]
    jax.block_until_ready(search(0))
    seconds = np.zeros((REPEATS, len(study)))
    edits, flipped = [], []
    for repeat in range(REPEATS):
        for i in range(len(study)):
            start = time.perf_counter()
            found = jax.block_until_ready(search(i))
            seconds[repeat, i] = time.perf_counter() - start
            if repeat == 0:
                edits.append(int(found.num_edits[0]))
                flipped.append(bool(found.flipped[0]))
    return {
        "milliseconds": np.round(1000 * seconds.min(axis=0), 3).tolist(),
        "edits": edits,
        "flipped": flipped,
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
        values = rows[name]["milliseconds"]
        left.bar(place, np.median(values), color="#e8590c" if name == "sp_sel" else "#adb5bd")
        low, high = np.percentile(values, [25, 75])
        left.plot([place, place], [low, high], color="#343a40", linewidth=1.5)
    left.set_xticks(
        range(len(ways)), [SEARCHES[n][0].replace(", ", "\n") for n in ways], fontsize=6
    )
    left.set_ylabel("ms a sample, search alone", fontsize=7)
    left.set_title("(a) median and quartiles", fontsize=8)
    sizes = [name for name in COUNTED if name in rows]
    boxes = right.boxplot(
        [edits_of(rows[name]) for name in sizes], patch_artist=True, showmeans=True
    )
    for name, box in zip(sizes, boxes["boxes"], strict=True):
        box.set_facecolor("#ff922b" if name == "sp_sel" else "#dee2e6")
    labels = [SEARCHES[name][0].removeprefix("SP, ") for name in sizes]
    right.set_xticks(range(1, len(sizes) + 1), labels, fontsize=6)
    right.set_xlabel("candidates of each reference", fontsize=7)
    right.set_ylabel("edits", fontsize=7)
    right.set_title("(b) edits until the prediction changes", fontsize=8)
    for axis in (left, right):
        axis.tick_params(labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Measure, print, write, draw."""
    options = parser(__doc__, list(SEARCHES)).parse_args()
    names = choose("method", options.methods, SEARCHES)
    study = Study(options)
    results = Results("figure7", study, repeats=REPEATS)
    results.measure(names, lambda name: measure(study, *SEARCHES[name][1:]))
    rows = results.among(SEARCHES)
    table = []
    for name, found in rows.items():
        line: list[Any] = [SEARCHES[name][0]]
        if name in measured(rows):
            edits = edits_of(found)
            line += [found["candidates"], median(found["milliseconds"])]
            line += [f(edits) if edits else None for f in (fmean, median, max)]
            line.append(len(found["flipped"]) - len(edits))
        table.append([*line, *[None] * (len(COLUMNS) - len(line))])
    notes = [
        *absences(rows, {name: SEARCHES[name][0] for name in rows}),
        f"Time of the search and the maps for one sample's features, the fastest of {REPEATS}; "
        "the forward pass and the bank are not in it. Edits of the samples whose prediction "
        "changed; the last column counts the others.",
    ]
    results.finish(Table(COLUMNS, table, notes))
    save(draw(measured(rows)), options.out / "figure7.png")


if __name__ == "__main__":
    run(main)
