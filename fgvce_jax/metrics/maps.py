"""Maps brought to the size and the scale that a measure asks for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def at_pixels(
    values: Float[Array | np.ndarray, "m m"], size: tuple[int, int]
) -> Float[Array, "H W"]:
    """A map at image size, upsampled bilinearly, as it is displayed."""
    return jax.image.resize(values, size, "bilinear", antialias=False)


def at_cells(values: Float[Array | np.ndarray, "m m"], n: int) -> Float[Array, "n n"]:
    """A map at cell resolution: the mean over the area of each cell; n x n stays as it is."""

    def averaging(side: int) -> Float[Array, "n side"]:
        edges = jnp.arange(n + 1) * (side / n)
        pixels = jnp.arange(side)
        overlap = jnp.minimum(edges[1:, None], pixels + 1) - jnp.maximum(edges[:-1, None], pixels)
        return jnp.maximum(overlap, 0) * (n / side)

    if values.shape == (n, n):
        return jnp.asarray(values)
    rows, columns = map(averaging, values.shape)
    return jnp.matmul(jnp.matmul(rows, values, precision="highest"), columns.T, precision="highest")


def unit(values: Float[Array | np.ndarray, "m m"]) -> Float[Array, "m m"]:
    """A map clipped at 0 and divided by its maximum, in [0, 1]; all 0 where nothing is positive."""
    clipped = jnp.maximum(values, 0)
    highest = clipped.max()
    return clipped / jnp.where(highest > 0, highest, 1)
