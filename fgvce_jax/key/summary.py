"""From the scores of samples to means, standard errors and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fgvce_jax.key.samples import SETTINGS, Samples
from fgvce_jax.key.scores import OF_EDITS, chance

COMPARED = {"edits": "fgvce", "P": "fgvce_invariant", "Q": "fgvce_dominant"}
"""The row that others are compared with: for edits, and for maps by the class they explain."""


def summarise(rows: Sequence[Mapping[str, Any]], samples: Samples) -> dict[str, Any]:
    """`rows` of settings, `randomised` rows and `chance`, each with the figures of its measures.

    Args:
        rows: Of the files in rows/.
        samples: The samples of the settings.
    """
    scores = {row["name"]: _arrays(row.get("scores", {})) for row in rows}
    counts = samples.settings.sum(0).tolist()
    out: dict[str, Any] = {"samples": dict(zip(SETTINGS, counts, strict=True))}
    out["rows"], out["randomised"] = [], []
    for row in rows:
        about = {key: row[key] for key in ("name", "label", "explains", "missing") if key in row}
        own = scores[row["name"]]
        if "@" in row["name"]:
            out["randomised"].append(about | {"figures": {m: figure(v) for m, v in own.items()}})
            continue
        figures = {
            setting: {
                measure: figure(values[chosen], _other(scores, row, measure, chosen))
                for measure, values in own.items()
            }
            for setting, chosen in zip(SETTINGS, samples.settings.T, strict=True)
        }
        out["rows"].append(about | {"figures": figures})
    out["chance"] = {
        setting: {m: figure(values[chosen]) for m, values in chance(samples).items()}
        for setting, chosen in zip(SETTINGS, samples.settings.T, strict=True)
    }
    return out


def _arrays(scores: Mapping[str, Sequence[float | None]]) -> dict[str, Float[np.ndarray, "N"]]:
    return {name: np.array(values, np.float64) for name, values in scores.items()}


def _other(
    scores: Mapping[str, Mapping[str, np.ndarray]],
    row: Mapping[str, Any],
    measure: str,
    chosen: Bool[np.ndarray, "N"],
) -> Float[np.ndarray, "M"] | None:
    """The scores of the row that this one is compared with; None of itself, or if there is none."""
    name = COMPARED["edits" if measure in OF_EDITS else row["explains"]]
    if name == row["name"] or measure not in scores.get(name, {}):
        return None
    return scores[name][measure][chosen]


def figure(
    values: Float[np.ndarray, "N"], other: Float[np.ndarray, "N"] | None = None
) -> dict[str, float | int | None]:
    """Mean, standard error and number of those that have a score, and the paired difference."""
    out = _mean(values)
    out["median"] = None if out["n"] == 0 else float(np.nanmedian(values))
    if other is not None:
        paired = _mean(values - other)
        out |= {"difference": paired["mean"], "difference_error": paired["error"]}
    return out


def _mean(values: Float[np.ndarray, "N"]) -> dict[str, float | int | None]:
    found = values[np.isfinite(values)]
    if not len(found):
        return {"mean": None, "error": None, "n": 0}
    error = float(found.std(ddof=1)) / len(found) ** 0.5 if len(found) > 1 else None
    return {"mean": float(found.mean()), "error": error, "n": len(found)}
