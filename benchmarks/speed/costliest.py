"""A profiler's trace of one explained batch, and the ten fusions that took the longest."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from planted import Planted
from timing import stamp

from fgvce_jax.explain import explain
from fgvce_jax.files import write_json


def trace_explanation(problem: Callable[[], Planted], out: Path) -> None:
    """Write OUT/trace (for Perfetto or XProf) and OUT/costliest.json, and print the latter."""
    clf, images, labels, bank = problem()

    def explained() -> Any:
        return jax.block_until_ready(explain(clf, bank, images, labels))

    explained()
    with jax.profiler.trace(str(out / "trace")):
        explained()
    newest = max((out / "trace").rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    rows = costliest(json.loads(gzip.decompress(newest.read_bytes())))
    for row in rows:
        print(f"{row['ms']:10.2f} ms {row['share']:6.1%}  {row['calls']:6}  {row['name']}")
    write_json(out / "costliest.json", {"provenance": stamp(), "rows": rows})


def costliest(trace: dict[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The operations of a Chrome trace with the most time, with their share of all operations'.

    Operations are the events that XLA gives the name of their HLO; the time of a loop or a call is
    that of the operations inside, so these are left out.
    """
    time, calls = Counter(), Counter()
    for event in trace["traceEvents"]:
        name = event.get("args", {}).get("hlo_op")
        if (
            event.get("ph") == "X"
            and name
            and not name.startswith(("while", "call", "conditional"))
        ):
            time[name] += event["dur"] / 1000
            calls[name] += 1
    total = sum(time.values())
    return [
        {"name": name, "ms": ms, "share": ms / total, "calls": calls[name]}
        for name, ms in time.most_common(count)
    ]
