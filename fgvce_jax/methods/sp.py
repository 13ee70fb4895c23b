"""The paper's "+SP" (Table 3): a contrastive method's maps times the contributions of the cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.partition import contributions


def with_sp(
    maps: Float[Array, "B n n"],
    head: Callable[[Any], Any],
    cells: Float[Array, "B n n C"],
    classes: Int[Array, "B"],
    sigma: float | None,
) -> Float[Array, "B n n"]:
    """Maps times contributions to their class, clipped at 0 and divided by their maximum.

    All 0 where no cell contributes to the class. Where `sigma` is None, the method is without SP
    and its maps stay as they are.
    """
    if sigma is None:
        return maps
    scores = jax.vmap(lambda h, c: contributions(head, h, c, sigma))(cells, classes)
    scores = jnp.maximum(scores, 0)
    highest = scores.max((-2, -1), keepdims=True)
    return maps * (scores / jnp.where(highest > 0, highest, 1))
