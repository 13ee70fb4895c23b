"""Is it the label? A score per mistake that ranks likely label errors apart from model errors.

Where the label Q is wrong, the classifier tends to be sure of P, to find Q far less probable, to
need many edits with dissimilar cells of Q, and to place the image among references of P. The
score weighs these by a logistic regression on birds with planted label errors (one test image in
ten; `benchmarks/paper/label_errors.py` has the average precision there and on photographs). Q's
probability after the edits added nothing to the others and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SUSPECT_FROM = 0.7
"""From this score on a label is called suspect."""

_OFFSET = -4.0
_WEIGHTS = {"log_odds": 1.75, "dissimilarity": 0.7, "neighbours": 0.25, "edits": 0.35}


def evidence(row: Mapping[str, Any]) -> dict[str, float] | None:
    """The evidence against the label of a mistake, a row of the run's table; None without edits.

    `log_odds` is log p(P) / p(Q) before the edits, `dissimilarity` 1 minus the mean similarity of
    the cells exchanged, `neighbours` the share of the nearest references that are of P minus the
    share of Q (0 where they are not known), and `edits` log(1 + how many).
    """
    if not row["edits"]:
        return None
    p, q = (max(row[f"p_{name}_before"], 1e-6) for name in ("predicted", "target"))
    similarity = sum(edit["similarity"] for edit in row["edits"]) / len(row["edits"])
    nearest = row["nearest"] or []
    agree = nearest.count(row["predicted"]) - nearest.count(row["target"])
    return {
        "log_odds": math.log(p / q),
        "dissimilarity": 1 - similarity,
        "neighbours": agree / max(len(nearest), 1),
        "edits": math.log1p(len(row["edits"])),
    }


def suspicion(row: Mapping[str, Any]) -> float | None:
    """The score of a mistake, in (0, 1); None where there is no edit to judge by."""
    found = evidence(row)
    if found is None:
        return None
    return 1 / (1 + math.exp(-_OFFSET - sum(_WEIGHTS[name] * found[name] for name in found)))
