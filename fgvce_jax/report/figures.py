"""An explanation of a run as one figure, in the colours of `fgvce_jax.pictures`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator

from fgvce_jax.data.example import Dataset
from fgvce_jax.display.drawing import headline, outline, picture, zoom
from fgvce_jax.pictures import BLUE, ORANGE, overlay
from fgvce_jax.results import RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def _whole_numbers(axis: Axis, **options: Any) -> None:
    """Ticks at whole numbers only."""
    locator = AutoLocator()
    locator.set_params(integer=True, **options)
    axis.set_major_locator(locator)


def card_figure(
    results: RunResults,
    row: int,
    dataset: Dataset,
    references: Dataset,
    view: Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "S S 3"]],
    max_edits: int = 5,
) -> Figure:
    """Explanation `row` of a run as a matplotlib figure, for a paper or a README.

    The splits and the view are those of `write_report`. Of the edits, all framed in the image, the
    cells of the first `max_edits` are shown.
    """
    [found] = results.table.slice(row, 1).to_pylist()
    image = view(dataset[found["index"]].image)
    shown = found["edits"][:max_edits]
    sources = [view(references[edit["candidate_index"]].image) for edit in shown]
    p, q = found["predicted_name"], found["target_name"]

    figure = Figure(figsize=(10, 4.8), facecolor="white")
    headline(figure, (("Predicted ", "black"), (p, ORANGE), (", not ", "black"), (q, BLUE)))
    top = figure.add_gridspec(
        1, 4, left=0.02, right=0.985, top=0.82, bottom=0.41, width_ratios=(1, 1, 1, 1.1)
    )
    n, size = results.maps["invariant"].shape[-1], image.shape[0]
    axes = picture(figure.add_subplot(top[0]), image, "the image,\nits replaced cells in order")
    for number, edit in enumerate(found["edits"], 1):
        outline(axes, edit["cell"], n, size, ORANGE, str(number))
    for k, name, title, color in (
        (1, "invariant", f"evidence for\n{p}", ORANGE),
        (2, "dominant", f"deciding for\n{q}", BLUE),
    ):
        axes = picture(figure.add_subplot(top[k]), image, title, color)
        layer = overlay(results.maps[name][row], name, size).convert("RGBA")
        axes.imshow(layer, extent=(0, size, size, 0))
    _curve(figure.add_subplot(top[3]), found["p_target"], q)

    heading = "Each edit: the replaced cell, and the cell of a reference image that took its place"
    if len(shown) < len(found["edits"]):
        heading += f" (the first {max_edits} of {len(found['edits'])})"
    figure.text(0.02, 0.325, heading, fontsize=9, weight="bold")
    bottom = figure.add_gridspec(1, max_edits, left=0.02, right=0.985, top=0.27, bottom=0.01)
    for number, (edit, source) in enumerate(zip(shown, sources, strict=True), 1):
        left, right = bottom[number - 1].subgridspec(1, 2, wspace=0.06)
        title = f"{number}   similarity {edit['similarity']:.2f}"
        zoom(picture(figure.add_subplot(left), image, title), edit["cell"], n, size, ORANGE)
        zoom(picture(figure.add_subplot(right), source), edit["candidate_cell"], n, size, BLUE)
    return figure


def _curve(axes: Axes, p_target: Sequence[float], name: str) -> None:
    """The target's probability, edit by edit."""
    axes.plot(p_target, color=BLUE, marker="o", linewidth=2)
    end = (len(p_target) - 1, p_target[-1])
    style = {"textcoords": "offset points", "ha": "center", "color": BLUE, "fontsize": 9}
    axes.annotate(f"{p_target[-1]:.2f}", end, (0, 7), **style)
    axes.set(box_aspect=0.86, yticks=[0, 0.5, 1])
    axes.set(xlim=(-0.3, max(len(p_target) - 1, 1) + 0.3), ylim=(0, 1.12))
    axes.tick_params(labelsize=8)
    _whole_numbers(axes.xaxis)
    axes.set_xlabel("edits", fontsize=9)
    title = f"probability of\n{name}"
    axes.set_title(title, fontsize=9, color=BLUE, loc="left", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
