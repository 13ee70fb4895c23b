"""Panels of maps, box plots, and how a picture is written."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fgvce_jax.pictures import overlay

COLOURS = {"P": "invariant", "Q": "dominant"}
"""Colours of a map by the class that it explains, as in the report."""
PER_LINE = 12


def panel(
    images: np.ndarray,
    captions: Sequence[str],
    columns: Mapping[str, tuple[str, np.ndarray]],
    outlines: Sequence[np.ndarray] | None = None,
    figure: Any = None,
) -> Figure:
    """For every image a line: the image, then the maps of `columns`, heading -> (class, [N, m, m]).

    Columns that have no room go on below. The borders of `outlines`, masks [S, S], are drawn over
    an image and its maps.
    """
    headings, count = list(columns), len(images)
    blocks = [headings[at : at + PER_LINE] for at in range(0, len(headings), PER_LINE)]
    lines = [(i, block) for block in blocks for i in range(count)]
    width = len(blocks[0]) + 1
    figure = figure or Figure(figsize=(1.2 * width, 1.6 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), width, squeeze=False)
    for line, (i, block) in zip(axes, lines, strict=True):
        for axis, heading in zip(line, [captions[i], *block], strict=False):
            axis.imshow(images[i])
            axis.set_title(heading.replace(", ", "\n"), fontsize=5)
            if heading in columns:
                explains, maps = columns[heading]
                _lay_over(axis, images[i], maps[i], COLOURS[explains])
            if outlines is not None and outlines[i].any():
                axis.contour(outlines[i], [0.5], colors="black", linewidths=0.8)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def _lay_over(axis: Any, image: np.ndarray, values: np.ndarray, colours: str) -> None:
    """A map over its image in grey.

    A floor that the whole map stands on is taken off, and the highest percent of its values shown
    as one: RISE and the gradients of pixels cannot be seen otherwise.
    """
    values = np.maximum(values, 0)
    values = np.minimum(values - values.min(), np.quantile(values, 0.99) - values.min())
    axis.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=1)
    axis.imshow(overlay(values, colours, size=len(image)).convert("RGBA"))


def boxes(charts: Mapping[str, Mapping[str, Sequence[float]]], figure: Any = None) -> Figure:
    """A box plot beside the other for every title -> label -> values; triangles are means."""
    figure = figure or Figure(figsize=(4 * len(charts), 3), layout="constrained")
    for axis, (title, series) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        axis.boxplot(list(series.values()), showmeans=True)
        labels = [label.replace(", ", "\n") for label in series]
        axis.set_xticks(range(1, len(series) + 1), labels, fontsize=7)
        axis.set_title(title, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of at most 256 colours: small, and enough for these pictures."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    picture = Image.open(file).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, Image.Quantize.MEDIANCUT).save(path, optimize=True)
