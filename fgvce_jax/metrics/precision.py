"""Average precision: do the cells that a map or a search ranks first belong to a known set?"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def average_precision(
    scores: Float[Array, "*shape"], relevant: Bool[Array, "*shape"]
) -> Float[Array, ""]:
    """Mean over the relevant cells of the precision among all cells ranked no lower, in [0, 1].

    Tied cells enter together: each has the precision at the end of its group, so that no order is
    invented and a constant map scores the share of relevant cells. This is scikit-learn's
    convention. NaN where no cell is relevant.

    Args:
        scores: Of every cell, the highest first; signs and scale do not matter.
        relevant: The set, such as `truly_changed`.
    """
    scores, relevant = scores.ravel(), relevant.ravel()
    no_lower = scores[None] >= scores[:, None]
    precision = (no_lower & relevant).sum(1) / no_lower.sum(1)
    return (precision * relevant).sum() / relevant.sum()


def edit_order(edit_cell: Int[Array, "T"], n: int) -> Float[Array, "n n"]:
    """Edits as a map, T for the first edited cell, one less for each that follows.

    Never edited cells are 0: tied, after all others. Of a cell that is edited again, the first edit
    counts.

    Args:
        edit_cell: The edited cells in order, row-major, -1 where unused.
        n: Cells per side.
    """
    count = len(edit_cell)
    place = jnp.where(edit_cell < 0, n * n, edit_cell)  # outside, to be dropped
    height = jnp.arange(count, 0, -1, dtype=jnp.float32)
    return jnp.zeros(n * n).at[place].max(height, mode="drop").reshape(n, n)
