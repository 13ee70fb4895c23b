"""Max-pooling in the form that is fastest where it runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


def max_pool(x: Float[Array, "B H W C"], size: int, padding: int) -> Float[Array, "B h w C"]:
    """Maximum over windows of side `size` at stride 2, -inf beyond the border.

    On a CPU the maximum is taken over shifted images, of columns and then of rows: XLA scatters
    the gradient of its own window by window. Either way a window's first maximum receives it.

    Args:
        x: Images or cells.
        size: Window side.
        padding: Rows and columns added on each side.
    """
    around: Any = ((padding, padding),) * 2  # nnx names only the type of "SAME"
    if jax.default_backend() != "cpu":
        return nnx.max_pool(x, (size, size), strides=(2, 2), padding=around)
    low = jnp.array(-jnp.inf, x.dtype)
    x = lax.pad(x, low, [(0, 0, 0), *((*pad, 0) for pad in around), (0, 0, 0)])
    # Without the barriers XLA would compute the layer below anew for every shift.
    columns = lax.optimization_barrier(_highest(lax.optimization_barrier(x), size, axis=2))
    return _highest(columns, size, axis=1)


def _highest(x: Float[Array, "B H W C"], size: int, axis: int) -> Float[Array, "B h w C"]:
    last = x.shape[axis] - size
    highest = lax.slice_in_dim(x, 0, last + 1, 2, axis)
    for start in range(1, size):
        other = lax.slice_in_dim(x, start, start + last + 1, 2, axis)
        highest = jnp.where((other > highest) | jnp.isnan(other), other, highest)
    return highest
