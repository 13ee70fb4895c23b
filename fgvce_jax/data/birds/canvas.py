"""The canvas a picture is painted on, layer by layer, and the tools of the painter."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NOTHING = -1


class Canvas(NamedTuple):
    """The picture painted so far: colours [3, S, S] and, per pixel, the part seen there [S, S]."""

    rgb: Float[Array, "3 S S"]
    part: Int[Array, "S S"]

    def paint(self, alpha, rgb, part: int = NOTHING) -> Canvas:
        """Puts a layer on top: opacity [S, S], colour [3, 1, 1] or [3, S, S]."""
        return Canvas(
            self.rgb + alpha * (rgb - self.rgb), jnp.where(alpha > 0.5, jnp.int32(part), self.part)
        )


def ramp(x, low, high) -> Float[Array, "*shape"]:
    """0 below `low`, 1 above `high`, smooth between."""
    t = jnp.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, t):
    """`a` where t is 0, `b` where it is 1."""
    return a + t * (b - a)


def plane(colour) -> Float[Array, "3 1 1"]:
    """One colour for the whole picture."""
    return jnp.asarray(colour)[:, None, None]
