"""The common part of the paper's tables and figures: options, results on disk, a printed table."""

import argparse
import difflib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json, write_json
from fgvce_jax.metrics.faithfulness import SHARE

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that every script finds the package `benchmarks`
PAPER = json.loads((Path(__file__).parent / "paper.json").read_text("utf-8"))


@dataclass(frozen=True)
class Table:
    """Text and numbers, None where there is none; the first column names the row."""

    columns: list[str]
    rows: list[list[str | float | int | None]]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table and its notes."""
        cells = [self.columns, *([_text(value) for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n\n".join(["\n".join(lines), *self.notes])


def _text(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


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


def shown(values: Iterable[float | None], digits: int = 1, sign: str = "") -> str | None:
    """Mean and standard error of those that are numbers; with `sign` "+" positive ones have one."""
    found = np.array([v for v in values if v is not None], float)
    if not len(found):
        return None
    error = found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0.0
    return f"{found.mean():{sign}.{digits}f} ± {error:.{digits}f}"


class Results:
    """A script's JSON: its settings, its provenance, and what has been measured, a row at a time.

    Rows that are there already are taken as they are: a script continues where it was stopped.

    Raises:
        InputError: The file is damaged, or holds results of other settings or another classifier.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], provenance: dict[str, Any], **content: Any
    ):
        self.path, self.provenance, self.rows = path, provenance, {}
        settings = json.loads(json.dumps(settings))
        self.content = {
            "name": path.stem,
            "settings": settings,
            "provenance": provenance,
            **content,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        kept = read_json(path)
        try:
            before = kept["settings"] | {"checkpoint": kept["provenance"]["checkpoint"]}
            self.rows: dict[str, Any] = kept["rows"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: expected a script's results ({error!r})") from error
        for key, value in (settings | {"checkpoint": provenance["checkpoint"]}).items():
            if before.get(key) != value:
                raise InputError(
                    f"{path}: holds results with {key} {before.get(key)}, expected {value}; "
                    "give another --out, or remove the file"
                )

    def measure(self, names: Iterable[str], function: Callable[[str], dict[str, Any]]) -> None:
        """Measure the rows of `names` that are not there yet, and write them one by one.

        Where `function` raises InputError the row tells what is missing; the next run tries again.
        """
        for name in names:
            if "missing" not in self.rows.get(name, {"missing": "not measured"}):
                continue
            started = time.perf_counter()
            try:
                found = function(name)
            except InputError as error:
                found = {"missing": str(error).removeprefix(f"{name}: ")}
            seconds = round(time.perf_counter() - started, 1)
            self.rows[name] = found | {"seconds": seconds, "code": self.provenance["code"]}
            print(f"{self.path.stem}, {name}: {seconds} s", file=sys.stderr, flush=True)
            write_json(self.path, self.content | {"rows": self.rows})

    def among(self, names: Iterable[str]) -> dict[str, Any]:
        """The rows of `names` that are there, by this run or an earlier one, in that order."""
        return {name: self.rows[name] for name in dict.fromkeys(names) if name in self.rows}

    def finish(self, **tables: Table) -> None:
        """Print the tables and put them into the JSON under their names."""
        tables_as_data = {name: asdict(table) for name, table in tables.items()}
        write_json(self.path, self.content | {"rows": self.rows, "tables": tables_as_data})
        print("\n\n".join(table.markdown() for table in tables.values()))


def at_least_1(text: str) -> int:
    """A number of things, of the command line."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def a_share(text: str) -> float:
    """A share of a whole, of the command line."""
    if not 0 < float(text) <= 1:
        raise ValueError
    return float(text)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    out.add_argument("--preset", default="birds", help="birds, a config's name, or a YAML file")
    out.add_argument("--data", help="folder of the images, where the preset names none")
    out.add_argument("--checkpoint", help="another classifier than the preset's")
    out.add_argument("--factory", help="your own classifier, package.module:function, instead")
    out.add_argument("--calm", help="a classifier with CALM's head, for the row calm")
    out.add_argument("--images", type=at_least_1, default=50, help="mistakes to explain")
    out.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    out.add_argument("--maps", type=Path, default=ROOT / "runs" / "maps", help="kept maps")
    out.add_argument("--batch_size", type=at_least_1, default=25)
    out.add_argument("--rise_masks", type=at_least_1, default=500)
    out.add_argument("--ep_iterations", type=at_least_1, default=150)
    share = "of the pixels, exchanged in one step of insertion and deletion"
    out.add_argument("--share", type=a_share, default=SHARE, help=share)
    panels = "draw maps over images that are not drawn birds; they belong to others"
    out.add_argument("--panels", action="store_true", help=panels)
    out.add_argument("--methods", help="rows to measure, with commas between them; all by default")
    out.add_argument("--metrics", help="scores of Tables 1 and 3, likewise")
    return out


def choose(
    kind: str, text: str | None, known: Iterable[str], default: Iterable[str] | None = None
) -> list[str]:
    """The names in `text`, separated by commas; `default` (all that are known) where it is None."""
    known = list(known)
    if text is None:
        return known if default is None else list(default)
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
