"""Fig. 6: extent of the maps with and without saliency partition (SP)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import save
from script import Results, Table, choose, measured, numbers, parser, run, shown
from study import Study
from tables import ROWS, left_out, maps_of, remarks, row_constants

from fgvce_jax.metrics import extent
from fgvce_jax.partition import contributions

DEFAULT = [
    "fgvce_invariant_without_sp",
    "fgvce_invariant",
    "fgvce_dominant_without_sp",
    "fgvce_dominant",
]
MEASURES = {"pixels": "Pixels", "keypoints": "Keypoints", "contribution": "Contribution, 10⁻³"}


def measure(study: Study, name: str) -> dict[str, Any]:
    """Fig. 6's three of every sample; None where no keypoint lies inside.

    Contributions are those with SP for every row, so that all are weighed alike.
    """
    keypoints = ROWS[name].subject(study).keypoints  # asked first: there may be none
    explained = maps_of(study, name)
    study = explained.study
    sigma = study.sigma

    @jax.jit
    def extents(head, cells, maps, classes, keypoints):
        def one(h, m, c, points):
            return extent(m, contributions(head, h, c, sigma), points, study.size)

        return jax.vmap(one)(cells, maps, classes, keypoints)

    out = study.batched(
        lambda *sample: extents(study.clf.head, *sample),
        explained.cells,
        explained.maps,
        explained.classes,
        keypoints,
    )
    counted = explained.whole & (out.keypoints > 0)
    return {
        "scores": {
            key: numbers(np.where(counted, np.float64(getattr(out, key)), np.nan))
            for key in MEASURES
        },
        "without_keypoint": int((explained.whole & ~counted).sum()),
        **left_out(explained),
    }


def draw(rows: dict[str, Any]) -> Figure:
    """A box for every row and measure."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    labels = [ROWS[name].label.replace("FG-VCE ", "").replace("FG-VCE, ", "") for name in rows]
    for axis, (key, title) in zip(figure.subplots(1, 3), MEASURES.items(), strict=True):
        scale = 1000 if key == "contribution" else 1
        series = [[scale * v for v in row["scores"][key] if v is not None] for row in rows.values()]
        boxes = axis.boxplot(series, patch_artist=True, showmeans=True)
        for name, box in zip(rows, boxes["boxes"], strict=True):
            with_sp = not name.endswith("without_sp")
            warm = ROWS[name].explains == "P"
            box.set_facecolor(("#ff922b" if warm else "#22b8cf") if with_sp else "#dee2e6")
        axis.set_xticklabels([label.replace(", ", "\n") for label in labels], fontsize=6)
        axis.set_title(title, fontsize=8)
        axis.tick_params(axis="y", labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Measure, print, write, draw."""
    options = parser(__doc__, DEFAULT).parse_args()
    names = choose("method", options.methods, ROWS)
    study = Study(options)
    results = Results("figure6", study)
    results.measure(
        names, lambda name: measure(study, name), lambda name: row_constants(study, name)
    )
    rows = results.among(dict.fromkeys([*DEFAULT, *ROWS]))
    table = []
    for name, found in rows.items():
        scores = found.get("scores", {"pixels": [], "keypoints": [], "contribution": []})
        thousandths = [None if v is None else 1000 * v for v in scores["contribution"]]
        table.append(
            [
                ROWS[name].label,
                ROWS[name].explains,
                shown(scores["pixels"], 0),
                shown(scores["keypoints"], 2),
                shown(thousandths, 2),
                found.get("without_keypoint"),
            ]
        )
    notes = [
        *remarks(rows, ROWS),
        f"Of {study.size[0] * study.size[1]:,} pixels. Samples without a keypoint inside are left "
        "out, as in the paper; the last column counts them.",
    ]
    columns = ["Maps", "class", *MEASURES.values(), "Without a keypoint"]
    results.finish(Table(columns, table, notes))
    if drawn := measured(rows):
        save(draw(drawn), options.out / "figure6.png")


if __name__ == "__main__":
    run(main)
