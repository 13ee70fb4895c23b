"""Draws one bird: a pure function of a random key and a class, in JAX.

The picture is painted back to front with anti-aliased signed-distance shapes: background, perch,
the parts of the bird, then leaves and a twig that may hide some of it, then light and noise.
Whatever is random depends on the key alone, never on the class or on the parts that are shown. So
with one key two classes give two pictures that differ only where their parts differ, and a picture
without a part differs from the whole one only where that part was seen.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.data.birds import parts
from fgvce_jax.data.birds.canvas import NOTHING, Canvas, mix, plane, ramp
from fgvce_jax.data.birds.chance import Chance, draw
from fgvce_jax.data.birds.shapes import Points, bend, disc, to_frame
from fgvce_jax.data.birds.species import CLASSES, PART_NAMES

KEYPOINT_NAMES = tuple(parts.KEYPOINTS)

# Difficulty, together with the poses in `parts`.
LEAF_CHANCE = 0.7  # of each leaf in front of the bird
TWIG_CHANCE = 0.35
COLOUR_JITTER = 0.06  # standard deviation of the parts' colours
LIGHT = 0.30  # scales brightness, contrast and the gradient across the picture
TINT = 0.10  # largest change of a channel
SHADOW = 0.45  # of the darkest dapples
NOISE = 0.06

_PAINTERS = (  # back to front, each with the part it paints
    (parts.TAIL, parts.paint_tail),
    (parts.LEGS, parts.paint_legs),
    (parts.CREST, parts.paint_crest),
    (parts.BEAK, parts.paint_beak),
    (parts.BODY, parts.paint_body),
    (parts.BODY, parts.paint_eye),
    (parts.WING, parts.paint_wing),
)

_BACKDROPS = np.array(
    [  # far, near and accent colour
        [[0.55, 0.68, 0.42], [0.30, 0.44, 0.24], [0.80, 0.82, 0.55]],  # meadow
        [[0.62, 0.76, 0.88], [0.84, 0.90, 0.94], [0.46, 0.60, 0.52]],  # sky
        [[0.66, 0.56, 0.42], [0.42, 0.34, 0.26], [0.84, 0.72, 0.50]],  # autumn
        [[0.24, 0.36, 0.30], [0.12, 0.20, 0.18], [0.48, 0.56, 0.34]],  # deep forest
        [[0.72, 0.74, 0.74], [0.54, 0.57, 0.60], [0.88, 0.88, 0.86]],  # fog
        [[0.78, 0.66, 0.70], [0.52, 0.56, 0.44], [0.92, 0.82, 0.84]],  # blossom
        [[0.36, 0.50, 0.62], [0.22, 0.34, 0.44], [0.62, 0.72, 0.74]],  # lake
        [[0.86, 0.74, 0.56], [0.70, 0.50, 0.40], [0.96, 0.88, 0.70]],  # evening
    ],
    np.float32,
)


class Rendered(NamedTuple):
    """One picture and what is known about it.

    image: float32 [S, S, 3] in [0, 1]. part_masks: bool [M, S, S], the visible pixels of each part.
    keypoints: float32 [P, 3], x and y in pixels (pixel centres at half integers) and 1 where the
    point can be seen, 0 where it is hidden, outside the picture or absent.
    """

    image: Float[Array | np.ndarray, "S S 3"]
    part_masks: Bool[Array | np.ndarray, "M S S"]
    keypoints: Float[Array | np.ndarray, "P 3"]


def render(
    key: Array,
    label: Int[Array, ""] | int,
    size: int = 112,
    *,
    shown: Bool[Array, "M"] | None = None,
) -> Rendered:
    """Draws a bird of class `label`; everything else about the picture comes from `key`.

    Written for one sample: `vmap` it over keys, labels and parts.

    Args:
        key: Of the picture.
        label: 0 … 49.
        size: Side of the picture in pixels; static.
        shown: The parts that are painted, in the order of `PART_NAMES`; by default all of them. In
            the place of a part left out is whatever lies behind it: other parts (the eye goes with
            the body), the perch, the background.
    """
    shown = jnp.ones(len(PART_NAMES), bool) if shown is None else shown
    chance = draw(key, size)
    grid = jnp.arange(size, dtype=jnp.float32) + 0.5
    pixel = Points(*jnp.meshgrid(grid, grid, indexing="xy"))
    pose = parts.take_pose(chance.pose, size)
    scene = parts.Scene(
        place=pose.from_pixels(pixel),
        pose=pose,
        kinds=jnp.asarray(np.array(CLASSES, np.int32))[label],
        jitter=COLOUR_JITTER * chance.colours,
        grain=chance.grain,
    )
    canvas = Canvas(_backdrop(chance, pixel, size), jnp.full((size, size), NOTHING, jnp.int32))
    canvas = _perch(canvas, scene, chance)
    points = {}
    for part, paint in _PAINTERS:
        painted, more = paint(canvas, scene)
        canvas = jax.tree.map(partial(jnp.where, shown[part]), painted, canvas)
        points |= more
    canvas = _twig(canvas, chance, pixel, size)
    canvas = _leaves(canvas, chance, pixel, pose, size)
    rgb = _light(chance, canvas.rgb, pixel, size) + NOISE * chance.noise * chance.pixels
    return Rendered(
        image=jnp.clip(jnp.moveaxis(rgb, 0, -1), 0, 1),
        part_masks=canvas.part == jnp.arange(len(PART_NAMES))[:, None, None],
        keypoints=_keypoints(
            canvas.part, {name: pose.to_pixels(point) for name, point in points.items()}
        ),
    )


def _backdrop(chance: Chance, pixel: Points, size: int) -> Float[Array, "3 S S"]:
    """An out-of-focus background: three colours mixed by noise, and a few soft lights."""
    colours = jnp.asarray(_BACKDROPS)[chance.backdrop] + 0.08 * chance.backdrop_colours
    height = pixel.y / size - 0.5
    rgb = mix(plane(colours[0]), plane(colours[1]), ramp(chance.broad + 1.2 * height, -0.7, 0.8))
    rgb = mix(rgb, plane(colours[2]), 0.7 * ramp(chance.other, 0.15, 0.9))
    for u in chance.spots:
        spot = Points(pixel.x - size * u[0], pixel.y - size * u[1])
        glow = 0.22 * u[3] * ramp(-disc(spot, size * (0.05 + 0.10 * u[2])), -0.01 * size, 1.0)
        rgb = mix(rgb, plane(colours[2]) * 1.15, glow)
    return rgb


def _perch(canvas: Canvas, scene: parts.Scene, chance: Chance) -> Canvas:
    """A branch under the feet, across the whole picture."""
    u = chance.perch
    thickness = 0.085 + 0.03 * u[0]
    top = Points(0.05, scene.pose.perch + thickness)
    branch = bend(to_frame(scene.place, top, 0.08 * u[1]), 0.05 * u[2])
    furrows = 0.12 * scene.grain + 0.06 * jnp.sin(60 * branch.y + 9 * branch.x)
    bark = plane(jnp.array([0.42, 0.32, 0.24]) + 0.08 * u[3])
    return canvas.paint(
        scene.cover(jnp.abs(branch.y) - thickness * (1 - 0.1 * branch.x)),
        bark * (1.1 - 0.25 * branch.y / thickness + furrows),
    )


def _twig(canvas: Canvas, chance: Chance, pixel: Points, size: int) -> Canvas:
    """Perhaps a thin bent twig in front of the bird."""
    u, unit = chance.twig, size / 112
    at = Points(size * (0.2 + 0.6 * u[1]), size * (0.2 + 0.6 * u[2]))
    twig = bend(to_frame(pixel, at, np.pi * u[3]), (u[4] - 0.5) * 0.6 / size)
    thickness = size * 0.016 * (1 + 0.4 * jnp.sin(0.08 / unit * twig.x))
    shade = 1.15 - 0.3 * twig.y / (0.02 * size) + 0.15 * chance.grain
    return canvas.paint(
        (u[0] < TWIG_CHANCE) * jnp.clip(0.5 - (jnp.abs(twig.y) - thickness), 0, 1),
        plane([0.38, 0.29, 0.20]) * shade,
    )


def _leaves(canvas: Canvas, chance: Chance, pixel: Points, pose: parts.Pose, size: int) -> Canvas:
    """Perhaps some leaves in front of the bird, anywhere on it."""
    green = jnp.array([0.36, 0.52, 0.22]) + jnp.array([0.16, 0.04, 0.04]) * chance.foliage
    unit = size / 112
    for u in chance.leaves:
        at = Points(
            pose.centre.x + pose.scale * 1.7 * (u[1] - 0.5),
            pose.centre.y + pose.scale * 1.5 * (u[2] - 0.5),
        )
        q = to_frame(pixel, at, 2 * np.pi * u[3])
        length = size * (0.12 + 0.06 * u[4])
        # A leaf is the lens where two discs overlap.
        lens = disc(Points(q.x, jnp.abs(q.y) + 0.8 * length), 1.28 * length)
        veins = 0.08 * jnp.sin(1.6 / unit * q.x + jnp.abs(q.y) / unit)
        midrib = 0.25 * ramp(jnp.abs(q.y), 0.2 * unit, 1.0 * unit)
        blade = 0.75 + midrib + veins + 0.08 * chance.grain
        canvas = canvas.paint(
            (u[0] < LEAF_CHANCE) * jnp.clip(0.5 - lens, 0, 1),
            plane(green * (0.8 + 0.5 * u[4])) * blade,
        )
    return canvas


def _light(chance: Chance, rgb, pixel: Points, size: int) -> Float[Array, "3 S S"]:
    """Brightness, contrast, tint, a gradient across the picture and dappled shade."""
    u = chance.light
    across = ((pixel.x / size - 0.5) * u[0] + (pixel.y / size - 0.5) * u[1]) * 2 * LIGHT
    shade = 1 - SHADOW * jnp.abs(u[2]) * ramp(chance.dapples, 0.1, 0.6)
    gain = (1 + LIGHT * u[3] * 0.8 + across) * shade
    tint = plane(1 + TINT * u[4:7])
    return ((rgb - 0.5) * (1 + 0.6 * LIGHT * u[7]) + 0.5) * gain * tint


def _keypoints(part, points: dict[str, Points]) -> Float[Array, "P 3"]:
    """Points with visibility: 1 where the pixel under the point shows the part it belongs to."""
    size = part.shape[0]
    xy = jnp.stack([jnp.stack([points[name].x, points[name].y]) for name in KEYPOINT_NAMES])
    inside = jnp.all((xy >= 0) & (xy < size), axis=1)
    column, row = jnp.clip(xy.astype(jnp.int32), 0, size - 1).T
    seen = inside & (part[row, column] == jnp.array(list(parts.KEYPOINTS.values())))
    return jnp.concatenate([xy, seen[:, None]], axis=1)
