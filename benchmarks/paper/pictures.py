"""Panels of maps, and how a picture is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fgvce_jax.report.figures import overlay

COLOURS = {"P": "invariant", "Q": "dominant"}
"""Colours of a map by the class that it explains, as in the report."""


def laid_over(image: np.ndarray, values: np.ndarray, explains: str, side: int = 168) -> Image.Image:
    """An image, float [S, S, 3] in [0, 1], with a map over it.

    A floor that the whole map stands on is taken off, and the highest percent of its values shown
    as one: RISE and the gradients of pixels cannot be seen otherwise.
    """
    values = np.maximum(values, 0)
    values = np.minimum(values - values.min(), np.quantile(values, 0.99) - values.min())
    picture = Image.fromarray(np.round(image * 255).astype(np.uint8)).resize((side, side))
    grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.6).convert("RGBA")
    return Image.alpha_composite(
        grey, overlay(values, COLOURS[explains], size=side).convert("RGBA")
    ).convert("RGB")


def panel(
    path: Path | None,
    images: np.ndarray,
    captions: Sequence[str],
    columns: Mapping[str, tuple[str, np.ndarray]],
    per_line: int = 12,
    outlines: Sequence[np.ndarray] | None = None,
    figure: Any = None,
) -> None:
    """For every image a line: the image, then the maps of `columns`, heading -> (class, [N, m, m]).

    More than `per_line` columns go on below. The borders of `outlines`, masks [S, S], are drawn
    over an image and its maps. The panel is written to `path`, or left in `figure`.
    """
    headings = list(columns)
    blocks = [headings[i : i + per_line] for i in range(0, len(headings), per_line)]
    count, width = len(images), len(blocks[0]) + 1
    lines = len(blocks) * count
    size = (1.15 * width + 0.6, 1.25 * lines + 0.5)
    figure = figure or Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, width, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for b, block in enumerate(blocks):
        for i in range(count):
            line = axes[b * count + i]
            pictures = [images[i]]
            for heading in block:
                explains, maps = columns[heading]
                side = 168 if outlines is None else len(images[i])
                pictures.append(laid_over(images[i], maps[i], explains, side))
            where = {"transform": line[0].transAxes, "rotation": 90, "ha": "right", "va": "center"}
            line[0].text(-0.04, 0.5, captions[i], fontsize=6, **where)
            for axis, picture, heading in zip(line, pictures, ["", *block], strict=False):
                axis.imshow(picture)
                if outlines is not None and outlines[i].any():
                    axis.contour(outlines[i], [0.5], colors="#212529", linewidths=0.8)
                if i == 0:
                    axis.set_title(heading.replace(", ", "\n"), fontsize=6.5)
    if path is not None:
        save(figure, path)


def plain(*axes: Any) -> None:
    """Small labels, and no frame at the top and on the right."""
    for axis in axes:
        axis.tick_params(labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of at most 256 colours: small, and enough for these pictures."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    picture = Image.open(file).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, Image.Quantize.MEDIANCUT).save(path, optimize=True)
