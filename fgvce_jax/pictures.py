"""Pixels for people: windows around cells, maps as translucent overlays, pictures as text.

Colours mean the same everywhere: orange is evidence for the predicted class P, blue is evidence for
the other class Q.
"""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

ORANGE, BLUE = "#e8590c", "#1580c4"
PALETTES = {
    "invariant": ("#ffe066", "#ff922b", "#f03e3e"),
    "dominant": ("#96f2d7", "#22b8cf", "#1864ff"),
}
"""The colours of a map from its lowest to its highest values, evenly spaced."""
_LEVELS = 64
_SIDE = 84


class Window(NamedTuple):
    """A square part of the image, by its top left corner, around a cell; all in cells."""

    x: float
    y: float
    side: float
    column: int
    row: int


def window(cell: int, n: int) -> Window:
    """The part of an image shown for a cell: the cell and a cell's width around it, at least 3/7.

    At the image's border the window is moved inwards, so that it stays inside.
    """
    row, column = divmod(cell, n)
    side = min(n, max(3, 3 * n / 7))
    x, y = (float(np.clip(at + 0.5 - side / 2, 0, n - side)) for at in (column, row))
    return Window(x, y, side, column, row)


def patch(image: UInt8[np.ndarray, "S S 3"], cell: int, n: int) -> Image.Image:
    """The window of a cell cut out of its image, at the image's own resolution."""
    scale = image.shape[0] / n
    x, y, side, _, _ = window(cell, n)
    box = (x * scale, y * scale, (x + side) * scale, (y + side) * scale)
    size = max(1, round(side * scale))
    return Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box)


def intensity(values: Float[np.ndarray, "n n"], size: int) -> Float[np.ndarray, "size size"]:
    """A map as it is displayed: clipped at 0, upsampled bilinearly, its maximum 1 (or all 0)."""
    clipped = Image.fromarray(np.maximum(values, 0).astype(np.float32))
    large = np.asarray(clipped.resize((size, size), Image.Resampling.BILINEAR))
    peak = large.max()
    return large / peak if peak > 0 else large


def overlay(values: Float[np.ndarray, "n n"], colors: str, size: int = _SIDE) -> Image.Image:
    """A map as a translucent picture to lay over the image, more opaque where it is higher.

    Negative values show as nothing. `colors` is a key of `PALETTES`.
    """
    picture = Image.fromarray(np.round(intensity(values, size) * (_LEVELS - 1)).astype(np.uint8))
    picture.putpalette(_palette(PALETTES[colors]).tobytes(), "RGBA")
    return picture


def _palette(colors: tuple[str, ...]) -> UInt8[np.ndarray, "L 4"]:
    """Red, green, blue and opacity of every level."""
    x = np.linspace(0, 1, _LEVELS)
    known = np.array([list(bytes.fromhex(color[1:])) for color in colors])
    places = np.linspace(0, 1, len(colors))
    rgb = [np.interp(x, places, channel) for channel in known.T]
    return np.round(np.stack([*rgb, 255 * 0.9 * x**0.8], axis=-1)).astype(np.uint8)


def data_uri(picture: Image.Image) -> str:
    """A picture as text to embed: overlays and small pictures without loss, others as WebP."""
    file, kind = io.BytesIO(), "png" if picture.mode == "P" else "webp"
    if kind == "png":
        picture.save(file, kind, optimize=False)
    else:
        picture.save(file, kind, quality=82, method=2, lossless=picture.width <= 32)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
