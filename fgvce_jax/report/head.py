"""The top of the page: what the run is of, its figures with their chance levels, its notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from fgvce_jax.results import RunResults


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
    counts = results.info["counts"]
    names = ["status", "time_s", "num_edits", "flipped", "p_target_after"]
    table = results.explanations.read(names).filter(pc.field("status") == "explained")
    edits, flipped = table["num_edits"].to_numpy(), table["flipped"].to_numpy()
    after = table["p_target_after"].to_numpy()
    classes = len(np.unique(results.predictions["target"].to_numpy()))
    some, none = len(table) > 0, "–"
    images = f"accuracy, {_count(counts['read'], 'image')}"
    return [
        {
            "value": f"{counts['correct'] / counts['read']:.1%}" if counts["read"] else none,
            "words": images,
            "chance": f"chance {1 / classes:.1%}" if classes else "",
        },
        {"value": f"{counts['misclassified']:,}", "words": "misclassified", "chance": ""},
        {"value": f"{flipped.mean():.1%}" if some else none, "words": "flipped to Q", "chance": ""},
        {
            "value": f"{(after > 0.5).mean():.1%}" if some else none,
            "words": "reach p(Q) > 0.5",
            "chance": "",
        },
        {
            "value": f"{np.median(edits):g}" if some else none,
            "words": "edits (median)",
            "chance": "",
        },
        {
            "value": duration(float(np.mean(table["time_s"].to_numpy()))) if some else none,
            "words": "an explanation (mean of its batches)",
            "chance": "",
        },
    ]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 1.2 ms, 34 ms, 5.6 s."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"


def maps_with_nan(results: RunResults, methods: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the images whose map holds NaN, by method; without those that have none."""
    found = {name: np.isnan(results.maps[name]).any((1, 2)) for name in methods}
    ids = results.table["id"]
    return {name: ids.filter(bad).to_pylist() for name, bad in found.items() if bad.any()}
