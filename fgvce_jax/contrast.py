"""Contrastive maps: the evidence for P that is replaced, and that for Q which replaces it (FG-VCE,
Section 3.3, Eq. 10-11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fgvce_jax.config import SearchConfig
from fgvce_jax.errors import InputError
from fgvce_jax.partition import contributions


def difference_share(
    minuend: Float[ArrayLike, "n m C"], subtrahend: Float[ArrayLike, "n m C"]
) -> Float[Array, "n m"]:
    """Each cell's share of sum_channels ReLU(minuend - subtrahend); all zero where that is."""
    difference = jnp.maximum(jnp.subtract(minuend, subtrahend), 0).sum(-1)
    total = difference.sum()
    return difference / jnp.where(total > 0, total, 1)


def weighted_difference(
    before: Float[ArrayLike, "n m C"],
    after: Float[ArrayLike, "n m C"],
    weight_before: Float[ArrayLike, "n m"],
    weight_after: Float[ArrayLike, "n m"],
) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
    """(invariant, dominant) for given weights: contributions, or another attribution (Fig. 3)."""
    invariant = jnp.multiply(weight_before, difference_share(before, after))
    dominant = jnp.multiply(weight_after, difference_share(after, before))
    return invariant, dominant


def contrastive_maps(
    head: Callable[[Any], Any],
    before: ArrayLike,
    after: ArrayLike,
    predicted: ArrayLike,
    target: ArrayLike,
    config: SearchConfig = SearchConfig(),
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """The invariant map (Eq. 10) and the dominant map (Eq. 11), signed, at cell resolution.

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        before: The image's feature map h0, [n, n, C].
        after: The edited feature map h*, [n, n, C].
        predicted: P, the class that was predicted.
        target: Q, the class that is correct.
        config: The search's; `sigma` and `evidence` are used.

    Raises:
        InputError: Feature maps of two shapes, what `contributions` cannot take, or matched
            evidence, which needs reference images: `fgvce_jax.explain` has them.
    """
    if config.evidence == "matched":
        raise InputError("evidence: expected predicted or margin here, got matched")
    before, after = jnp.asarray(before), jnp.asarray(after)
    if before.shape != after.shape:
        raise InputError(f"after: expected {list(before.shape)} as before, got {list(after.shape)}")
    margin = config.evidence == "margin"
    return weighted_difference(
        before,
        after,
        contributions(head, before, predicted, config.sigma, against=target if margin else None),
        contributions(head, after, target, config.sigma, against=predicted if margin else None),
    )
