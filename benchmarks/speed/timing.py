"""Common to the speed benchmarks: times, printed rows, and a script with a stamped JSON."""

import argparse
import inspect
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.paper.results import run
from benchmarks.provenance import describe, stamp
from fgvce_jax.files import write_json


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a function takes, and its result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - start, result


def median_times(functions: Sequence[Callable[[], Any]], repeats: int = 7) -> list[float]:
    """Median seconds of each function, run in turn (A B A B ...) so that drift hits them alike."""
    rounds = [[timed(function)[0] for function in functions] for _ in range(1 + repeats)]
    return np.median(rounds[1:], axis=0).tolist()  # without the first, which warms up


def fastest(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The fewest seconds that a function takes once it is warm, and its result."""
    runs = [timed(function) for _ in range(1 + repeats)]
    return min(seconds for seconds, _ in runs[1:]), runs[-1][1]


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a script's function, run in a process with memory and devices of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def show(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row, its floats with four digits, and return it."""
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
    print("  ".join(f"{key} {value}" for key, value in values.items()), flush=True)
    return row


def script(measure: Callable[..., Mapping[str, Any]], **texts: str) -> None:
    """Run a benchmark: each argument of `measure` is an option, `texts` explain them.

    What it returns is stamped and written where --json asks for it.
    """
    arguments = argparse.ArgumentParser(
        description=measure.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    texts = {"repeats": "runs that a median is taken of"} | texts
    for name, parameter in inspect.signature(measure).parameters.items():
        default = parameter.default
        arguments.add_argument(
            f"--{name}", type=type(default), default=default, help=texts.get(name, name)
        )
    arguments.add_argument("--json", type=Path, help="file to write")
    options = vars(arguments.parse_args())
    path = options.pop("json")

    def main() -> None:
        measured = measure(**options)
        result = {"provenance": stamp(), "name": Path(sys.argv[0]).stem, **measured}
        print(f"\nOn {describe(result['provenance']['machine'])}.")
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, result)

    run(main)
