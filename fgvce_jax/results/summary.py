"""A run in a few lines: what was read and how, what an explanation means, where the time went."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from fgvce_jax.results.read import RunResults, read_run

MANY_EDITS = 10
"""More edits than this are counted: the explanation is hard to read."""


def flips(results: RunResults) -> dict[str, Any]:
    """What the explanations of a run come to, over those that had references.

    Counts: `explained`, `flipped`, `likely` (flipped, and p(Q) ended above 0.5) and `many_edits`
    (more than 10). `share_replaced` is the mean share of an image's cells that was replaced;
    `edits_median` and `edits_most` are over the flipped ones, `search_s` is the median of a
    search's seconds; None where there is nothing to take it of.
    """
    names = ["status", "time_s", "num_edits", "flipped", "p_target_after"]
    table = results.explanations.read(names).filter(pc.field("status") == "explained")
    seconds, edits, final = (table[n].to_numpy() for n in ("time_s", "num_edits", "p_target_after"))
    flipped = table["flipped"].to_numpy(zero_copy_only=False).astype(bool)
    n = results.info.get("cells")
    some, any_flip = len(table) > 0, bool(flipped.any())
    return {
        "explained": len(table),
        "flipped": int(flipped.sum()),
        "likely": int((flipped & (final > 0.5)).sum()),
        "many_edits": int((edits > MANY_EDITS).sum()),
        "share_replaced": float(edits.mean() / n**2) if some and n else None,
        "edits_median": float(np.median(edits[flipped])) if any_flip else None,
        "edits_most": int(edits[flipped].max()) if any_flip else None,
        "search_s": float(np.median(seconds)) if some else None,
    }


def skip_reasons(skipped: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many images were skipped for each reason, the most frequent first.

    Of an image's own `why` its numbers and details are left out.
    """
    return dict(Counter(_reason(image["why"]) for image in skipped).most_common())


def _reason(why: str) -> str:
    for pattern, reason in (
        (r"pixels; expected at least", "too small"),
        (r"expected at most|memory", "too large"),
    ):
        if re.search(pattern, why):
            return reason
    return re.sub(r" *\(.*?\)", "", why.partition(";")[0])


def summary(folder: Path) -> str:
    """The counts and medians of a run, in a few lines; the last names the report."""
    results = read_run(folder)
    info, counts = results.info, results.info["counts"]
    lines = [("images", f"{counts['read']:,}{_skipped(info)}")]
    if "preprocessing" in info:
        lines.append(("preprocessing", info["preprocessing"]["text"]))
    without = f" ({counts['no_reference']} without a reference)" if counts["no_reference"] else ""
    lines += [
        ("accuracy", f"{counts['correct'] / max(counts['read'], 1):.1%}"),
        ("misclassified", f"{counts['misclassified']:,}"),
        ("explained", f"{counts['explained']:,}{without}"),
    ]
    found = flips(results)
    if found["explained"]:
        lines += _of_flips(found)
    if timings := info.get("timings"):
        lines += _of_time(timings, found["search_s"])
    lines.append(("report", str(folder / "report.html")))
    return "\n".join(f"{name:<15} {text}" for name, text in lines)


def _skipped(info: Mapping[str, Any]) -> str:
    if not info["skipped"]:
        return ""
    reasons = [f"{count} {reason}" for reason, count in skip_reasons(info["skipped"]).items()]
    return f" ({len(info['skipped'])} skipped: {', '.join(reasons)})"


def _of_flips(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    share = found["flipped"] / found["explained"]
    edits = "none flipped"
    if found["flipped"]:
        edits = f"median {found['edits_median']:g}, most {found['edits_most']}"
    many = f"{found['many_edits']:,} images over {MANY_EDITS}"
    replaced = found["share_replaced"]
    cells = "" if replaced is None else f"; {replaced:.1%} of the cells replaced"
    likely = f"{found['likely']:,} to a probability above 0.5"
    return [
        ("flipped", f"{found['flipped']:,} ({share:.1%}), {likely}"),
        ("edits", f"{edits}; {many}{cells}"),
    ]


def _of_time(timings: Mapping[str, Any], search_s: float | None) -> list[tuple[str, str]]:
    spent = [f"{name} {s:.1f}" for name, s in timings["seconds"].items() if s >= 0.05]
    each = []
    if timings["images"]:
        each = [f"{1000 * timings['total'] / timings['images']:.0f} ms per image over everything"]
    if search_s is not None:
        each.append(f"{1000 * search_s:.1f} ms per search")
    return [
        ("time", f"{timings['total']:.1f} s: {', '.join(spent)}"),
        ("", "; ".join(each)),
    ]
