"""One explanation as the JSON of its card."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fgvce_jax.report.sources import Seen

_LOST = 1e-5
"""The most probability that the classes left out of a card may have together."""


def card(
    row: Mapping[str, Any],
    seen: Seen,
    maps: Mapping[str, Float[np.ndarray, "n n"]],
    references: Mapping[int, int],
    parts: Sequence[str] = (),
    shows: Bool[np.ndarray, "n*n M"] | None = None,
) -> dict[str, Any]:
    """A card.

    Args:
        row: Of the run's table.
        seen: The image.
        maps: Those to draw, by name.
        references: The place in the report of every reference image, by index.
        parts: The names of what `shows` tells apart.
        shows: Which part each cell shows, where known.
    """
    edits = [
        {
            "cell": edit["cell"],
            "reference": references[edit["candidate_index"]],
            "candidate_cell": edit["candidate_cell"],
            "similarity": round(edit["similarity"], 4),
        }
        for edit in row["edits"]
    ]
    if shows is not None and parts:
        for edit in edits:
            edit["parts"] = [parts[k] for k in np.flatnonzero(shows[edit["cell"]]).tolist()]
    return {
        "image": seen.picture,
        "gone": seen.gone,
        "small": seen.image is not None and len(seen.image) < 64,
        "maps": {name: encoded(values) for name, values in maps.items()},
        "edits": edits,
        "pP": _rounded(row["p_predicted"]),
        "pQ": _rounded(row["p_target"]),
        "nearest": row["nearest"] or [],
        **_logits(row["logits"], row["logit_changes"], len(edits)),
    }


def encoded(values: Any) -> str:
    """Numbers as base64 of little-endian 32-bit floats, row by row."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def _rounded(values: Sequence[float] | None) -> list[float]:
    return [round(value, 6) for value in values or ()]


def _logits(
    logits: Sequence[float] | None, changes: Sequence[float] | None, edits: int
) -> dict[str, Any]:
    """The logits and their changes, of the classes that some subset of the edits can make count."""
    if logits is None or not len(logits):
        return {"kept": [], "logits": None, "changes": None}
    z = np.asarray(logits, np.float64)
    by_edit = np.asarray(changes, np.float64).reshape(edits, len(z))
    kept = reachable(z, by_edit)
    return {
        "kept": kept.tolist(),
        "logits": encoded(z[kept]),
        "changes": encoded(by_edit[:, kept]),
    }


def reachable(
    logits: Float[np.ndarray, "K"], changes: Float[np.ndarray, "T K"]
) -> Int[np.ndarray, "k"]:
    """The classes to keep, so that the others' probabilities add up to at most 1e-5.

    That holds after any subset of the edits: a class is left out where even the edits that favour
    it most leave it far below a logit that some class has in any case.
    """
    highest = logits + np.maximum(changes, 0).sum(0)
    assured = (logits + np.minimum(changes, 0).sum(0)).max()
    return np.flatnonzero(highest > assured + np.log(_LOST / len(logits)))
