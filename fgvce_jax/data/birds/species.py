"""The 50 classes of `birds`: which variant of each part a class has.

Ten plumages come in five pairs; the two plumages of a pair share the remaining parts. Each plumage
has a common species and four more that change exactly one of its parts. So every class has a
sibling that differs from it in exactly one part, and the part is known.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from fgvce_jax.errors import InputError

PART_NAMES = ("beak", "crest", "body", "wing", "tail", "legs")


class Species(NamedTuple):
    """A class: for every part in `PART_NAMES`, the row of that part's table below."""

    beak: int
    crest: int
    body: int
    wing: int
    tail: int
    legs: int


class Beak(NamedTuple):
    """Length, radii at base and tip and curvature in body lengths; colour in [0, 1]."""

    epithet: str
    length: float
    base: float
    tip: float
    curvature: float
    colour: tuple[float, float, float]


BEAKS = (
    Beak("Stout-billed", 0.20, 0.125, 0.020, 0.0, (0.93, 0.62, 0.22)),
    Beak("Dagger-billed", 0.46, 0.075, 0.012, 0.0, (0.90, 0.66, 0.20)),
    Beak("Hook-billed", 0.29, 0.105, 0.035, 1.6, (0.88, 0.58, 0.24)),
    Beak("Sickle-billed", 0.46, 0.070, 0.014, 0.85, (0.90, 0.60, 0.20)),
)


class Crest(NamedTuple):
    """A bent tapered plume on the crown; `angle` in radians, 0 forward, -pi/2 up."""

    epithet: str
    length: float
    base: float
    tip: float
    curvature: float
    angle: float
    colour: tuple[float, float, float]


CRESTS = (
    Crest("Smooth-crowned", 0.10, -1.0, -1.0, 0.0, -1.6, (0.0, 0.0, 0.0)),
    Crest("Spike-crested", 0.40, 0.13, 0.012, 0.35, -2.35, (0.80, 0.16, 0.14)),
    Crest("Puff-crested", 0.13, 0.12, 0.15, 0.0, -1.75, (0.82, 0.20, 0.18)),
    Crest("Plumed", 0.42, 0.028, 0.080, 1.1, -1.75, (0.78, 0.16, 0.20)),
)


class Body(NamedTuple):
    """Plumage colours of back, belly and crown."""

    family: str
    back: tuple[float, float, float]
    belly: tuple[float, float, float]
    crown: tuple[float, float, float]


BODIES = (
    Body("Ember Finch", (0.85, 0.42, 0.18), (0.97, 0.85, 0.66), (0.72, 0.30, 0.14)),
    Body("Umber Thrush", (0.58, 0.40, 0.26), (0.95, 0.84, 0.66), (0.45, 0.30, 0.20)),
    Body("Lemon Siskin", (0.92, 0.80, 0.22), (0.99, 0.94, 0.62), (0.25, 0.24, 0.16)),
    Body("Moss Warbler", (0.56, 0.66, 0.26), (0.94, 0.91, 0.60), (0.33, 0.42, 0.18)),
    Body("Azure Jay", (0.28, 0.52, 0.86), (0.90, 0.94, 0.98), (0.18, 0.36, 0.70)),
    Body("Teal Tanager", (0.18, 0.62, 0.62), (0.98, 0.78, 0.52), (0.10, 0.42, 0.46)),
    Body("Slate Junco", (0.50, 0.54, 0.60), (0.94, 0.94, 0.93), (0.28, 0.31, 0.36)),
    Body("Snow Bunting", (0.87, 0.87, 0.88), (0.99, 0.98, 0.96), (0.72, 0.66, 0.58)),
    Body("Rose Grosbeak", (0.86, 0.42, 0.50), (0.98, 0.80, 0.80), (0.66, 0.24, 0.34)),
    Body("Plum Starling", (0.56, 0.38, 0.68), (0.90, 0.80, 0.92), (0.38, 0.24, 0.50)),
)


class Wing(NamedTuple):
    """How much of each pattern is drawn on the folded wing, and the pattern's colour."""

    epithet: str
    bars: float
    spots: float
    patch: float
    colour: tuple[float, float, float]


WINGS = (
    Wing("Plain-winged", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0)),
    Wing("Bar-winged", 1.0, 0.0, 0.0, (0.95, 0.94, 0.90)),
    Wing("Spot-winged", 0.0, 1.0, 0.0, (0.95, 0.94, 0.90)),
    Wing("Gold-winged", 0.0, 0.0, 1.0, (0.97, 0.76, 0.20)),
)
WING_COLOUR = (0.27, 0.25, 0.27)


class Tail(NamedTuple):
    """Two mirrored tapered feathers that end `spread` off the axis, cut off at `cut`."""

    epithet: str
    length: float
    spread: float
    base: float
    tip: float
    cut: float


TAILS = (
    Tail("Stub-tailed", 0.26, 0.02, 0.10, 0.09, 0.30),
    Tail("Long-tailed", 0.66, 0.00, 0.09, 0.065, 0.70),
    Tail("Fork-tailed", 0.58, 0.23, 0.085, 0.025, 0.70),
    Tail("Fan-tailed", 0.46, 0.10, 0.09, 0.20, 0.50),
)
TAIL_COLOUR = (0.31, 0.28, 0.29)


class Legs(NamedTuple):
    """Radii at hip and ankle, whether the leg is ringed, and its colour."""

    epithet: str
    hip: float
    ankle: float
    rings: float
    colour: tuple[float, float, float]


LEGS = (
    Legs("Slate-legged", 0.050, 0.036, 0.0, (0.30, 0.31, 0.36)),
    Legs("Coral-legged", 0.050, 0.036, 0.0, (0.94, 0.38, 0.24)),
    Legs("Ring-legged", 0.050, 0.042, 1.0, (0.96, 0.80, 0.24)),
    Legs("Booted", 0.110, 0.075, 0.0, (0.95, 0.92, 0.86)),
)

# Parts that the two plumages of a pair share: (beak, crest, wing, tail, legs).
_SHARED = ((0, 1, 1, 2, 0), (1, 0, 3, 0, 1), (2, 2, 0, 1, 2), (3, 3, 2, 3, 3), (0, 0, 2, 1, 1))
_VARYING = ("beak", "crest", "wing", "tail", "legs")
_TABLES = {"beak": BEAKS, "crest": CRESTS, "wing": WINGS, "tail": TAILS, "legs": LEGS}


def _species() -> tuple[tuple[str, Species], ...]:
    """Names and species: per plumage a common one, then four with one part changed.

    The part left out and the step to the new variant rotate, so that all parts and all pairs of
    variants take part about equally often.
    """
    rows = []
    for body, plumage in enumerate(BODIES):
        common = Species(body=body, **dict(zip(_VARYING, _SHARED[body // 2], strict=True)))
        rows.append((f"Common {plumage.family}", common))
        for position, part in enumerate(_VARYING):
            if position == body % len(_VARYING):
                continue
            step = 1 + (body + position) % 3
            variant = (getattr(common, part) + step) % len(_TABLES[part])
            name = f"{_TABLES[part][variant].epithet} {plumage.family}"
            rows.append((name, common._replace(**{part: variant})))
    return tuple(rows)


CLASS_NAMES, CLASSES = zip(*_species(), strict=True)

DIFFERING: Bool[np.ndarray, "K K M"] = np.array(CLASSES)[:, None] != np.array(CLASSES)
"""Whether two classes differ in a part, in the order of `PART_NAMES`; siblings in just one."""


def differing_parts(p: int, q: int) -> tuple[str, ...]:
    """Names of the parts in which classes `p` and `q` differ, in the order of `PART_NAMES`."""
    return tuple(part for part, differs in zip(PART_NAMES, DIFFERING[p, q], strict=True) if differs)


def siblings(p: int) -> tuple[int, ...]:
    """The classes that differ from class `p` in exactly one part."""
    return tuple(q for q in range(len(CLASSES)) if len(differing_parts(p, q)) == 1)


def sibling_parts(p: int) -> dict[int, str]:
    """The siblings of class `p`, each with the part in which it differs."""
    return {q: differing_parts(p, q)[0] for q in siblings(p)}


def named(parts: Collection[str]) -> Bool[np.ndarray, "M"]:
    """Marks some parts, given by their names, in the order of `PART_NAMES`.

    Raises:
        InputError: An unknown part, or a single string.
    """
    unknown = [parts] if isinstance(parts, str) else sorted(set(parts) - set(PART_NAMES))
    if unknown:
        known = ", ".join(PART_NAMES)
        raise InputError(f"parts: expected a collection out of {known}; got {unknown[0]!r}")
    return np.array([part in parts for part in PART_NAMES])


def table(rows: tuple[Any, ...], field: str) -> Float[np.ndarray, "variants *colour"]:
    """One column of a part's table as float32 [variants] (colours: [variants, 3])."""
    return np.array([getattr(row, field) for row in rows], np.float32)
