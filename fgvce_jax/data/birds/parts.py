"""The parts of a bird, each painted by one function of the canvas and the scene.

A painter returns the canvas with its part on top and the keypoints it knows, in the bird's frame:
origin in the middle of the body, the head towards +x, +y downwards, the body about 1 long.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fgvce_jax.data.birds import species as sp
from fgvce_jax.data.birds.canvas import Canvas, mix, plane, ramp
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

ROTATION = 0.15  # of the whole bird, radians either way
HEAD_TILT = 0.35  # radians either way

BEAK, CREST, BODY, WING, TAIL, LEGS = range(len(sp.PART_NAMES))
BELLY, CROWN = -1, -2  # colours on the body that vary on their own

KEYPOINTS = {  # and the part on which each lies
    "beak tip": BEAK,
    "eye": BODY,
    "crest tip": CREST,
    "breast": BODY,
    "wing centre": WING,
    "wing tip": WING,
    "tail tip": TAIL,
    "near foot": LEGS,
    "far foot": LEGS,
}
_ORIGIN = Points(0.0, 0.0)


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

    def on_body(self, x: float, y: float) -> Points:
        """A place on the pitched body, in the bird's frame."""
        return from_frame(Points(x, y), _ORIGIN, self.pitch)

    def on_head(self, p: Points) -> Points:
        """A place on the tilted head, in the bird's frame."""
        return from_frame(p, self.head, self.head_angle)


def take_pose(u: Float[Array, "14"], size: int) -> Pose:
    """A pose from numbers in [-1, 1]."""
    scale = size * (0.42 + 0.055 * u[0])
    pitch = -0.22 + 0.22 * u[1]
    head = from_frame(Points(0.40 + 0.03 * u[2], -0.33 + 0.05 * u[3]), _ORIGIN, pitch)
    return Pose(
        centre=Points(size * (0.5 + 0.07 * u[4]), size * (0.5 + 0.06 * u[5])),
        scale=scale,
        angle=ROTATION * u[6],
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


class Scene(NamedTuple):
    """The painters' inputs: where the bird is, of which class, in which light and colours."""

    place: Points  # of every pixel, in the bird's frame
    pose: Pose
    kinds: Int[Array, "M"]  # the row of each part's table
    jitter: Float[Array, "8 3"]  # added to the parts' colours
    grain: Float[Array, "S S"]

    def of(self, part: int, rows, field: str) -> Float[Array, "..."]:
        """A field of the variant that this bird has of a part."""
        return jnp.asarray(sp.table(rows, field))[self.kinds[part]]

    def colour(self, part: int, rgb) -> Float[Array, "3 1 1"]:
        """A part's colour as it is in this picture."""
        return plane(rgb + self.jitter[part])

    def cover(self, distance) -> Float[Array, "S S"]:
        """Opacity of a shape in the bird's frame: its edge is one pixel wide."""
        return jnp.clip(0.5 - distance * self.pose.scale, 0, 1)

    def head(self) -> Points:
        """Of every pixel, its place in the head's frame."""
        return to_frame(self.place, self.pose.head, self.pose.head_angle)


def paint_tail(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """Two mirrored feathers behind the rump."""
    pose = scene.pose
    rump = pose.on_body(-0.40, 0.0)
    t = to_frame(scene.place, rump, pose.tail_angle)
    end = Points(scene.of(TAIL, sp.TAILS, "length"), scene.of(TAIL, sp.TAILS, "spread"))
    base, tip = scene.of(TAIL, sp.TAILS, "base"), scene.of(TAIL, sp.TAILS, "tip")
    cut = scene.of(TAIL, sp.TAILS, "cut")
    tail = jnp.maximum(taper(Points(t.x, jnp.abs(t.y)), end, base, tip), t.x - cut)
    barbs = 0.92 + 0.10 * jnp.sin(t.y * 75) + 0.10 * scene.grain + 0.25 * ramp(t.x, 0.3, 0.7)
    rgb = scene.colour(TAIL, np.array(sp.TAIL_COLOUR)) * barbs * _volume(tail, 0.0)
    at = Points(jnp.minimum(end.x, cut) - 0.03, end.y)
    tip = from_frame(at, rump, pose.tail_angle)
    return canvas.paint(scene.cover(tail), rgb, TAIL), {"tail tip": tip}


def paint_legs(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """The far leg, in shade, then the near one; both end on the perch with a toe either way."""
    keypoints = {}
    for name, hip_x, foot_x, light in (
        ("far foot", 0.10, 0.16, 0.82),
        ("near foot", -0.10, -0.04, 1.0),
    ):
        hip, foot = Points(hip_x, 0.22), Points(foot_x, scene.pose.perch)
        q = Points(scene.place.x - hip.x, scene.place.y - hip.y)
        s = Points(scene.place.x - foot.x, scene.place.y - foot.y)
        span = Points(foot.x - hip.x, foot.y - hip.y)
        shank = taper(q, span, scene.of(LEGS, sp.LEGS, "hip"), scene.of(LEGS, sp.LEGS, "ankle"))
        toes = taper(Points(s.x + 0.09, s.y - 0.01), Points(0.23, 0.01), 0.030, 0.034)
        leg = jnp.minimum(shank, toes)
        rings = (jnp.sin(q.y * 52) > 0.1) * (q.y < span.y - 0.03)
        rgb = mix(
            scene.colour(LEGS, scene.of(LEGS, sp.LEGS, "colour")),
            plane([0.18, 0.16, 0.18]),
            scene.of(LEGS, sp.LEGS, "rings") * rings,
        )
        shade = light * _volume(leg, -1.5 * s.x)
        canvas = canvas.paint(scene.cover(leg), rgb * shade, LEGS)
        keypoints[name] = foot
    return canvas, keypoints


def paint_crest(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """A plume whose base the head will cover."""
    length, curve = scene.of(CREST, sp.CRESTS, "length"), scene.of(CREST, sp.CRESTS, "curvature")
    base, tip = scene.of(CREST, sp.CRESTS, "base"), scene.of(CREST, sp.CRESTS, "tip")
    angle = scene.of(CREST, sp.CRESTS, "angle")
    crown = Points(-0.05, -0.75 * scene.pose.head_radius)
    c = bend(to_frame(scene.head(), crown, angle), curve)
    crest = taper(c, Points(length, 0.0), base, tip)
    strands = 1.0 + 0.10 * jnp.sin(c.y * 70) + 0.10 * scene.grain
    rgb = scene.colour(CREST, scene.of(CREST, sp.CRESTS, "colour")) * strands * _volume(crest, 0.0)
    reach = length - 0.01
    top = scene.pose.on_head(from_frame(Points(reach, curve * reach**2), crown, angle))
    return canvas.paint(scene.cover(crest), rgb, CREST), {"crest tip": top}


def paint_beak(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """A cone whose root the head will cover, with the line of the mouth."""
    length, curve = scene.of(BEAK, sp.BEAKS, "length"), scene.of(BEAK, sp.BEAKS, "curvature")
    base, tip = scene.of(BEAK, sp.BEAKS, "base"), scene.of(BEAK, sp.BEAKS, "tip")
    root = Points(0.72 * scene.pose.head_radius, 0.03)
    h = scene.head()
    b = bend(Points(h.x - root.x, h.y - root.y), curve)
    beak = taper(b, Points(length, 0.0), base, tip)
    gape = 1.0 - 0.40 * (1 - ramp(jnp.abs(b.y - 0.012), 0.006, 0.03)) * (b.x < 0.8 * length)
    rgb = scene.colour(BEAK, scene.of(BEAK, sp.BEAKS, "colour")) * gape * _volume(beak, 6 * b.y)
    reach = length - 0.01
    nib = scene.pose.on_head(Points(root.x + reach, root.y + curve * reach**2))
    return canvas.paint(scene.cover(beak), rgb, BEAK), {"beak tip": nib}


def paint_body(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """Trunk and head in one: dark above, light below, a hood on the crown."""
    pose = scene.pose
    a, h = to_frame(scene.place, _ORIGIN, pose.pitch), scene.head()
    trunk = taper(Points(a.x - 0.14, a.y - 0.02), Points(-0.50, 0.0), pose.depth, 0.13)
    skull = disc(h, pose.head_radius)
    body = blend(trunk, skull, 0.22)
    back, belly, crown = (
        scene.colour(row, scene.of(BODY, sp.BODIES, field))
        for row, field in ((BODY, "back"), (BELLY, "belly"), (CROWN, "crown"))
    )
    hood = ramp(-h.y - 0.2 * h.x, -0.02, 0.05) * ramp(-skull, -0.12, -0.02)
    rgb = mix(mix(back, belly, ramp(a.y + 0.35 * a.x, 0.0, 0.26)), crown, hood)
    plumage = 1.0 + 0.05 * _feathers(a, 34.0) + 0.10 * scene.grain
    shade = plumage * _volume(body, a.y / pose.depth)
    return canvas.paint(scene.cover(body), rgb * shade, BODY), {"breast": pose.on_body(0.34, 0.16)}


def paint_eye(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """A dark eye in a light ring, with a glint; it counts as body."""
    at = Points(0.32 * scene.pose.head_radius, -0.16 * scene.pose.head_radius)
    h = scene.head()
    e = Points(h.x - at.x, h.y - at.y)
    for place, radius, rgb in (
        (e, 0.066, [0.95, 0.93, 0.88]),
        (e, 0.052, [0.06, 0.05, 0.06]),
        (Points(e.x - 0.016, e.y + 0.018), 0.017, [1.0, 1.0, 1.0]),
    ):
        canvas = canvas.paint(scene.cover(disc(place, radius)), plane(rgb), BODY)
    return canvas, {"eye": scene.pose.on_head(at)}


def paint_wing(canvas: Canvas, scene: Scene) -> tuple[Canvas, dict[str, Points]]:
    """The folded wing: one outline for all classes, four patterns."""
    pose, curve = scene.pose, -0.10
    shoulder = pose.on_body(0.13, -0.05)
    w = bend(to_frame(scene.place, shoulder, pose.wing_angle), curve)
    wing = taper(w, Points(0.60, 0.0), 0.205, 0.03)
    width = 0.205 - 0.29 * jnp.clip(w.x, 0, 0.6)
    quills = 1.05 + 0.16 * jnp.sin(w.y / width * 9.0) * ramp(w.x, 0.05, 0.3) + 0.10 * scene.grain
    pattern = (
        scene.of(WING, sp.WINGS, "bars") * _bars(w)
        + scene.of(WING, sp.WINGS, "spots") * _spots(w)
        + scene.of(WING, sp.WINGS, "patch") * _patch(w)
    )
    rgb = mix(
        scene.colour(WING, np.array(sp.WING_COLOUR)) * quills,
        scene.colour(WING, scene.of(WING, sp.WINGS, "colour")),
        pattern,
    )
    keypoints = {
        name: from_frame(Points(x, curve * x**2), shoulder, pose.wing_angle)
        for name, x in (("wing centre", 0.20), ("wing tip", 0.58))
    }
    return canvas.paint(scene.cover(wing), rgb * _volume(wing, -w.y / 0.2), WING), keypoints


def _bars(w: Points) -> Float[Array, "S S"]:
    """Chevrons across the wing."""
    waves = jnp.sin(w.x * 36.0 - 3.5 * jnp.abs(w.y) / 0.2)
    return ramp(waves, 0.15, 0.5) * ramp(w.x, -0.06, 0.0)


def _spots(w: Points) -> Float[Array, "S S"]:
    """Dots on a grid whose every other row is shifted by half a step."""
    step = 0.135
    row = jnp.round((w.x + 0.02) / step)
    y = w.y + step / 2 * (row % 2)
    dot = Points(w.x + 0.02 - step * row, y - step * jnp.round(y / step))
    return 1 - ramp(disc(dot, 0.043), -0.008, 0.012)


def _patch(w: Points) -> Float[Array, "S S"]:
    """One large oval."""
    return 1 - ramp(ellipse(Points(w.x - 0.10, w.y), 0.17, 0.115), -0.01, 0.02)


def _feathers(p: Points, pitch) -> Float[Array, "S S"]:
    """A faint pattern of overlapping feathers, around 0."""
    return jnp.sin(p.x * pitch + 2.2 * jnp.sin(p.y * pitch * 0.8)) * jnp.sin(p.y * pitch)


def _volume(distance, height) -> Float[Array, "S S"]:
    """Shading of a rounded body lit from above: `height` runs from -1 (top) to 1 (bottom)."""
    edge = jnp.clip(1 + distance / 0.10, 0, 1)
    return (1.06 - 0.16 * height) * (1 - 0.22 * edge * edge)
