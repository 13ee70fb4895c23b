"""How much of the image a map covers, and what that part weighs (FG-VCE, Fig. 6)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fgvce_jax.metrics.maps import at_pixels


class Extent(NamedTuple):
    """A map's region: the pixels above half its maximum.

    Attributes:
        pixels: Pixels in the region; 0 for a map without a positive value.
        keypoints: Visible keypoints in it. The paper leaves samples without any out of all three.
        contribution: Mean over the region of the class contributions, in [-1, 1]; NaN where the
            region is empty.
    """

    pixels: Int[Array, ""]
    keypoints: Int[Array, ""]
    contribution: Float[Array, ""]


def extent(
    values: Float[Array | np.ndarray, "m m"],
    contributions: Float[Array | np.ndarray, "n n"],
    keypoints: Float[Array | np.ndarray, "P 3"],
    size: tuple[int, int],
) -> Extent:
    """Fig. 6's three figures of one map.

    Args:
        values: The map; it is clipped at 0 and upsampled bilinearly.
        contributions: Of the class that the map explains, on the features that it explains.
        keypoints: (x, y, visible) in pixels of an image of `size`.
        size: (H, W) of the image.
    """
    pixels = at_pixels(jnp.maximum(values, 0), size)
    region = pixels > pixels.max() / 2
    height, width = size
    x, y = jnp.floor(keypoints[:, 0]).astype(int), jnp.floor(keypoints[:, 1]).astype(int)
    shown = (keypoints[:, 2] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    hit = shown & region[y, x]  # an index outside the image reads some pixel, and does not count
    total = (at_pixels(contributions, size) * region).sum()
    return Extent(region.sum(), hit.sum(), total / region.sum())
