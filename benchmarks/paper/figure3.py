"""Fig. 3: attributions as the weight of contrastive maps, after an attack (PGD) and after edits.

On the left what the maps look like, on the right how much it takes to change the prediction.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import panel, plain, save
from results import Table, choose, measured
from rows import ROWS, Row, call, maps_of
from scores import MEASURES, score_row, score_table
from study import Study, script

from fgvce_jax.explain import explain
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd

WAYS = {
    "pgd": ("PGD", "cce", "attribution", "num_steps"),
    "edits": ("FG-VCE", "fgvce_invariant", "weight", "num_edits"),
}
"""Heading, the method that changes the features that way, its option, and its count of steps."""
KINDS = {
    f"{way}_{name}": Row(
        f"{METHODS[name].label}, {heading}",
        "P",
        partial(call, method, **{option: METHODS[name].load()}),
    )
    for name in ("gradcam", "gradcampp", "layercam", "scorecam")
    for way, (heading, method, option, _) in WAYS.items()
} | {"fgvce_invariant": Row("Contributions, FG-VCE", "P", ROWS["fgvce_invariant"].explain)}
REPEATS = 3


def effort(study: Study) -> dict[str, Any]:
    """Steps and milliseconds (the fastest of `REPEATS`) to change every prediction."""
    bank, config = study.bank(study.top_m, study.sigma), study.config.search
    ways = {
        "pgd": lambda image, q: pgd(study.clf, image, q),
        "edits": lambda image, q: explain(study.clf, bank, image, q, config),
    }
    out: dict[str, Any] = {}
    for name, way in ways.items():
        found = {"steps": [], "milliseconds": [], "flipped": []}
        jax.block_until_ready(way(study.images[:1], study.target[:1]))
        for i in range(len(study)):
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                result = way(study.images[i : i + 1], study.target[i : i + 1])
                jax.block_until_ready(result)
                seconds.append(time.perf_counter() - start)
            found["milliseconds"].append(round(1000 * min(seconds), 2))
            found["steps"].append(int(getattr(result, WAYS[name][-1])[0]))
            found["flipped"].append(bool(result.flipped[0]))
        out[name] = found
    return {"effort": out}


def of_changed(way: dict[str, Any], key: str) -> np.ndarray:
    """The steps or milliseconds of the samples whose prediction changed."""
    return np.array(way[key])[np.array(way["flipped"])]


def draw(study: Study, names: list[str], found: dict[str, Any] | None, count: int = 3) -> Figure:
    """Maps on the left; on the right histograms of the effort, for predictions that changed."""
    width = 1.15 * (len(names) + 1)
    figure = Figure(figsize=(width + 3.2, 1.25 * count + 0.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[width, 3.2])
    columns = {KINDS[n].label: ("P", maps_of(study, n, KINDS[n]).maps) for n in names}
    panel(None, study.images[:count], study.captions, columns, figure=left)
    if found is None:
        return figure
    charts = right.subplots(2, 1)
    for axis, key, label in zip(
        charts, ("steps", "milliseconds"), ("steps or edits", "ms a sample"), strict=True
    ):
        values = {heading: of_changed(found[way], key) for way, (heading, *_) in WAYS.items()}
        edges = np.histogram_bin_edges(np.concatenate(list(values.values())), 20)
        for (heading, series), colour in zip(values.items(), ("#adb5bd", "#e8590c"), strict=True):
            axis.hist(series, edges, alpha=0.7, label=heading, color=colour)
        axis.set_xlabel(label, fontsize=7)
    plain(*charts)
    charts[0].legend(fontsize=6, frameon=False)
    return figure


def add_notes(table: Table, found: dict[str, Any] | None) -> None:
    """Footnotes of the effort."""
    for way, (heading, *_, unit) in WAYS.items() if found else ():
        steps, ms = (of_changed(found[way], key) for key in ("steps", "milliseconds"))
        medians = f"{np.median(steps):.0f} and {np.median(ms):.0f}" if len(steps) else "none"
        table.notes.append(
            f"{heading}: {len(steps)} of {len(found[way]['steps'])} predictions changed; medians "
            f"of {unit.removeprefix('num_')} and ms: {medians}."
        )


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    names = choose("method", study.options.methods, KINDS)
    results = study.results("figure3")
    results.measure(names, lambda name: score_row(study, name, list(MEASURES), KINDS[name]))
    results.measure(["effort"], lambda _: effort(study))
    rows = results.among(KINDS)
    table = score_table(study, rows, list(MEASURES), KINDS, "table1")
    found = results.rows["effort"].get("effort")
    add_notes(table, found)
    results.finish(table=table)
    save(draw(study, list(measured(rows)), found), study.options.out / "figure3.png")


if __name__ == "__main__":
    script(measure, __doc__)
