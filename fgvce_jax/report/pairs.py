"""The pairs of a run: predicted P, asked about Q; how often, and what is replaced in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fgvce_jax.report.cards import encoded
from fgvce_jax.results import RunResults

_USED_MOST = 6


def confused_pairs(results: RunResults) -> list[dict[str, int]]:
    """The pairs with their numbers of images, the most frequent first, then by names."""
    names = ["predicted_name", "target_name"]
    table = results.explanations.read(["predicted", "target", *names])
    groups = table.group_by(table.column_names).aggregate([([], "count_all")])
    order = [("count_all", "descending"), *((name, "ascending") for name in names)]
    return [
        {"P": row["predicted"], "Q": row["target"], "count": row["count_all"]}
        for row in groups.sort_by(order).to_pylist()
    ]


@dataclass
class PairTotals:
    """What the explanations of a pair have in common.

    Attributes:
        n: Cells per side.
        replaced: How often each cell was replaced, [n * n].
        maps: Sums of the two maps, each clipped and scaled to its maximum.
        images: How many explanations were added.
        references: Edits by the place of their reference image in the report.
        shown: Edits by the part that their cell shows, and the sum over the edits of the share of
            cells that do.
    """

    n: int
    replaced: np.ndarray = field(init=False)
    maps: dict[str, np.ndarray] = field(init=False)
    images: int = 0
    references: Counter[int] = field(default_factory=Counter)
    shown: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self):
        self.replaced = np.zeros(self.n * self.n, int)
        self.maps = {name: np.zeros((self.n, self.n)) for name in ("invariant", "dominant")}

    def add(
        self,
        edits: Sequence[Mapping[str, Any]],
        maps: Mapping[str, Float[np.ndarray, "n n"]],
        parts: Sequence[str] = (),
        shows: Bool[np.ndarray, "n*n M"] | None = None,
    ) -> None:
        """Add an explanation: a card's edits, its maps, and the parts that its cells show."""
        self.images += 1
        np.add.at(self.replaced, [edit["cell"] for edit in edits], 1)
        self.references.update(edit["reference"] for edit in edits)
        for name, total in self.maps.items():
            clipped = np.maximum(maps[name], 0)
            total += clipped / max(clipped.max(), 1e-12)
        if shows is not None:
            chance = shows.mean(0)
            for k, name in enumerate(parts):
                sums = self.shown.setdefault(name, [0.0, 0.0])
                sums[0] += sum(bool(shows[edit["cell"], k]) for edit in edits)
                sums[1] += len(edits) * float(chance[k])

    def as_json(self) -> dict[str, Any]:
        """For the pair's page."""
        edits = max(int(self.replaced.sum()), 1)
        parts = [
            {"name": name, "share": round(hits / edits, 4), "chance": round(expected / edits, 4)}
            for name, (hits, expected) in self.shown.items()
            if hits
        ]
        means = {name: encoded(total / max(self.images, 1)) for name, total in self.maps.items()}
        return {
            "replaced": self.replaced.tolist(),
            "references": self.references.most_common(_USED_MOST),
            "parts": sorted(parts, key=lambda part: -part["share"]),
            **means,
        }


def totals(pairs: Iterable[Mapping[str, int]], n: int) -> dict[tuple[int, int], PairTotals]:
    """Empty totals of every pair, in order."""
    return {(pair["P"], pair["Q"]): PairTotals(n) for pair in pairs}
