"""Fig. 6: extent of the maps with and without saliency partition (SP)."""

from functools import partial
from typing import Any

import jax
import numpy as np
from pictures import boxes, save
from results import measured, shown
from rows import ROWS, maps_of
from scores import table_of, values_of
from study import Study, script

from fgvce_jax.metrics import extent
from fgvce_jax.partition import contributions

DEFAULT = ["fgvce_invariant_without_sp", "fgvce_invariant"]
DEFAULT += ["fgvce_dominant_without_sp", "fgvce_dominant"]
DEFAULT += ["fgvce_matched_invariant", "fgvce_matched_dominant"]
MEASURES = {
    "pixels": ("Pixels", 1, 0),
    "keypoints": ("Keypoints", 1, 2),
    "contribution": ("Contribution, 10⁻³", 1e-3, 2),
}
"""Heading, unit and digits."""


def measure_row(study: Study, name: str) -> dict[str, Any]:
    """Fig. 6's three of every sample; None where no keypoint lies inside, or where there are none.

    Contributions are those with SP for every row, so that all are weighed alike.
    """
    known = study.has_keypoints
    keypoints = study.keypoints if known else np.zeros((len(study), 1, 3), np.float32)
    explained = maps_of(study, name)
    study, sigma = explained.study, study.sigma

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
    def extents(head, cells, values, label, points):
        return extent(values, contributions(head, cells, label, sigma), points, study.size)

    samples = explained.cells, explained.maps, explained.classes, keypoints
    out = study.batched(partial(extents, study.clf.head), *samples)._asdict()
    if not known:
        return explained.scored(out | {"keypoints": np.full(len(study), np.nan)})
    counted = out["keypoints"] > 0
    scores = {key: np.where(counted, out[key], np.nan) for key in MEASURES}
    without = int((explained.whole & ~counted).sum())
    return explained.scored(scores) | {"without_keypoint": without}


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    results, rows = study.measure("figure6", partial(measure_row, study), ROWS, DEFAULT)
    columns, charts = {}, {}
    for key, (title, unit, digits) in MEASURES.items():
        values = {name: [v / unit for v in values_of(rows[name], key)] for name in rows}
        columns[title] = lambda name, v=values, d=digits: shown(v[name], d)
        if any(values.values()):
            short = {n: ROWS[n].label.removeprefix("FG-VCE ") for n in measured(rows)}
            charts[title] = {label: values[n] for n, label in short.items()}
    columns["Without a keypoint"] = lambda name: rows[name].get("without_keypoint")
    results.finish(table=table_of(rows, ROWS, columns, "Maps"))
    if measured(rows):
        save(boxes(charts), study.options.out / "figure6.png")


if __name__ == "__main__":
    script(measure, __doc__)
