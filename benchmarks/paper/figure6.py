"""Fig. 6: extent of the maps with and without saliency partition (SP)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import plain, save
from results import Table, choose, measured, numbers, shown
from rows import ROWS, maps_of
from scores import remarks
from study import Study, script

from fgvce_jax.metrics import extent
from fgvce_jax.partition import contributions

DEFAULT = [
    f"fgvce_{region}{sp}" for region in ("invariant", "dominant") for sp in ("_without_sp", "")
]
MEASURES = {
    "pixels": ("Pixels", 1, 0),
    "keypoints": ("Keypoints", 1, 2),
    "contribution": ("Contribution, 10⁻³", 1000, 2),
}
"""Heading, factor and digits."""


def measure_row(study: Study, name: str) -> dict[str, Any]:
    """Fig. 6's three of every sample; None where no keypoint lies inside.

    Contributions are those with SP for every row, so that all are weighed alike.
    """
    keypoints = study.keypoints  # asked first: there may be none
    explained = maps_of(study, name)
    study, sigma = explained.study, study.sigma

    @jax.jit
    def extents(head, cells, maps, classes, keypoints):
        def one(h, m, c, points):
            return extent(m, contributions(head, h, c, sigma), points, study.size)

        return jax.vmap(one)(cells, maps, classes, keypoints)

    samples = explained.cells, explained.maps, explained.classes, keypoints
    out = study.batched(partial(extents, study.clf.head), *samples)
    counted = explained.whole & (out.keypoints > 0)
    scores = {k: np.where(counted, np.float64(getattr(out, k)), np.nan) for k in MEASURES}
    return {
        "scores": {key: numbers(values) for key, values in scores.items()},
        "without_keypoint": int((explained.whole & ~counted).sum()),
        **explained.left_out(),
    }


def values_of(found: dict[str, Any], key: str) -> list[float]:
    """A row's values of one measure in its unit, of the samples counted."""
    return [v * MEASURES[key][1] for v in found.get("scores", {}).get(key, []) if v is not None]


def draw(rows: dict[str, Any]) -> Figure:
    """A box for every row and measure."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots(1, len(MEASURES))
    labels = [ROWS[name].label.removeprefix("FG-VCE ").replace(", ", "\n") for name in rows]
    for axis, (key, (title, *_)) in zip(axes, MEASURES.items(), strict=True):
        series = [values_of(row, key) for row in rows.values()]
        boxes = axis.boxplot(series, patch_artist=True, showmeans=True)
        for name, box in zip(rows, boxes["boxes"], strict=True):
            colour = "#ff922b" if ROWS[name].explains == "P" else "#22b8cf"
            box.set_facecolor("#dee2e6" if name.endswith("without_sp") else colour)
        axis.set_xticklabels(labels)
        axis.set_title(title, fontsize=8)
    plain(*axes)
    return figure


def table_of(rows: dict[str, Any]) -> Table:
    """Means of each measure."""
    columns = ["Maps", "class", *(title for title, *_ in MEASURES.values()), "Without a keypoint"]
    table = []
    for name, found in rows.items():
        means = [shown(values_of(found, key), digits) for key, (_, _, digits) in MEASURES.items()]
        label, explains, _ = ROWS[name]
        table.append([label, explains, *means, found.get("without_keypoint")])
    return Table(columns, table, remarks(rows, ROWS))


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    names = choose("method", study.options.methods, ROWS, DEFAULT)
    results = study.results("figure6")
    results.measure(names, lambda name: measure_row(study, name))
    rows = results.among(dict.fromkeys([*DEFAULT, *ROWS]))
    results.finish(table=table_of(rows))
    if drawn := measured(rows):
        save(draw(drawn), study.options.out / "figure6.png")


if __name__ == "__main__":
    script(measure, __doc__)
