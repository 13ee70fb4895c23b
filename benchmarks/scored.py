"""What the scripts of Table 1 and Table 3 share: rows of maps, scored and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pictures import panel
from script import Results, choose, measured, parser
from study import Study
from tables import MEASURES, ROWS, maps_of, row_constants, score_row, score_table


def score_rows(
    description: str | None, table: str, default: Sequence[str]
) -> tuple[Study, list[str]]:
    """Measure the rows of a table of the paper, print and write it, and draw its first samples.

    The table keeps the order of `default`; other rows come after it. Returns the study and the
    rows that have been measured.
    """
    arguments = parser(description, default)
    arguments.add_argument("--metrics", default=",".join(MEASURES))
    options = arguments.parse_args()
    names = choose("method", options.methods, ROWS)
    measures = choose("metric", options.metrics, MEASURES)
    study = Study(options)
    results = Results(table, study, measures=measures)
    results.measure(
        names,
        lambda name: score_row(study, name, measures),
        lambda name: row_constants(study, name),
    )
    rows = results.among(dict.fromkeys([*default, *ROWS]))
    results.finish(score_table(study, rows, measures, ROWS, table))
    drawn = [
        name
        for name, found in measured(rows).items()
        if found.get("constants", {}) == row_constants(study, name)  # else others' maps are drawn
    ]
    draw(options.out / f"{table}.png", study, drawn, 3)
    return study, drawn


def draw(path: Path, study: Study, names: Sequence[str], count: int) -> None:
    """The maps of rows on the first `count` samples; the controls, which show nothing, left out."""
    columns = {
        ROWS[name].label.replace(", ", "\n"): (
            ROWS[name].explains,
            maps_of(study, name).maps[:count],
        )
        for name in names
        if "random" not in name
    }
    if columns:
        panel(path, study.images[:count], study.captions[:count], columns)
