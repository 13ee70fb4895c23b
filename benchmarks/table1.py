"""Table 1: insertion, deletion and compactness of every explainer."""

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

DEFAULT = [name for name in ROWS if not name.endswith("_sp")]
SHOWN = 3


def main() -> None:
    """Measure, print, write, draw."""
    arguments = parser(__doc__, DEFAULT)
    arguments.add_argument("--metrics", default=",".join(MEASURES))
    options = arguments.parse_args()
    names = choose("method", options.methods, ROWS)
    measures = choose("metric", options.metrics, MEASURES)
    study = Study(options)
    results = Results("table1", study, measures=measures)
    rows = results.measure(names, lambda name: score_row(study, name, measures))
    results.finish(score_table(study, rows, measures, ROWS, "table1"))

    drawn = [name for name in names if "missing" not in rows[name] and "random" not in name]
    panel(
        options.out / "table1.png",
        study.images[:SHOWN],
        study.captions[:SHOWN],
        {
            ROWS[name].label.replace(", ", "\n"): (
                ROWS[name].explains,
                np.nan_to_num(maps_of(study, name).maps[:SHOWN]),
            )
            for name in drawn
        },
    )


if __name__ == "__main__":
    run(main)
