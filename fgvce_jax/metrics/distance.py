"""Counterfactual distance: how near do the edits come to the true counterfactual?"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def counterfactual_distance(
    cells: Float[Array, "n n C"],
    edited_cells: Float[Array, "n n C"],
    twin_cells: Float[Array, "n n C"],
) -> Float[Array, ""]:
    """||h* - h_twin|| / ||h0 - h_twin||, Euclidean over the whole feature map.

    0 is the twin itself, 1 as far from it as the image was, and edits that lead away exceed 1. NaN
    where the image does not differ from its twin.

    Args:
        cells: h0, the feature map of the image.
        edited_cells: h*, after the edits.
        twin_cells: h_twin, of the image's twin.
    """
    before = jnp.linalg.norm(cells - twin_cells)
    after = jnp.linalg.norm(edited_cells - twin_cells)
    return after / jnp.where(before > 0, before, jnp.nan)
