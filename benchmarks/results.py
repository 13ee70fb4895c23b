"""What the page on the results wants to know of the scripts' JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from script import Table, mean
from tables import ROWS

Difference = tuple[float, float]
"""A mean of differences, sample by sample, and its standard error."""


class Page:
    """The JSON of the scripts that have finished.

    Attributes:
        folder: Where it lies.
        found: By script, what its JSON holds.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        read = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        self.found: dict[str, Any] = {
            name: found for name, found in read.items() if "table" in found
        }

    def has(self, name: str, *rows: str, measures: Iterable[str] = ()) -> bool:
        """Whether a script has finished and measured all of `rows`, by each of `measures`."""
        found = self.found.get(name, {"rows": {}})["rows"]
        return name in self.found and all(
            "missing" not in found.get(row, {"missing": 1})
            and all(mean(self.values(name, measure, row)) for measure in measures)
            for row in rows
        )

    def table(self, name: str, key: str = "table") -> str:
        """A script's table in Markdown."""
        return Table(**self.found[name][key]).markdown()

    def picture(self, name: str, caption: str) -> str:
        """A script's picture, if it drew one."""
        path = self.folder / f"{name}.png"
        return f"![{caption}]({self.folder.name}/{path.name})" if path.exists() else ""

    def values(self, name: str, measure: str, row: str) -> list[float | None]:
        """A measure of every sample; empty where it was not measured."""
        rows = self.found.get(name, {"rows": {}})["rows"]
        return rows.get(row, {}).get("scores", {}).get(measure, [])

    def scores(self, name: str, measure: str) -> dict[str, float]:
        """A measure's mean for every row that has it."""
        means = {row: mean(self.values(name, measure, row)) for row in self.found[name]["rows"]}
        return {row: value[0] for row, value in means.items() if value}

    def paired(self, name: str, measure: str, a: str, b: str, unit: float = 1) -> Difference | None:
        """A row's score less another's, of the samples that have both."""
        return difference(self.values(name, measure, a), self.values(name, measure, b), unit)

    def same_classifier(self, name: str, row: str) -> bool:
        """Whether a row explains the classifier of the others; CALM has its own."""
        return "classifier" not in self.found[name]["rows"][row].get("constants", {})

    def place(self, measure: str, row: str) -> str:
        """Where a row of Table 1 stands among those that explain its class and its classifier."""
        lowest = measure == "deletion"
        means = {
            key: value
            for key, value in self.scores("table1", measure).items()
            if ROWS[key].explains == ROWS[row].explains
            and "random" not in key
            and self.same_classifier("table1", key)
        }
        order = sorted(means, key=lambda key: means[key] if lowest else -means[key])
        rank, best = order.index(row) + 1, order[0]
        if rank == 1:
            return f"{measure} {means[row]:.1f}, the best of {len(order)}"
        return (
            f"{measure} {means[row]:.1f}, place {rank} of {len(order)} (best: "
            f"{ROWS[best].label}, {means[best]:.1f})"
        )


def difference(
    a: Sequence[float | None], b: Sequence[float | None], unit: float = 1
) -> Difference | None:
    """Of `a` less `b`; None where fewer than two samples have both, which show no spread."""
    both = zip(a, b, strict=bool(a and b))
    found = [unit * (x - y) for x, y in both if x is not None and y is not None]
    return mean(found) if len(found) > 1 else None


def verdict(difference: Difference | None, lowest: bool = False) -> str:
    """better, worse or level (within two standard errors); "" where it was not measured."""
    if difference is None:
        return ""
    value, error = difference
    if abs(value) <= 2 * error:
        return "level"
    return "better" if (value < 0) == lowest else "worse"


def judged(difference: Difference | None, lowest: bool = False) -> str:
    """A difference in words and figures."""
    if difference is None:
        return "not measured"
    return f"{verdict(difference, lowest)} ({difference[0]:+.1f} ± {difference[1]:.1f})"


def flipped_edits(found: Mapping[str, Any]) -> list[int]:
    """Edits of the samples whose prediction changed."""
    return [e for e, flipped in zip(found["edits"], found["flipped"], strict=True) if flipped]


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 100 characters."""
    return textwrap.fill(text, 100, break_on_hyphens=False)
