"""What the scripts of the tables and figures share: options, results on disk, a printed table.

A script writes its JSON after every row and takes rows that are there already as they are, so that
it continues where it was stopped. Nothing here needs a dataset or a picture.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import machine

from fgvce_jax.errors import InputError

if TYPE_CHECKING:
    from study import Study

ROOT = Path(__file__).resolve().parent.parent
PAPER = json.loads((Path(__file__).parent / "paper.json").read_text())


# --- results ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """What is printed and written as CSV: text and numbers, with footnotes.

    Attributes:
        columns: Their headings; the first column names the row.
        rows: Values, None where there is none.
        notes: Below the table.
    """

    columns: list[str]
    rows: list[list[str | float | int | None]]
    notes: list[str]

    def markdown(self) -> str:
        """The table and its notes."""
        cells = [self.columns, *([_text(value) for value in row] for row in self.rows)]
        widths = [max(len(row[c]) for row in cells) for c in range(len(self.columns))]
        lines = [
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join(lines) + "".join(f"\n\n{note}" for note in self.notes)


def _text(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


class Results:
    """A script's JSON: its settings and what has been measured so far, a row at a time.

    Raises:
        InputError: The file holds results of other settings.
    """

    def __init__(self, name: str, study: Study, **settings: Any):
        self.path = study.options.out / f"{name}.json"
        self.content: dict[str, Any] = {
            "name": name,
            "settings": {**study.settings, **settings},
            "machine": machine(),
            "samples": study.samples,
            "rows": {},
        }
        if self.path.exists():
            try:
                kept = json.loads(self.path.read_text())
                settings = kept["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.path}: damaged ({error}); remove it") from error
            for key, value in json.loads(json.dumps(self.content["settings"])).items():
                if settings.get(key) != value:
                    raise InputError(
                        f"{self.path}: holds results with {key} {settings.get(key)}, expected "
                        f"{value}; give another --out, or remove the file"
                    )
            self.content["rows"] = kept["rows"]

    @property
    def rows(self) -> dict[str, Any]:
        """What has been measured, by row."""
        return self.content["rows"]

    def measure(
        self,
        names: Iterable[str],
        function: Callable[[str], dict[str, Any]],
        constants: Callable[[str], dict[str, Any]] = lambda name: {},
    ) -> None:
        """Measure the rows of `names` that are not there yet, and write them one by one.

        `function` may raise InputError: then the row says what is missing, and is tried again by
        the next run. So is a row that was measured with other `constants`.
        """
        for name, wanted in [(name, constants(name)) for name in names]:
            kept = self.rows.get(name, {"missing": "not measured"})
            if "missing" not in kept and kept.get("constants", {}) == wanted:
                continue
            started = time.perf_counter()
            try:
                self.rows[name] = function(name)
            except InputError as error:
                self.rows[name] = {"missing": str(error).removeprefix(f"{name}: ")}
            self.rows[name] |= {"constants": wanted} if wanted else {}
            self.rows[name]["seconds"] = round(time.perf_counter() - started, 1)
            print(f"{name}: {self.rows[name]['seconds']} s", file=sys.stderr, flush=True)
            self.write()

    def among(self, names: Iterable[str]) -> dict[str, Any]:
        """The rows of `names` that are there, by this run or an earlier one, in that order."""
        return {name: self.rows[name] for name in names if name in self.rows}

    def write(self) -> None:
        """Write the JSON, whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
        temporary.replace(self.path)

    def finish(self, table: Table) -> None:
        """Print the table, write it as CSV, and put it into the JSON."""
        self.content["table"] = asdict(table)
        self.write()
        with open(self.path.with_suffix(".csv"), "w", newline="") as file:
            csv.writer(file).writerows([table.columns, *table.rows])
        print(table.markdown())


def measured(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the rows that nothing was missing for."""
    return {name: found for name, found in rows.items() if "missing" not in found}


def absences(rows: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """Footnotes of the rows that show "—": one for every reason."""
    reasons: dict[str, list[str]] = {}
    for name, found in rows.items():
        if "missing" in found:
            reasons.setdefault(found["missing"], []).append(labels[name])
    return [f"{'; '.join(names)}: — because {reason}." for reason, names in reasons.items()]


def numbers(values: np.ndarray) -> list[float | None]:
    """As JSON has them: None for what is not a number."""
    return [round(float(v), 5) if np.isfinite(v) else None for v in values]


def mean(values: Iterable[float | None]) -> tuple[float, float] | None:
    """Mean and standard error of those that are numbers; None where none is."""
    found = np.array([v for v in values if v is not None], float)
    if not len(found):
        return None
    return found.mean(), found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0.0


def shown(values: Iterable[float | None], digits: int = 1) -> str | None:
    """Mean and standard error as text."""
    found = mean(values)
    return None if found is None else f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"


# --- the command line ---------------------------------------------------------------------------


def parser(description: str | None, rows: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that all scripts have; `rows` are the default of --methods."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    out.add_argument("--preset", default="birds", help="birds, a config's name, or a YAML file")
    out.add_argument("--checkpoint", help="another classifier than the preset's")
    out.add_argument("--calm", help="a classifier with CALM's head, for the row calm")
    out.add_argument("--images", type=int, default=50, help="misclassified images to explain")
    out.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    out.add_argument("--maps", type=Path, default=ROOT / "runs" / "maps", help="kept maps")
    out.add_argument("--batch_size", type=int, default=25)
    out.add_argument("--rise_masks", type=int, default=500)
    out.add_argument("--ep_iterations", type=int, default=150)
    if rows:
        out.add_argument("--methods", default=",".join(rows))
    return out


def positive(options: argparse.Namespace, *names: str) -> None:
    """Raise InputError unless each of these options is 1 or more, or not given."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected 1 or more")


def choose(kind: str, text: str, known: Iterable[str]) -> list[str]:
    """The names in `text`, separated by commas.

    Raises:
        InputError: A name that is not known; the message lists those that are.
    """
    known = list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{kind} {name!r}: expected one of {', '.join(known)}{hint}")
    return names


def run(main: Callable[[], None]) -> None:
    """Run a script; an input that cannot be used ends it with exit code 2."""
    try:
        main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
