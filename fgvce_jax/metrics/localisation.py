"""Part localisation: does a map point at the part in which two classes are known to differ?

This project's own measure, for data such as `birds` whose classes differ in known parts and whose
parts are known to the pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fgvce_jax.metrics.maps import at_pixels


class Localisation(NamedTuple):
    """How a map lies on the differing parts; all NaN where none of them is visible.

    Attributes:
        hit: 1 where the map's peak is inside, else 0.
        energy: Share of the clipped map inside, in [0, 1]; 0 for a map without a positive value.
        area: Share of the image inside: the energy of a uniform map.
    """

    hit: Float[Array, ""]
    energy: Float[Array, ""]
    area: Float[Array, ""]


def dilated(mask: Bool[Array, "H W"], radius: int) -> Bool[Array, "H W"]:
    """The pixels at most `radius` pixels away from the mask in either direction."""
    window = (2 * radius + 1,) * 2
    return jax.lax.reduce_window(mask, False, jax.lax.bitwise_or, window, (1, 1), "SAME")


def localisation(
    values: Float[Array | np.ndarray, "m m"],
    part_masks: Bool[Array | np.ndarray, "M H W"],
    differing: Bool[Array | np.ndarray, "M"],
    n: int,
) -> Localisation:
    """Pointing hit and energy of one map.

    Args:
        values: The map; it is clipped at 0 and upsampled bilinearly. Its peak is the first pixel
            with the highest value; a map without a positive value has none.
        part_masks: The visible pixels of each part of the image.
        differing: The parts in which the two classes differ.
        n: Cells per side: the parts' masks are dilated by half a cell.
    """
    height, width = part_masks.shape[1:]
    part = (jnp.asarray(part_masks) & differing[:, None, None]).any(0)
    inside = dilated(part, round(height / n / 2))
    pixels = at_pixels(jnp.maximum(values, 0), (height, width))
    total = pixels.sum()
    hit = inside.ravel()[jnp.argmax(pixels)] & (total > 0)
    energy = (pixels * inside).sum() / jnp.where(total > 0, total, 1)
    measured = jnp.stack([hit.astype(jnp.float32), energy, inside.mean()])
    return Localisation(*jnp.where(part.any(), measured, jnp.nan))
