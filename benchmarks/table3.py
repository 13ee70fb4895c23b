"""Table 3: what saliency partition (SP) does for contrastive explainers. Its picture is Fig. 5."""

from __future__ import annotations

import numpy as np
from pictures import panel
from tables import (
    MEASURES,
    ROWS,
    Results,
    Study,
    choose,
    maps_of,
    parser,
    run,
    score_row,
    score_table,
)

PAIRS = {
    "ce": "ce_sp",
    "scout": "scout_sp",
    "cce": "cce_sp",
    "fgvce_invariant_without_sp": "fgvce_invariant",
    "fgvce_dominant_without_sp": "fgvce_dominant",
}
DEFAULT = [name for pair in PAIRS.items() for name in pair]
SHOWN = 4


def main() -> None:
    """Measure, print, write, draw."""
    arguments = parser(__doc__, DEFAULT)
    arguments.add_argument("--metrics", default=",".join(MEASURES))
    options = arguments.parse_args()
    names = choose("method", options.methods, ROWS)
    measures = choose("metric", options.metrics, MEASURES)
    study = Study(options)
    results = Results("table3", study, measures=measures)
    rows = results.measure(names, lambda name: score_row(study, name, measures))
    results.finish(score_table(study, rows, measures, ROWS, "table3"))

    panel(
        options.out / "table3.png",
        study.images[:SHOWN],
        study.captions[:SHOWN],
        {
            ROWS[name].label.replace(", ", "\n"): (
                ROWS[name].explains,
                np.nan_to_num(maps_of(study, name).maps[:SHOWN]),
            )
            for name in names
            if "missing" not in rows[name]
        },
    )


if __name__ == "__main__":
    run(main)
