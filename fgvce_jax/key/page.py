"""The page and the CSV of a benchmark."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvce_jax.files import whole_file
from fgvce_jax.key.samples import SETTINGS
from fgvce_jax.key.scores import MEASURES, OF_EDITS, OF_MAPS, Measure

TITLES = {
    "mistakes": "Mistakes: P said, Q true",
    "siblings": "Right images: P true, Q the most probable sibling",
    "confident": "Right images with p > 0.9",
}
FIGURES = ("mean", "error", "n", "median", "difference", "difference_error")
RANDOMISED = ("edit_changed", "edit_precision", "peak_changed", "precision")


def write_csv(path: Path, found: Mapping[str, Any]) -> None:
    """A line for each row, setting and measure; shares in [0, 1]."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "label", "explains", "setting", "measure", *FIGURES])
    for row in found["rows"]:
        for setting, figures in row["figures"].items():
            for measure, figure in figures.items():
                values = [figure.get(name) for name in FIGURES]
                lines.writerow(
                    [row["name"], row["label"], row["explains"], setting, measure, *values]
                )
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def write_page(path: Path, settings: Mapping[str, Any], found: Mapping[str, Any]) -> Path:
    """The tables in Markdown; returns the path."""
    about = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    parts = [f"# {settings['key']}", about + ".", EXPLANATION]
    for setting in SETTINGS:
        parts.append(f"## {TITLES[setting]}")
        parts.append(f"{found['samples'][setting]} images.")
        parts += [table(found, setting, columns) for columns in (OF_EDITS, OF_MAPS)]
    if found["randomised"]:
        parts += ["## Random weights", RANDOM_WEIGHTS, randomised_table(found)]
    missing = {row["label"]: row["missing"] for row in found["rows"] if "missing" in row}
    parts += [f"{label}: not measured, {why}." for label, why in missing.items()]
    with whole_file(path) as file:
        file.write(("\n\n".join(filter(None, parts)) + "\n").encode())
    return path


EXPLANATION = """\
Means ± standard errors over the samples; a difference to FG-VCE (paper) stands in brackets, of the
same samples, where it is more than two standard errors. The *part* is the one in which P and Q
differ, of the image or of its twin, dilated by half a cell; the *true change* the cells in which
the image and its twin differ by more than half of the largest difference. *Chance* is the share of
a random cell, or of a uniform map."""

RANDOM_WEIGHTS = """\
Scores against the true change of the trained classifier when weights are fresh, from the head down
to the stage that heads the column. Where they do not fall, a method does not look at these
layers."""


def table(found: Mapping[str, Any], setting: str, columns: Mapping[str, Measure]) -> str:
    """A setting's table of edits or of maps; rows without any of the measures are left out."""
    lines = []
    for row in found["rows"]:
        figures = row["figures"][setting]
        if set(columns) & set(figures):
            cells = [shown(figures.get(name), columns[name]) for name in columns]
            lines.append([row["label"], row["explains"], *cells])
    own = found["chance"][setting]
    lines.append(["chance", "", *(shown(own.get(name), columns[name]) for name in columns)])
    arrows = {True: " ↑", False: " ↓", None: ""}
    titles = [measure.title + arrows[measure.high] for measure in columns.values()]
    return markdown(["Method", "class", *titles], lines) if len(lines) > 1 else ""


def shown(figure: Mapping[str, Any] | None, measure: Measure) -> str:
    """Mean ± error, and the difference in brackets where it is one; "—" for none."""
    if figure is None or figure["mean"] is None:
        return "—"
    if measure.high is None:
        return f"{figure['median']:.0f}"
    scale, digits = (100, 1) if measure.percent else (1, 2)
    error = figure["error"] or 0.0
    text = f"{scale * figure['mean']:.{digits}f} ± {scale * error:.{digits}f}"
    difference, its_error = figure.get("difference"), figure.get("difference_error")
    if difference is not None and its_error is not None and abs(difference) > 2 * its_error:
        text += f" ({scale * difference:+.{digits}f})"
    return text


def randomised_table(found: Mapping[str, Any]) -> str:
    """A line for each method and measure, a column for each stage."""
    stages = list(dict.fromkeys(row["name"].partition("@")[2] for row in found["randomised"]))
    by_name = {row["name"]: row for row in found["randomised"]}
    lines = []
    for row in found["rows"]:
        for name in RANDOMISED:
            cells = list(_stages(by_name, row["name"], stages, name))
            if any(cells):
                trained = shown(row["figures"]["siblings"].get(name), MEASURES[name])
                lines.append(
                    [row["label"], MEASURES[name].title, trained, *(c or "—" for c in cells)]
                )
    chance = [shown(found["chance"]["siblings"].get(RANDOMISED[0]), MEASURES[RANDOMISED[0]])]
    lines.append(["chance", "", *chance * (len(stages) + 1)])
    return markdown(["Method", "Measure", "trained", *stages], lines)


def _stages(
    by_name: Mapping[str, Any], row: str, stages: Sequence[str], measure: str
) -> Iterator[str | None]:
    for stage in stages:
        figures = by_name.get(f"{row}@{stage}", {}).get("figures", {})
        yield shown(figures[measure], MEASURES[measure]) if measure in figures else None


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, columns aligned."""
    cells = [list(columns), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
