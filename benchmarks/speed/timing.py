"""What the speed benchmarks share: times, text tables, and a stamped JSON at the end."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.provenance import describe, stamp
from fgvce_jax.files import write_json


def median_times(
    functions: Sequence[Callable[[], Any]], repeats: int = 7, warm_up: int = 1
) -> list[float]:
    """Median seconds of each function, run in turn (A B A B ...) so that drift hits them alike."""
    for _ in range(warm_up):
        for function in functions:
            jax.block_until_ready(function())
    seconds = np.zeros((repeats, len(functions)))
    for r in range(repeats):
        for f, function in enumerate(functions):
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[r, f] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist()


def parser(description: str | None, repeats: int = 7) -> argparse.ArgumentParser:
    """The options of every speed benchmark."""
    out = argparse.ArgumentParser(
        description=(description or "").split("\n", maxsplit=1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    out.add_argument("--repeats", type=int, default=repeats, help="runs that a median is taken of")
    out.add_argument("--json", type=Path, help="file to write")
    return out


def finish(options: argparse.Namespace, result: dict[str, Any], clf: Any = None) -> None:
    """Stamp a result, name the machine, and write the JSON where --json asks for it."""
    result = {"provenance": stamp(clf), **result}
    print(f"\nOn {describe(result['provenance']['machine'])}.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, result)


def show(row: Mapping[str, Any]) -> None:
    """Print a row, its floats with four digits."""
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
    print("  ".join(f"{key} {value}" for key, value in values.items()), flush=True)
