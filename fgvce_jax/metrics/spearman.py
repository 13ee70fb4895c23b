"""Spearman's rank correlation, of those entries that count."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def ranks(values: Float[Array, "M"], counted: Bool[Array, "M"]) -> Float[Array, "M"]:
    """Rank of every entry among those counted, from 1; ties share the mean of their ranks."""
    lower = (values[None] < values[:, None]) & counted
    equal = (values[None] == values[:, None]) & counted
    return lower.sum(1) + (equal.sum(1) + 1) / 2


def spearman(
    x: Float[Array, "M"], y: Float[Array, "M"], counted: Bool[Array, "M"] | None = None
) -> Float[Array, ""]:
    """Pearson's correlation of the ranks, in [-1, 1].

    NaN where either is constant, or fewer than two entries count.

    Args:
        x: One number per entry.
        y: The other.
        counted: The entries that take part; by default all.
    """
    counted = jnp.ones(x.shape, bool) if counted is None else counted
    # The mean of the ranks 1 ... m is (m + 1) / 2 whatever is tied.
    middle = (counted.sum() + 1) / 2
    a, b = (jnp.where(counted, ranks(v, counted) - middle, 0) for v in (x, y))
    spread = jnp.sqrt((a * a).sum() * (b * b).sum())
    return (a * b).sum() / jnp.where(spread > 0, spread, jnp.nan)
