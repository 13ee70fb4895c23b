"""All that is random about a picture of a bird, drawn before anything is painted."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

LEAVES = 3  # that may hang in front of the bird
BACKDROPS = 8  # palettes of the background, listed in `renderer`
_COLOURS = 8  # one for each part and two more on the body


class Chance(NamedTuple):
    """Numbers lie in [-1, 1] unless a comment gives another range."""

    pose: Float[Array, "14"]
    backdrop: Int[Array, ""]  # 0 … BACKDROPS - 1
    backdrop_colours: Float[Array, "3 3"]
    spots: Float[Array, "4 4"]  # [0, 1]
    perch: Float[Array, "4"]
    twig: Float[Array, "5"]  # [0, 1]
    leaves: Float[Array, "leaves 5"]  # [0, 1]
    foliage: Float[Array, "3"]
    light: Float[Array, "8"]
    noise: Float[Array, ""]  # [0, 1]
    colours: Float[Array, "8 3"]  # normal
    broad: Float[Array, "S S"]  # clouds of the background
    other: Float[Array, "S S"]  # and smaller ones
    dapples: Float[Array, "S S"]  # clouds of shade
    grain: Float[Array, "S S"]  # a fine texture on everything
    pixels: Float[Array, "S S"]  # independent from pixel to pixel


def draw(key: Array, size: int) -> Chance:
    """Draws a picture's numbers from its key."""
    # In few large blocks: each call of the generator takes its time to compile.
    k_pose, k_back, k_colour, k_noise, k_front, k_light, k_pixels = jax.random.split(key, 7)
    k_perch, k_grain = jax.random.fold_in(k_back, 1), jax.random.fold_in(k_colour, 1)
    k = _splits((k_back, k_front, k_light), 6)
    k_backdrop, k_tones, k_broad, k_other, k_spots, _ = k[0]
    k_twig, k_leaves, k_foliage, *_ = k[1]
    k_values, k_dapples, *_ = k[2]
    u = _uniforms(
        (k_pose, k_tones, k_spots, k_perch, k_twig, k_leaves, k_foliage, k_values, k_noise), 16
    )
    octaves = _splits((k_broad, k_other, k_dapples, k_grain), 4)
    broad, other, dapples = (2, 4, 8, 16), (3, 7, 13), (3, 6)
    coarse = _uniforms((*octaves[0], *octaves[1, :3], *octaves[2, :2]), 17 * 17)
    fine = _uniforms(octaves[3, :2], 56 * 56)
    return Chance(
        pose=2 * u[0, :14] - 1,
        backdrop=jax.random.randint(k_backdrop, (), 0, BACKDROPS),
        backdrop_colours=2 * u[1, :9].reshape(3, 3) - 1,
        spots=u[2].reshape(4, 4),
        perch=2 * u[3, :4] - 1,
        twig=u[4, :5],
        leaves=u[5, : 5 * LEAVES].reshape(LEAVES, 5),
        foliage=2 * u[6, :3] - 1,
        light=2 * u[7, :8] - 1,
        noise=u[8, 0],
        colours=jax.random.normal(k_colour, (_COLOURS, 3)),
        broad=_clouds(coarse[:4], size, broad, 0.45),
        other=_clouds(coarse[4:7], size, other, 0.5),
        dapples=_clouds(coarse[7:], size, dapples, 0.6),
        grain=_clouds(fine, size, (24, 55), 0.8),
        pixels=_pixel_noise(k_pixels, size),
    )


def _splits(keys, count: int):
    """Splits several keys at once: [len(keys), count]."""
    return jax.vmap(lambda key: jax.random.split(key, count))(jnp.stack(keys))


def _uniforms(keys, count: int) -> Float[Array, "keys count"]:
    """A row of `count` numbers in [0, 1) for each key."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(jnp.stack(keys))


def _pixel_noise(key, size: int) -> Float[Array, "S S"]:
    """Roughly normal noise with standard deviation 0.15: the mean of four random bytes."""
    words = jax.random.bits(key, (size, size), jnp.uint32)
    parts = (((words >> shift) & 255).astype(jnp.float32) for shift in (0, 8, 16, 24))
    total = sum(parts, jnp.zeros((size, size)))
    return 0.5 * (total / 510 - 1)


@lru_cache
def _interpolation(size: int, cells: int) -> np.ndarray:
    """Smooth interpolation of `cells` + 1 values to `size` pixels: float32 [size, cells + 1]."""
    at = (np.arange(size) + 0.5) / size * cells
    low = np.minimum(at.astype(int), cells - 1)
    t = at - low
    t = t * t * (3 - 2 * t)
    weights = np.zeros((size, cells + 1), np.float32)
    weights[np.arange(size), low] = 1 - t
    weights[np.arange(size), low + 1] += t
    return weights


def _clouds(nodes, size: int, octaves: tuple[int, ...], decay: float) -> Float[Array, "S S"]:
    """Value noise around 0 within about [-1, 1], summed over grids of `octaves` cells a side.

    `nodes` [octaves, at least (cells + 1)**2] are the values on the grids, in [0, 1].
    """
    total, amplitude = jnp.zeros((size, size)), 1.0
    for cells, values in zip(octaves, nodes, strict=True):
        weights = _interpolation(size, cells)
        grid = 2 * values[: (cells + 1) ** 2].reshape(cells + 1, cells + 1) - 1
        total = total + amplitude * (weights @ grid @ weights.T)
        amplitude *= decay
    return total
