"""Fig. 3: attributions as the weight of contrastive maps, after an attack (PGD) and after edits.

On the left what the maps look like, on the right how much it takes to change the prediction.
"""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pictures import boxes, panel, save
from results import measured
from rows import ROWS, Row, call, maps_of
from scores import MEASURES, score_row, score_table
from study import Study, script

from benchmarks.speed.timing import fastest
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
EFFORT = {"steps": "steps or edits", "milliseconds": "ms a sample"}


def effort(study: Study) -> dict[str, Any]:
    """Steps and milliseconds (the fastest of three) to change every prediction."""
    bank, config = study.bank(study.top_m, study.sigma), study.config.search
    ways = {
        "pgd": lambda image, q: pgd(study.clf, image, q),
        "edits": lambda image, q: explain(study.clf, bank, image, q, config),
    }
    out: dict[str, Any] = {}
    for name, way in ways.items():
        samples = [(study.images[i : i + 1], study.target[i : i + 1]) for i in range(len(study))]
        seconds, found = zip(*(fastest(partial(way, *s), repeats=3) for s in samples), strict=True)
        out[name] = {
            "steps": [int(getattr(result, WAYS[name][-1])[0]) for result in found],
            "milliseconds": np.round(1000 * np.array(seconds), 2).tolist(),
            "flipped": [bool(result.flipped[0]) for result in found],
        }
    return {"effort": out}


def measure(study: Study) -> None:
    """Measure, print, write; draw the maps on the left and the effort on the right."""
    function, share = partial(score_row, study, [*MEASURES], KINDS), study.options.share
    results, rows = study.measure("figure3", function, KINDS, share=share)
    results.measure(["effort"], lambda _: effort(study))
    table = score_table(study, rows, [*MEASURES], KINDS, "table1")
    charts: dict[str, dict[str, Any]] = {title: {} for title in EFFORT.values()}
    for way, found in results.rows["effort"].get("effort", {}).items():
        heading, *_, unit = WAYS[way]
        changed = np.array(found["flipped"])
        series = [np.array(found[key])[changed] for key in EFFORT]
        for title, values in zip(charts, series, strict=True):
            charts[title][heading] = values
        medians = " and ".join(f"{np.median(s):.0f}" for s in series) if any(changed) else "none"
        table.notes.append(
            f"{heading}: {sum(changed)} of {len(changed)} predictions changed; medians "
            f"of {unit.removeprefix('num_')} and ms: {medians}."
        )
    results.finish(table=table)
    figure = right = Figure(figsize=(15 if study.drawable else 8, 5), layout="constrained")
    if study.drawable:
        left, right = figure.subfigures(1, 2, width_ratios=[3, 1])
        columns = {KINDS[n].label: ("P", maps_of(study, n, KINDS[n]).maps) for n in measured(rows)}
        panel(study.images[:3], study.captions, columns, figure=left)
    boxes(charts, right)
    save(figure, study.options.out / "figure3.png")


if __name__ == "__main__":
    script(measure, __doc__)
