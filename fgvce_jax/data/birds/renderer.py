"""Draws one bird: a pure function of a random key and a class, in JAX.

The picture is painted back to front with anti-aliased signed-distance shapes: background, perch,
tail, legs, crest, beak, body, wing, then leaves and twigs that may hide some of it, then light and
noise. Whatever is random depends on the key alone and never on the class, so with one key two
classes give two pictures that differ only where their parts differ.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.data.birds import species as sp
from fgvce_jax.data.birds.shapes import (
    Points,
    bend,
    blend,
    disc,
    ellipse,
    from_frame,
    taper,
    to_frame,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

KEYPOINT_NAMES = (
    "beak tip",
    "eye",
    "crest tip",
    "breast",
    "wing centre",
    "wing tip",
    "tail tip",
    "near foot",
    "far foot",
)

# Difficulty. Chances are per picture; strengths are the largest value that is drawn.
LEAF_CHANCE = 0.7  # each of LEAVES leaves in front of the bird
LEAVES = 3
TWIG_CHANCE = 0.35
ROTATION = 0.30  # radians, either way
HEAD_TILT = 0.35
COLOUR_JITTER = 0.06
LIGHT = 0.30  # change of brightness, of contrast and of the gradient across the picture
TINT = 0.10
SHADOW = 0.45
NOISE = 0.06

_BEAK, _CREST, _BODY, _WING, _TAIL, _LEGS = range(len(sp.PART_NAMES))
_NOTHING = -1

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

    image: Float[Array, "S S 3"]
    part_masks: Bool[Array, "M S S"]
    keypoints: Float[Array, "P 3"]


class Canvas(NamedTuple):
    """What is painted so far: colours [3, S, S] and, per pixel, the part seen there [S, S]."""

    rgb: Float[Array, "3 S S"]
    part: Int[Array, "S S"]

    def paint(self, alpha, rgb, part: int = _NOTHING) -> Canvas:
        """Puts a layer on top: opacity [S, S], colour [3, 1, 1] or [3, S, S]."""
        return Canvas(
            self.rgb + alpha * (rgb - self.rgb), jnp.where(alpha > 0.5, jnp.int32(part), self.part)
        )


class Pose(NamedTuple):
    """Where the bird's frame lies in the picture, and how its joints stand (lengths in bodies)."""

    centre: Points
    scale: Float[Array, ""]
    angle: Float[Array, ""]
    mirror: Float[Array, ""]
    pitch: Float[Array, ""]
    head: Points
    head_angle: Float[Array, ""]
    head_radius: Float[Array, ""]
    depth: Float[Array, ""]
    tail_angle: Float[Array, ""]
    wing_angle: Float[Array, ""]
    perch: Float[Array, ""]

    def to_pixels(self, p: Points) -> Points:
        """From the bird's frame to the picture."""
        flat = Points(self.scale * p.x * self.mirror, self.scale * p.y)
        return from_frame(flat, self.centre, self.angle)

    def from_pixels(self, p: Points) -> Points:
        """From the picture to the bird's frame."""
        flat = to_frame(p, self.centre, self.angle)
        return Points(flat.x * self.mirror / self.scale, flat.y / self.scale)


class Chance(NamedTuple):
    """All that is random about a picture, drawn before anything is painted.

    Numbers lie in [-1, 1] where the comment does not say otherwise.
    """

    pose: Float[Array, "14"]
    backdrop: Int[Array, ""]  # a row of _BACKDROPS
    backdrop_colours: Float[Array, "3 3"]
    spots: Float[Array, "4 4"]  # [0, 1]
    perch: Float[Array, "4"]
    twig: Float[Array, "5"]  # [0, 1]
    leaves: Float[Array, "leaves 5"]  # [0, 1]
    foliage: Float[Array, "3"]
    light: Float[Array, "8"]
    noise: Float[Array, ""]  # [0, 1]
    colours: Float[Array, "8 3"]  # normal
    broad: Float[Array, "S S"]
    other: Float[Array, "S S"]
    dapples: Float[Array, "S S"]
    grain: Float[Array, "S S"]
    pixels: Float[Array, "S S"]


def _draw(key, size: int) -> Chance:
    # Numbers are drawn in few large blocks: each call of the generator costs compile time.
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
        backdrop=jax.random.randint(k_backdrop, (), 0, len(_BACKDROPS)),
        backdrop_colours=2 * u[1, :9].reshape(3, 3) - 1,
        spots=u[2].reshape(4, 4),
        perch=2 * u[3, :4] - 1,
        twig=u[4, :5],
        leaves=u[5, : 5 * LEAVES].reshape(LEAVES, 5),
        foliage=2 * u[6, :3] - 1,
        light=2 * u[7, :8] - 1,
        noise=u[8, 0],
        colours=jax.random.normal(k_colour, (len(sp.PART_NAMES) + 2, 3)),
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
    total = sum(((words >> shift) & 255).astype(jnp.float32) for shift in (0, 8, 16, 24))
    return 0.5 * (total / 510 - 1)


def _pose(u: Float[Array, "14"], size: int) -> Pose:
    scale = size * (0.42 + 0.055 * u[0])
    pitch = -0.22 + 0.22 * u[1]
    head = from_frame(Points(0.40 + 0.03 * u[2], -0.33 + 0.05 * u[3]), Points(0.0, 0.0), pitch)
    return Pose(
        centre=Points(size * (0.5 + 0.07 * u[4]), size * (0.5 + 0.06 * u[5])),
        scale=scale,
        angle=0.5 * ROTATION * u[6],
        mirror=jnp.sign(u[7]),
        pitch=pitch,
        head=head,
        head_angle=HEAD_TILT * u[8],
        head_radius=0.225 + 0.02 * u[9],
        depth=0.36 + 0.035 * u[10],
        tail_angle=np.pi - 0.10 + pitch + 0.22 * u[11],
        wing_angle=np.pi - 0.12 + pitch + 0.10 * u[12],
        perch=0.70 + 0.03 * u[13],
    )


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
    total, amplitude = 0.0, 1.0
    for cells, values in zip(octaves, nodes, strict=True):
        weights = _interpolation(size, cells)
        grid = 2 * values[: (cells + 1) ** 2].reshape(cells + 1, cells + 1) - 1
        total = total + amplitude * (weights @ grid @ weights.T)
        amplitude *= decay
    return total


def _ramp(x, low, high):
    """0 below `low`, 1 above `high`, smooth between."""
    t = jnp.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _mix(a, b, t):
    return a + t * (b - a)


def _plane(colour) -> Float[Array, "3 1 1"]:
    return jnp.asarray(colour)[:, None, None]


def _backdrop(chance: Chance, pixel: Points, size: int) -> Float[Array, "3 S S"]:
    """An out-of-focus background: three colours mixed by noise, and a few soft lights."""
    colours = jnp.asarray(_BACKDROPS)[chance.backdrop] + 0.08 * chance.backdrop_colours
    height = pixel.y / size - 0.5
    rgb = _mix(
        _plane(colours[0]), _plane(colours[1]), _ramp(chance.broad + 1.2 * height, -0.7, 0.8)
    )
    rgb = _mix(rgb, _plane(colours[2]), 0.7 * _ramp(chance.other, 0.15, 0.9))
    for u in chance.spots:
        spot = Points(pixel.x - size * u[0], pixel.y - size * u[1])
        glow = 0.22 * u[3] * _ramp(-disc(spot, size * (0.05 + 0.10 * u[2])), -0.01 * size, 1.0)
        rgb = _mix(rgb, _plane(colours[2]) * 1.15, glow)
    return rgb


def _feathers(p: Points, pitch) -> Float[Array, "S S"]:
    """A faint pattern of overlapping feathers, around 0."""
    return jnp.sin(p.x * pitch + 2.2 * jnp.sin(p.y * pitch * 0.8)) * jnp.sin(p.y * pitch)


def _volume(distance, height) -> Float[Array, "S S"]:
    """Shading of a rounded body lit from above: `height` runs from -1 (top) to 1 (bottom)."""
    edge = jnp.clip(1 + distance / 0.10, 0, 1)
    return (1.06 - 0.16 * height) * (1 - 0.22 * edge * edge)


def render(key: Array, label: Int[Array, ""] | int, size: int = 112) -> Rendered:
    """Draws a bird of class `label` (0 … 49); everything else about the picture comes from `key`.

    Written for one sample: `vmap` it over keys and labels. `size` is static.
    """
    chance = _draw(key, size)
    kinds = jnp.asarray(np.array(sp.CLASSES, np.int32))[label]

    def of(part: int, rows, field: str):
        return jnp.asarray(sp.table(rows, field))[kinds[part]]

    grid = jnp.arange(size, dtype=jnp.float32) + 0.5
    pixel = Points(*jnp.meshgrid(grid, grid, indexing="xy"))
    pose = _pose(chance.pose, size)
    p = pose.from_pixels(pixel)
    jitter, grain = COLOUR_JITTER * chance.colours, chance.grain

    def colour(part: int, rgb):
        return _plane(rgb + jitter[part])

    def cover(distance):
        """Opacity of a shape: its edge is one pixel wide."""
        return jnp.clip(0.5 - distance * pose.scale, 0, 1)

    canvas = Canvas(_backdrop(chance, pixel, size), jnp.full((size, size), _NOTHING, jnp.int32))

    # Perch: a branch under the feet, crossing the whole picture.
    u = chance.perch
    thickness = 0.085 + 0.03 * u[0]
    branch = bend(to_frame(p, Points(0.05, pose.perch + thickness), 0.08 * u[1]), 0.05 * u[2])
    furrows = 0.12 * grain + 0.06 * jnp.sin(60 * branch.y + 9 * branch.x)
    bark = _plane(jnp.array([0.42, 0.32, 0.24]) + 0.08 * u[3])
    canvas = canvas.paint(
        cover(jnp.abs(branch.y) - thickness * (1 - 0.1 * branch.x)),
        bark * (1.1 - 0.25 * branch.y / thickness + furrows),
    )

    # Tail.
    rump = from_frame(Points(-0.40, 0.0), Points(0.0, 0.0), pose.pitch)
    t = to_frame(p, rump, pose.tail_angle)
    end = Points(of(_TAIL, sp.TAILS, "length"), of(_TAIL, sp.TAILS, "spread"))
    cut = of(_TAIL, sp.TAILS, "cut")
    folded = Points(t.x, jnp.abs(t.y))
    tail = taper(folded, end, of(_TAIL, sp.TAILS, "base"), of(_TAIL, sp.TAILS, "tip"))
    tail = jnp.maximum(tail, t.x - cut)
    barbs = 0.92 + 0.10 * jnp.sin(t.y * 75) + 0.10 * grain + 0.25 * _ramp(t.x, 0.3, 0.7)
    canvas = canvas.paint(
        cover(tail), colour(_TAIL, np.array(sp.TAIL_COLOUR)) * barbs * _volume(tail, 0.0), _TAIL
    )
    tail_tip = from_frame(Points(jnp.minimum(end.x, cut) - 0.03, end.y), rump, pose.tail_angle)

    # Legs: the far one is darker; both end on the perch with two toes.
    rings = of(_LEGS, sp.LEGS, "rings")
    feet = []
    for near, (hip_x, foot_x) in enumerate(((0.10, 0.16), (-0.10, -0.04))):
        hip, foot = Points(hip_x, 0.22), Points(foot_x, pose.perch)
        q = Points(p.x - hip.x, p.y - hip.y)
        span = Points(foot.x - hip.x, foot.y - hip.y)
        shank = taper(q, span, of(_LEGS, sp.LEGS, "hip"), of(_LEGS, sp.LEGS, "ankle"))
        s = Points(p.x - foot.x, p.y - foot.y)
        toes = taper(Points(s.x + 0.09, s.y - 0.01), Points(0.23, 0.01), 0.030, 0.034)
        leg = jnp.minimum(shank, toes)
        ringed = rings * (jnp.sin(q.y * 52) > 0.1) * (q.y < span.y - 0.03)
        shade = (0.82 + 0.18 * near) * _volume(leg, -1.5 * s.x)
        rgb = _mix(colour(_LEGS, of(_LEGS, sp.LEGS, "colour")), _plane([0.18, 0.16, 0.18]), ringed)
        canvas = canvas.paint(cover(leg), rgb * shade, _LEGS)
        feet.append(Points(foot.x, foot.y))

    # Crest and beak grow out of the head, which is painted over their bases.
    h = to_frame(p, pose.head, pose.head_angle)
    crest_angle = of(_CREST, sp.CRESTS, "angle")
    crown = Points(-0.05, -0.75 * pose.head_radius)
    crest_length, crest_curve = of(_CREST, sp.CRESTS, "length"), of(_CREST, sp.CRESTS, "curvature")
    c = bend(to_frame(h, crown, crest_angle), crest_curve)
    crest_tip_radius = of(_CREST, sp.CRESTS, "tip")
    crest = taper(c, Points(crest_length, 0.0), of(_CREST, sp.CRESTS, "base"), crest_tip_radius)
    strands = 1.0 + 0.10 * jnp.sin(c.y * 70) + 0.10 * grain
    canvas = canvas.paint(
        cover(crest),
        colour(_CREST, of(_CREST, sp.CRESTS, "colour")) * strands * _volume(crest, 0.0),
        _CREST,
    )
    tuft = Points(crest_length - 0.01, crest_curve * (crest_length - 0.01) ** 2)
    crest_tip = from_frame(from_frame(tuft, crown, crest_angle), pose.head, pose.head_angle)

    beak_root = Points(0.72 * pose.head_radius, 0.03)
    beak_length, beak_curve = of(_BEAK, sp.BEAKS, "length"), of(_BEAK, sp.BEAKS, "curvature")
    b = bend(Points(h.x - beak_root.x, h.y - beak_root.y), beak_curve)
    beak = taper(
        b, Points(beak_length, 0.0), of(_BEAK, sp.BEAKS, "base"), of(_BEAK, sp.BEAKS, "tip")
    )
    gape = 1.0 - 0.40 * (1 - _ramp(jnp.abs(b.y - 0.012), 0.006, 0.03)) * (b.x < 0.8 * beak_length)
    canvas = canvas.paint(
        cover(beak),
        colour(_BEAK, of(_BEAK, sp.BEAKS, "colour")) * gape * _volume(beak, 6 * b.y),
        _BEAK,
    )
    nib = beak_length - 0.01
    beak_tip = from_frame(
        Points(beak_root.x + nib, beak_root.y + beak_curve * nib**2), pose.head, pose.head_angle
    )

    # Body and head.
    a = to_frame(p, Points(0.0, 0.0), pose.pitch)
    trunk = taper(Points(a.x - 0.14, a.y - 0.02), Points(-0.50, 0.0), pose.depth, 0.13)
    skull = disc(h, pose.head_radius)
    body = blend(trunk, skull, 0.22)
    under = _ramp(a.y + 0.35 * a.x, 0.0, 0.26)
    rgb = _mix(
        colour(_BODY, of(_BODY, sp.BODIES, "back")),
        _plane(of(_BODY, sp.BODIES, "belly") + jitter[-1]),
        under,
    )
    hood = _ramp(-h.y - 0.2 * h.x, -0.02, 0.05) * _ramp(-skull, -0.12, -0.02)
    rgb = _mix(rgb, _plane(of(_BODY, sp.BODIES, "crown") + jitter[-2]), hood)
    plumage = 1.0 + 0.05 * _feathers(a, 34.0) + 0.10 * grain
    canvas = canvas.paint(cover(body), rgb * plumage * _volume(body, a.y / pose.depth), _BODY)
    breast = from_frame(Points(0.34, 0.16), Points(0.0, 0.0), pose.pitch)

    # Eye.
    eye_at = Points(0.32 * pose.head_radius, -0.16 * pose.head_radius)
    e = Points(h.x - eye_at.x, h.y - eye_at.y)
    canvas = canvas.paint(cover(disc(e, 0.066)), _plane([0.95, 0.93, 0.88]), _BODY)
    canvas = canvas.paint(cover(disc(e, 0.052)), _plane([0.06, 0.05, 0.06]), _BODY)
    glint = Points(e.x - 0.016, e.y + 0.018)
    canvas = canvas.paint(cover(disc(glint, 0.017)), _plane([1.0, 1.0, 1.0]), _BODY)
    eye = from_frame(eye_at, pose.head, pose.head_angle)

    # Folded wing: one outline for all classes, four patterns.
    shoulder = from_frame(Points(0.13, -0.05), Points(0.0, 0.0), pose.pitch)
    w = bend(to_frame(p, shoulder, pose.wing_angle), -0.10)
    wing = taper(w, Points(0.60, 0.0), 0.205, 0.03)
    width = 0.205 - 0.29 * jnp.clip(w.x, 0, 0.6)
    quills = 1.05 + 0.16 * jnp.sin(w.y / width * 9.0) * _ramp(w.x, 0.05, 0.3) + 0.10 * grain
    bars = _ramp(jnp.sin(w.x * 36.0 - 3.5 * jnp.abs(w.y) / 0.2), 0.15, 0.5) * _ramp(w.x, -0.06, 0.0)
    row = jnp.round((w.x + 0.02) / 0.135)
    shifted = w.y + 0.0675 * (row % 2)
    dot = Points(w.x + 0.02 - 0.135 * row, shifted - 0.135 * jnp.round(shifted / 0.135))
    spots = 1 - _ramp(disc(dot, 0.043), -0.008, 0.012)
    patch = 1 - _ramp(ellipse(Points(w.x - 0.10, w.y), 0.17, 0.115), -0.01, 0.02)
    pattern = (
        of(_WING, sp.WINGS, "bars") * bars
        + of(_WING, sp.WINGS, "spots") * spots
        + of(_WING, sp.WINGS, "patch") * patch
    )
    rgb = _mix(
        colour(_WING, np.array(sp.WING_COLOUR)) * quills,
        colour(_WING, of(_WING, sp.WINGS, "colour")),
        pattern,
    )
    canvas = canvas.paint(cover(wing), rgb * _volume(wing, -w.y / 0.2), _WING)
    wing_centre = from_frame(Points(0.20, -0.10 * 0.04), shoulder, pose.wing_angle)
    wing_tip = from_frame(Points(0.58, -0.10 * 0.58**2), shoulder, pose.wing_angle)

    canvas = _foreground(chance, canvas, pixel, pose, size)
    rgb = _light(chance, canvas.rgb, pixel, size) + NOISE * chance.noise * chance.pixels

    points = (beak_tip, eye, crest_tip, breast, wing_centre, wing_tip, tail_tip, feet[1], feet[0])
    owners = (_BEAK, _BODY, _CREST, _BODY, _WING, _WING, _TAIL, _LEGS, _LEGS)
    return Rendered(
        image=jnp.clip(jnp.moveaxis(rgb, 0, -1), 0, 1),
        part_masks=canvas.part == jnp.arange(len(sp.PART_NAMES))[:, None, None],
        keypoints=_keypoints(canvas.part, [pose.to_pixels(q) for q in points], owners),
    )


def _foreground(chance: Chance, canvas: Canvas, pixel: Points, pose: Pose, size: int) -> Canvas:
    """Leaves and a twig between the bird and the viewer."""
    green = jnp.array([0.36, 0.52, 0.22]) + jnp.array([0.16, 0.04, 0.04]) * chance.foliage

    u = chance.twig
    there = u[0] < TWIG_CHANCE
    at = Points(size * (0.2 + 0.6 * u[1]), size * (0.2 + 0.6 * u[2]))
    twig = bend(to_frame(pixel, at, np.pi * u[3]), (u[4] - 0.5) * 0.6 / size)
    thickness = size * 0.016 * (1 + 0.4 * jnp.sin(0.08 * twig.x))
    shade = 1.15 - 0.3 * twig.y / (0.02 * size) + 0.15 * chance.grain
    canvas = canvas.paint(
        there * jnp.clip(0.5 - (jnp.abs(twig.y) - thickness), 0, 1),
        _plane([0.38, 0.29, 0.20]) * shade,
    )
    for u in chance.leaves:
        at = Points(
            pose.centre.x + pose.scale * 1.7 * (u[1] - 0.5),
            pose.centre.y + pose.scale * 1.5 * (u[2] - 0.5),
        )
        q = to_frame(pixel, at, 2 * np.pi * u[3])
        length = size * (0.12 + 0.06 * u[4])
        # A leaf is the lens where two discs overlap.
        lens = disc(Points(q.x, jnp.abs(q.y) + 0.8 * length), 1.28 * length)
        veins = 0.08 * jnp.sin(q.x * 1.6 + jnp.abs(q.y))
        blade = 0.75 + 0.25 * _ramp(jnp.abs(q.y), 0.2, 1.0) + veins + 0.08 * chance.grain
        canvas = canvas.paint(
            (u[0] < LEAF_CHANCE) * jnp.clip(0.5 - lens, 0, 1),
            _plane(green * (0.8 + 0.5 * u[4])) * blade,
        )
    return canvas


def _light(chance: Chance, rgb, pixel: Points, size: int) -> Float[Array, "3 S S"]:
    """Brightness, contrast, tint, a gradient across the picture and dappled shade."""
    u = chance.light
    across = ((pixel.x / size - 0.5) * u[0] + (pixel.y / size - 0.5) * u[1]) * 2 * LIGHT
    shade = 1 - SHADOW * jnp.abs(u[2]) * _ramp(chance.dapples, 0.1, 0.6)
    gain = (1 + LIGHT * u[3] * 0.8 + across) * shade
    tint = _plane(1 + TINT * u[4:7])
    return ((rgb - 0.5) * (1 + 0.6 * LIGHT * u[7]) + 0.5) * gain * tint


def _keypoints(part, points, owners) -> Float[Array, "P 3"]:
    """Points with visibility: 1 where the pixel under the point shows the part it belongs to."""
    size = part.shape[0]
    xy = jnp.stack([jnp.stack([q.x, q.y]) for q in points])
    inside = jnp.all((xy >= 0) & (xy < size), axis=1)
    column, row = jnp.clip(xy.astype(jnp.int32), 0, size - 1).T
    seen = inside & (part[row, column] == jnp.asarray(owners))
    return jnp.concatenate([xy, seen[:, None]], axis=1)
