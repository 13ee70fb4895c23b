"""The compact activation score: much of the class in few cells (FG-VCE, Section 4.2, Eq. 12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fgvce_jax.config import SearchConfig
from fgvce_jax.metrics.maps import at_cells, unit
from fgvce_jax.partition import contributions

ACTIVE = 1e-6
"""Above this, a cell of a map whose maximum is 1 counts as active."""


def compactness(
    head: Callable[[Any], Any],
    cells: Float[Array | np.ndarray, "n n C"],
    values: Float[Array | np.ndarray, "m m"],
    class_index: int | Int[Array, ""],
    sigma: float = SearchConfig.sigma,
) -> Float[Array, ""]:
    """xi = C * n^2 / (active cells of the map), 0 or more; 0 for a map without a positive value.

    C is the sum of the map over that of the class's global activation map, both clipped at 0 and
    divided by their maxima. The global map is, per cell, the contribution to the class times
    sum_channels ReLU(h). NaN where it has no positive value.

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        cells: The feature map that the map explains: the edited one for a dominant map.
        values: The map; another side than n is averaged down to n x n.
        class_index: The class that the map explains.
        sigma: Width of the contribution masks, in cells.
    """
    cells = jnp.asarray(cells)
    n = cells.shape[0]
    fine = unit(at_cells(values, n))
    whole = unit(contributions(head, cells, class_index, sigma) * jnp.maximum(cells, 0).sum(-1))
    active = (fine > ACTIVE).sum()
    share = fine.sum() / jnp.where(whole.any(), whole.sum(), jnp.nan)
    return share * n * n / jnp.maximum(active, 1)
