"""Gaussian blurs of an image: two answers to the question of what lies beyond its border."""

from __future__ import annotations

import math

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


def filtered(
    image: Float[Array | np.ndarray, "H W 3"],
    taps: Float[np.ndarray, "taps"],
    beyond: Float[Array | np.ndarray, "3"],
) -> Float[Array, "H W 3"]:
    """The image filtered along both axes, with one colour everywhere beyond its border.

    Filtering a normalised image with zeros around it, as published code does, is this with the
    classifier's mean colour beyond the border.

    Args:
        image: In any units.
        taps: Weights of a symmetric filter, an odd number of them.
        beyond: The colour, in the image's units.
    """
    radius = len(taps) // 2

    def matrix(size: int) -> Float[np.ndarray, "size size"]:
        place = np.arange(size) - np.arange(size)[:, None] + radius
        inside = (place >= 0) & (place < len(taps))
        return np.where(inside, taps[np.clip(place, 0, len(taps) - 1)], 0).astype(np.float32)

    rows, columns = map(matrix, image.shape[:2])
    beyond = jnp.asarray(beyond)
    return beyond + jnp.einsum("ih,jw,hwc->ijc", rows, columns, image - beyond, precision="highest")


def gaussian_taps(sigma: float) -> Float[np.ndarray, "taps"]:
    """A Gaussian of `sigma` pixels, cut at 4 sigma, with a sum of 1."""
    reach = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    weights = np.exp(-0.5 * (reach / sigma) ** 2) if sigma > 0 else np.ones(1)
    return weights / weights.sum()


def folded_taps(count: int, sigma: float) -> Float[np.ndarray, "taps"]:
    """`gaussian_taps` on `count` places: weights past an end are reflected into them."""
    full = gaussian_taps(sigma)
    place = np.arange(len(full)) - len(full) // 2 + count // 2
    place = place % (2 * count)  # reflected with the end itself repeated: a b | b a
    place = np.where(place < count, place, 2 * count - 1 - place)
    return np.bincount(place, weights=full, minlength=count)
