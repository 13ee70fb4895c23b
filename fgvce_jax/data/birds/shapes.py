"""Signed distances of the few shapes a bird is made of.

Every function takes coordinates of any one shape and returns distances of that shape in the same
unit: negative inside, zero on the outline, positive outside. After Inigo Quilez, "2D distance
functions"; distances of tapered and bent shapes are approximate away from the outline, which is
where anti-aliasing needs them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Points(NamedTuple):
    """Coordinates in some frame: x to the right, y downwards."""

    x: Float[Array, "*shape"] | float
    y: Float[Array, "*shape"] | float


def to_frame(p: Points, origin: Points, angle: Float[Array, ""] | float) -> Points:
    """Coordinates of `p` in a frame at `origin` whose x axis points along `angle` (radians)."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = p.x - origin.x, p.y - origin.y
    return Points(cos * x + sin * y, cos * y - sin * x)


def from_frame(p: Points, origin: Points, angle: Float[Array, ""] | float) -> Points:
    """The inverse of `to_frame`."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return Points(origin.x + cos * p.x - sin * p.y, origin.y + sin * p.x + cos * p.y)


def bend(p: Points, curvature) -> Points:
    """Straightens a frame whose x axis is the parabola y = curvature * x**2."""
    return Points(p.x, p.y - curvature * p.x * jnp.abs(p.x))


def disc(p: Points, radius) -> Float[Array, "*shape"]:
    """A disc around the origin."""
    return jnp.sqrt(p.x**2 + p.y**2 + 1e-12) - radius


def ellipse(p: Points, rx, ry) -> Float[Array, "*shape"]:
    """An ellipse around the origin with half-axes rx and ry (first-order distance)."""
    x, y = p.x / rx, p.y / ry
    norm = jnp.sqrt(x**2 + y**2 + 1e-12)
    slope = jnp.sqrt((x / rx) ** 2 + (y / ry) ** 2 + 1e-12)
    return norm * (norm - 1) / slope


def taper(p: Points, end: Points, start_radius, end_radius) -> Float[Array, "*shape"]:
    """A capsule from the origin to `end` whose radius changes linearly on the way."""
    t = jnp.clip((p.x * end.x + p.y * end.y) / (end.x**2 + end.y**2), 0, 1)
    radius = start_radius + t * (end_radius - start_radius)
    return jnp.sqrt((p.x - t * end.x) ** 2 + (p.y - t * end.y) ** 2 + 1e-12) - radius


def blend(a, b, width) -> Float[Array, "*shape"]:
    """The union of two shapes with a fillet of the given width (polynomial smooth minimum)."""
    h = jax.nn.relu(width - jnp.abs(a - b)) / width
    return jnp.minimum(a, b) - h * h * width / 4
