"""Fig. 3: attributions as the weight of contrastive maps, after an attack (PGD) and after edits.

On the left what the maps look like, on the right how much it takes to change the prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import laid_over, save
from script import Results, choose, measured, parser, run
from study import Study
from tables import MEASURES, Row, maps_of, score_row, score_table

from fgvce_jax.explain import explain
from fgvce_jax.methods.cams import gradcam, gradcampp, layercam
from fgvce_jax.methods.cce import cce, pgd
from fgvce_jax.methods.fgvce import fgvce
from fgvce_jax.methods.scorecam import scorecam

ATTRIBUTIONS = {
    "gradcam": ("GradCAM", gradcam),
    "gradcampp": ("GradCAM++", gradcampp),
    "layercam": ("LayerCAM", layercam),
    "scorecam": ("ScoreCAM", scorecam),
}
SHOWN = 3
REPEATS = 3


def attacked(attribution: Callable[..., Any]) -> Callable[[Study], np.ndarray]:
    """CCE's invariant maps with an attribution."""

    def maps(study):
        function = partial(cce, study.clf, attribution=attribution)
        return study.batched(function, study.images, study.predicted, study.target)

    return maps


def edited(attribution: Callable[..., Any]) -> Callable[[Study], np.ndarray]:
    """FG-VCE's invariant maps with an attribution in the place of the contributions."""

    def maps(study):
        function = partial(
            fgvce,
            study.clf,
            bank=study.bank(study.top_m, study.sigma),
            weight=attribution,
            config=study.config.search,
        )
        return study.batched(
            lambda *sample: function(*sample)[0], study.images, study.predicted, study.target
        )

    return maps


KINDS = {
    f"{way}_{name}": Row(f"{label}, {heading}", "P", make(attribution))
    for name, (label, attribution) in ATTRIBUTIONS.items()
    for way, heading, make in (("pgd", "PGD", attacked), ("edits", "FG-VCE", edited))
} | {
    "fgvce_invariant": Row(
        "contributions, FG-VCE", "P", lambda study: study.explanation(study.sigma).invariant
    )
}


def effort(study: Study) -> dict[str, Any]:
    """Steps and milliseconds (the fastest of `REPEATS`) to change every prediction."""
    bank, search = study.bank(study.top_m, study.sigma), asdict(study.config.search)
    ways = {
        "pgd": lambda image, q: pgd(study.clf, image, q),
        "edits": lambda image, q: explain(study.clf, bank, image, q, **search),
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
            steps = result.num_steps if name == "pgd" else result.num_edits
            found["steps"].append(int(steps[0]))
            found["flipped"].append(bool(result.flipped[0]))
        out[name] = found
    return {"effort": out}


def draw(study: Study, names: list[str], found: dict[str, Any] | None) -> Figure:
    """Maps on the left; on the right histograms of the effort, for predictions that changed."""
    count = min(SHOWN, len(study))
    figure = Figure(
        figsize=(1.15 * (len(names) + 1) + 3.2, 1.25 * SHOWN + 0.6), layout="constrained"
    )
    left, right = figure.subfigures(1, 2, width_ratios=[1.15 * (len(names) + 1), 3.2])
    axes = left.subplots(count, len(names) + 1, squeeze=False)
    for i in range(count):
        axes[i, 0].imshow(study.images[i])
        axes[i, 0].set_ylabel(study.captions[i], fontsize=6)
        for c, name in enumerate(names, start=1):
            maps = maps_of(study, name, KINDS[name]).maps
            axes[i, c].imshow(laid_over(study.images[i], maps[i], "P"))
    for axis, heading in zip(axes[0], ["image", *(KINDS[n].label for n in names)], strict=True):
        axis.set_title(heading.replace(", ", "\n"), fontsize=6.5)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    if found is None:
        return figure
    charts = right.subplots(2, 1)
    for axis, key, label in zip(
        charts, ("steps", "milliseconds"), ("steps or edits", "ms a sample"), strict=True
    ):
        values = {
            label: np.array(found[name][key])[np.array(found[name]["flipped"])]
            for name, label in (("pgd", "PGD"), ("edits", "FG-VCE"))
        }
        edges = np.histogram_bin_edges(np.concatenate(list(values.values())), 20)
        for (name, series), colour in zip(values.items(), ("#adb5bd", "#e8590c"), strict=True):
            axis.hist(series, edges, alpha=0.7, label=name, color=colour)
        axis.set_xlabel(label, fontsize=7)
        axis.tick_params(labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
    charts[0].legend(fontsize=6, frameon=False)
    return figure


def main() -> None:
    """Measure, print, write, draw."""
    options = parser(__doc__, list(KINDS)).parse_args()
    names = choose("method", options.methods, KINDS)
    study = Study(options)
    measures = list(MEASURES)
    results = Results("figure3", study)
    results.measure(names, lambda name: score_row(study, name, measures, KINDS[name]))
    results.measure(["effort"], lambda _: effort(study))
    rows = results.among(KINDS)
    table = score_table(study, rows, measures, KINDS, "table1")
    found = results.rows["effort"].get("effort")
    if found is None:
        table.notes.append(f"Effort: — because {results.rows['effort']['missing']}.")
    for name, label, unit in (("pgd", "PGD", "steps"), ("edits", "FG-VCE", "edits")):
        if found:
            table.notes.append(f"{label}: {effort_of(found[name], unit)}")
    results.finish(table)
    save(draw(study, list(measured(rows)), found), options.out / "figure3.png")


def effort_of(way: dict[str, Any], unit: str) -> str:
    """What it took to change predictions, in words; samples that did not change have no such."""
    changed = np.array(way["flipped"])
    text = f"{changed.sum()} of {len(changed)} predictions changed"
    if changed.any():
        steps, ms = (np.median(np.array(way[key])[changed]) for key in ("steps", "milliseconds"))
        text += (
            f"; of these the median number of {unit} is {steps:.0f} and the median time {ms:.0f} ms "
            f"a sample, the fastest of {REPEATS}, images one at a time, the forward pass included"
        )
    return f"{text}."


if __name__ == "__main__":
    run(main)
