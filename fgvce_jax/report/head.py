"""The top of the page: what the run is of, its figures with their chance levels, its notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgvce_jax.results import RunResults, flips


def head(
    results: RunResults, shown: RunResults, title: str | None, methods: Sequence[str]
) -> dict[str, Any]:
    """The template's variables about the run as a whole; `shown` are the cards' explanations."""
    info, config = results.info, results.info["config"]
    return {
        "title": title or _title(config),
        "question": config.get("pairs", "misclassified"),
        "n": shown.maps["invariant"].shape[-1],
        "explanations": len(results.explanations),
        "shown": len(shown.explanations),
        "counts": info["counts"],
        "tiles": tiles(results),
        "methods": list(methods),
        "nan": maps_with_nan(shown, methods),
        "classes_without_reference": info.get("classes_without_reference", []),
        "missing": info.get("missing"),
    }


def _title(config: dict[str, Any]) -> str:
    """The data and the classifier in a few words, as far as the config names them."""
    data, model = config.get("data") or {}, config.get("model") or {}
    split, checkpoint = config.get("split"), model.get("checkpoint")
    classifier = Path(*Path(checkpoint).parts[-2:]) if checkpoint else model.get("arch")
    words = data.get("name"), split and f"{split} split", classifier
    return " · ".join(str(word) for word in words if word)


def tiles(results: RunResults) -> list[dict[str, str]]:
    """The figures: value, words, and the level that chance would reach where there is one."""
    counts, found = results.info["counts"], flips(results)
    classes, explained, none = results.info.get("num_classes"), found["explained"], "–"
    images = f"accuracy, {_count(counts['read'], 'image')}"
    return [
        {
            "value": f"{counts['correct'] / counts['read']:.1%}" if counts["read"] else none,
            "words": images,
            "chance": f"chance {1 / classes:.1%}" if classes else "",
        },
        {"value": f"{counts['misclassified']:,}", "words": "misclassified", "chance": ""},
        {
            "value": f"{found['flipped'] / explained:.1%}" if explained else none,
            "words": "flipped to Q",
            "chance": "",
        },
        {
            "value": f"{found['likely'] / explained:.1%}" if explained else none,
            "words": "reach p(Q) > 0.5",
            "chance": "",
        },
        {
            "value": f"{found['edits_median']:g}" if found["flipped"] else none,
            "words": "edits until it flips (median)",
            "chance": "",
        },
    ]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def times(results: RunResults, report: float) -> dict[str, Any] | None:
    """Where the run's time went, for the page; None where it is not known.

    Args:
        results: The run.
        report: Seconds that the report has taken, for a run that does not know them yet.

    Returns:
        `seconds` by what they were spent on, their `total`, the `images` that they are of, and the
        median `search`.
    """
    timings = results.info.get("timings")
    if timings is None:
        return None
    seconds, total = dict(timings["seconds"]), timings["total"]
    if "report" not in seconds:
        seconds["report"] = round(report, 3)
        total += report
    search = flips(results)["search_s"]
    return {"seconds": seconds, "total": total, "images": timings["images"], "search": search}


def maps_with_nan(results: RunResults, methods: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the images whose map holds NaN, by method; without those that have none."""
    found = {name: np.isnan(results.maps[name]).any((1, 2)) for name in methods}
    ids = results.table["id"]
    return {name: ids.filter(bad).to_pylist() for name, bad in found.items() if bad.any()}
