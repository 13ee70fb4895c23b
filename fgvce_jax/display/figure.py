"""A card as a matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fgvce_jax.display.card import Card, ShownEdit
from fgvce_jax.display.drawing import headline, outline, picture, zoom
from fgvce_jax.pictures import BLUE, ORANGE, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def card_figure(card: Card, max_edits: int = 5) -> Figure:
    """The image, both maps, the curves of P and Q, and the first `max_edits` edits as pairs.

    All replaced cells are framed in the image. An edit whose reference image is not at hand is
    shown without it.
    """
    figure = Figure(figsize=(10, 4.8), facecolor="white")
    words = (("Predicted ", "black"), (card.predicted, ORANGE))
    words += ((", not ", "black"), (card.target, BLUE))
    headline(figure, words if card.predicted != card.target else words[:2])
    layout = {"left": 0.02, "right": 0.985, "top": 0.82, "bottom": 0.41}
    top = figure.add_gridspec(1, 4, width_ratios=(1, 1, 1, 1.1), **layout)
    n, size = card.n, len(card.image)
    title = "the image,\nits replaced cells in order"
    axes = picture(figure.add_subplot(top[0]), card.image, title)
    for number, edit in enumerate(card.edits, 1):
        outline(axes, edit.cell, n, size, ORANGE, str(number))
    for k, name, title, color in (
        (1, "invariant", f"evidence for\n{card.predicted}", ORANGE),
        (2, "dominant", f"deciding for\n{card.target}", BLUE),
    ):
        axes = picture(figure.add_subplot(top[k]), card.image, title, color)
        layer = overlay(getattr(card, name), name, size).convert("RGBA")
        axes.imshow(layer, extent=(0, size, size, 0))
    _curves(figure.add_subplot(top[3]), card)
    _edits(figure, card, max_edits)
    return figure


def _edits(figure: Figure, card: Card, max_edits: int) -> None:
    """The pairs of cells below, with a heading."""
    heading = "Each edit: the replaced cell, and the cell of a reference image that took its place"
    if len(card.edits) > max_edits:
        heading += f" (the first {max_edits} of {len(card.edits)})"
    if not card.edits:
        heading = "No cell was replaced"
    figure.text(0.02, 0.325, heading, fontsize=9, weight="bold")
    layout = {"left": 0.02, "right": 0.985, "top": 0.27, "bottom": 0.01}
    bottom = figure.add_gridspec(1, max_edits, **layout)
    n, size = card.n, len(card.image)
    for number, edit in enumerate(card.edits[:max_edits], 1):
        left, right = bottom[number - 1].subgridspec(1, 2, wspace=0.06)
        axes = picture(figure.add_subplot(left), card.image, _title(number, edit))
        zoom(axes, edit.cell, n, size, ORANGE)
        if edit.reference is not None:
            axes = picture(figure.add_subplot(right), edit.reference)
            zoom(axes, edit.candidate_cell, n, size, BLUE)


def _title(number: int, edit: ShownEdit) -> str:
    return f"{number}   similarity {edit.similarity:.2f}"


def _curves(axes: Axes, card: Card) -> None:
    """The probabilities of P and Q, edit by edit."""
    higher = ORANGE if card.p_predicted[-1] > card.p_target[-1] else BLUE
    for values, color in ((card.p_predicted, ORANGE), (card.p_target, BLUE)):
        axes.plot(values, color=color, marker="o", linewidth=2, markersize=4)
        end = (len(values) - 1, values[-1])
        style = {"textcoords": "offset points", "ha": "center", "color": color, "fontsize": 9}
        axes.annotate(f"{values[-1]:.2f}", end, (0, 7 if color == higher else -14), **style)
    axes.set(box_aspect=0.86, yticks=[0, 0.5, 1])
    axes.set(xlim=(-0.3, max(len(card.p_target) - 1, 1) + 0.3), ylim=(0, 1.12))
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("edits", fontsize=9)
    axes.set_title("probability of\nboth classes", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
