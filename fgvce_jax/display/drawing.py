"""What figures of an explanation are drawn with: a headline, pictures, framed cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from fgvce_jax.pictures import window

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def headline(figure: Figure, words: Sequence[tuple[str, str]]) -> None:
    """A line of text in several colours at the top of a figure."""
    style = {"fontsize": 15, "weight": "bold", "parse_math": False}
    texts: list[Artist] = [
        TextArea(text, textprops={"color": color, **style}) for text, color in words
    ]
    line = HPacker(children=texts, pad=0, sep=0)
    box = AnchoredOffsetbox("upper left", child=line, frameon=False, pad=0, borderpad=0)
    box.set_bbox_to_anchor(Bbox.from_bounds(0.02, 0.98, 0, 0), figure.transFigure)
    figure.add_artist(box)


def picture(
    axes: Axes, image: UInt8[np.ndarray, "S S 3"], title: str = "", color: str = "black"
) -> Axes:
    """Axes that show an image in pixel coordinates, its top left corner at (0, 0)."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9, color=color, loc="left", parse_math=False)
    return axes


def outline(axes: Axes, cell: int, n: int, size: int, color: str, text: str = "") -> None:
    """Frame a cell of an image of `size` pixels, with a text in it."""
    row, column = divmod(cell, n)
    side = size / n
    corner = (column * side, row * side)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=2))
    if text:
        x, y = (at + side / 2 for at in corner)
        label = axes.text(x, y, text, color="white", weight="bold")
        label.set(ha="center", va="center", fontsize=9)
        label.set_path_effects([withStroke(linewidth=2, foreground="#000a")])


def zoom(axes: Axes, cell: int, n: int, size: int, color: str) -> None:
    """Show a cell's window of the image only, the cell framed."""
    outline(axes, cell, n, size, color)
    x, y, side, _, _ = (at * size / n for at in window(cell, n))
    axes.set(xlim=(x, x + side), ylim=(y + side, y))
