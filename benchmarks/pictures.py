"""Panels of maps and small charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fgvce_jax.report.figures import overlay

KINDS = {"P": "invariant", "Q": "dominant"}
"""Colours of a map by the class that it explains, as in the report."""


def laid_over(image: np.ndarray, values: np.ndarray, explains: str, side: int = 168) -> Image.Image:
    """An image, float [S, S, 3] in [0, 1], with a map over it."""
    picture = Image.fromarray(np.round(image * 255).astype(np.uint8)).resize((side, side))
    grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.6).convert("RGBA")
    return Image.alpha_composite(
        grey, overlay(values, KINDS[explains], size=side).convert("RGBA")
    ).convert("RGB")


def panel(
    path: Path,
    images: np.ndarray,
    captions: Sequence[str],
    columns: Mapping[str, tuple[str, np.ndarray]],
) -> None:
    """A row per image: the image, then the maps of `columns`, heading -> (class, [N, m, m])."""
    count, width = len(images), len(columns) + 1
    figure = Figure(figsize=(1.15 * width + 0.6, 1.25 * count + 0.5), layout="constrained")
    axes = figure.subplots(count, width, squeeze=False)
    for i in range(count):
        axes[i, 0].imshow(images[i])
        axes[i, 0].set_ylabel(captions[i], fontsize=6)
        for c, (explains, maps) in enumerate(columns.values(), start=1):
            axes[i, c].imshow(laid_over(images[i], maps[i], explains))
    for axis, heading in zip(axes[0], ["image", *columns], strict=True):
        axis.set_title(heading, fontsize=6.5)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of at most 256 colours: small, and enough for these pictures."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    picture = Image.open(file).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, Image.Quantize.MEDIANCUT).save(path, optimize=True)
