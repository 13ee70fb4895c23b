"""The true change: which cells differ between an image and its twin, the true counterfactual.

This project's own measure, for data such as `birds` of which the same picture can be had as another
class. Edits and maps are held to it by `average_precision`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def true_change(
    cells: Float[Array, "n n C"], twin_cells: Float[Array, "n n C"]
) -> Float[Array, "n n"]:
    """t_k = ||h_twin,k - h_k||_2, the distance of every cell from the twin's.

    Args:
        cells: The feature map of the image.
        twin_cells: That of its twin.
    """
    return jnp.linalg.norm(twin_cells - cells, axis=-1)


def truly_changed(change: Float[Array, "n n"]) -> Bool[Array, "n n"]:
    """The cells whose true change exceeds half the largest; none where nothing changed."""
    return change > change.max() / 2
