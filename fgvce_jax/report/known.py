"""What a dataset knows of an image beyond its class: its parts by cell, and its twin.

Parts are those of part masks, else keypoints. A bird's twin is the same bird drawn as another
class; it shows the part in which the two classes differ (`fgvce_jax.data.birds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from fgvce_jax.data.birds import CLASS_NAMES, PART_NAMES, Birds, differing_parts
from fgvce_jax.data.example import Dataset, Example
from fgvce_jax.metrics import edits_in_part
from fgvce_jax.metrics.keypoints import parts_in_cell
from fgvce_jax.report.sources import View, thumbnail

_COVERED = 0.1
"""The share of a cell that a part has to cover to count as shown by it."""


def part_names(dataset: Dataset | None) -> tuple[str, ...]:
    """The parts that `parts_by_cell` tells apart; none where the data do not name any."""
    if dataset is None:
        return ()
    return tuple(dataset.part_names or dataset.keypoint_names)


def parts_by_cell(example: Example, n: int, view: View) -> Bool[np.ndarray, "{n}*{n} M"]:
    """Which part each cell shows."""
    if example.part_masks is not None:
        return np.stack(
            [_cells(_seen(mask, view), n) >= _COVERED for mask in example.part_masks], axis=-1
        )
    if example.keypoints is None:
        return np.zeros((n * n, 0), bool)
    inside = partial(parts_in_cell, view.keypoints(example), n=n, image_size=view.image_size)
    return np.asarray(jax.vmap(inside)(jnp.arange(n * n)))


def _seen(mask: Bool[np.ndarray, "H W"], view: View) -> Bool[np.ndarray, "S S"]:
    """A mask as the classifier would see it."""
    return view(np.repeat(mask[..., None], 3, -1).astype(np.uint8) * 255)[..., 0] > 127


def _cells(mask: Bool[np.ndarray, "S S"], n: int) -> Float[np.ndarray, "{n}*{n}"]:
    """The share of each cell that a mask covers."""
    bounds = np.round(np.linspace(0, len(mask), n + 1)).astype(int)
    sums = np.add.reduceat(np.add.reduceat(mask.astype(float), bounds[:-1], 0), bounds[:-1], 1)
    return (sums / np.outer(np.diff(bounds), np.diff(bounds))).ravel()


_inside = jax.jit(edits_in_part, static_argnums=2)


def twins(
    dataset: Dataset | None, rows: Sequence[dict[str, Any]], of: str, n: int, view: View
) -> list[dict[str, Any] | None]:
    """The twins of explained birds, and where the edits lie.

    Args:
        dataset: The split that was explained.
        rows: Of the run's table.
        of: The class that an image is not of, "predicted" or "target": the twin's.
        n: Cells per side.
        view: What the classifier received.

    Returns:
        For each row the twin's `image` as a data URI and its class (`of`: "P" or "Q"); the `parts`
        in which P and Q differ; `hits`, whether each edit lies in them (as the image or the twin
        shows them, `metrics.edits_in_part`), and `chance`, the share of all cells that do. None for
        other data, and where these parts are not to be seen.
    """
    known = set(CLASS_NAMES)
    if not isinstance(dataset, Birds) or not all(row[f"{of}_name"] in known for row in rows):
        return [None] * len(rows)
    drawn = dataset.twins(
        [row["index"] for row in rows], [CLASS_NAMES.index(row[f"{of}_name"]) for row in rows]
    )
    own = [dataset[row["index"]].part_masks for row in rows]
    found = zip(rows, own, drawn["image"], drawn["part_masks"], strict=True)
    return [
        _twin(row, image, (masks, mask), {"predicted": "P", "target": "Q"}[of], n, view)
        for row, masks, image, mask in found
    ]


def _twin(
    row: dict[str, Any],
    image: UInt8[np.ndarray, "H W 3"],
    masks: Sequence[Any],
    of: str,
    n: int,
    view: View,
) -> dict[str, Any] | None:
    p, q = (CLASS_NAMES.index(row[name]) for name in ("predicted_name", "target_name"))
    parts = differing_parts(p, q)
    places = [PART_NAMES.index(part) for part in parts]
    where = np.any([mask[places].any(0) for mask in masks], 0)
    inside = np.asarray(_inside(np.arange(n * n), _seen(where, view), n))
    if np.isnan(inside).any():
        return None
    return {
        "image": thumbnail(view(image)),
        "of": of,
        "parts": list(parts),
        "hits": [int(inside[edit["cell"]]) for edit in row["edits"]],
        "chance": float(inside.mean()),
    }
