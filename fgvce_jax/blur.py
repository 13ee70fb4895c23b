"""The Gaussian blur under which nothing beyond the image's border counts."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def blurred(
    image: Float[Array | np.ndarray, "H W 3"], sigma: float | Float[Array, ""]
) -> Float[Array, "H W 3"]:
    """The image under a Gaussian of `sigma` pixels, its weights inside the image summing to 1."""

    def weights(size: int) -> Float[Array, "size size"]:
        distance = jnp.arange(size)[:, None] - jnp.arange(size)
        values = jnp.exp(-0.5 * (distance / sigma) ** 2)
        return values / values.sum(1, keepdims=True)

    rows, columns = map(weights, image.shape[:2])
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image, precision="highest")
