"""Near-KP and Same-KP: do the exchanged cells show parts of the object, and the same part?

From "Making Heads or Tails: Towards Semantically Consistent Visual Counterfactuals" (Vandenhende et
al., ECCV 2022), whose published figures take the left and the right one of a pair as the same part.
Any method that makes edits can be measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def merged_sides(names: Sequence[str]) -> tuple[int, ...]:
    """The part that each keypoint is of, numbered from 0, where "left eye" and "right eye" are one.

    The 15 keypoints of CUB make 12 parts.
    """
    parts = [re.sub(r"^(left|right)[ _]", "", name) for name in names]
    return tuple(list(dict.fromkeys(parts)).index(part) for part in parts)


def parts_in_cell(
    keypoints: Float[Array | np.ndarray, "P 3"], cell: int | Int[Array, ""], n: int, image_size: int
) -> Bool[Array, "P"]:
    """Which keypoints (x, y, visible), in pixels, are visible and lie in a cell."""
    x, y, visible = jnp.asarray(keypoints).T
    column, row = jnp.floor(x * n / image_size), jnp.floor(y * n / image_size)
    return (visible > 0) & (column == cell % n) & (row == cell // n)


def keypoint_agreement(
    query: Float[Array | np.ndarray, "P 3"],
    candidates: Float[Array | np.ndarray, "T P 3"],
    edit_cell: Int[Array | np.ndarray, "T"],
    candidate_cell: Int[Array | np.ndarray, "T"],
    n: int,
    image_size: int,
    parts: Sequence[int] | None = None,
) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    """(Near-KP, Same-KP) of every edit of one image; NaN where `edit_cell` is -1.

    Near-KP is 0, 1/2 or 1: half for a keypoint in the replaced cell, half for one in the cell that
    replaced it. Same-KP is 1 where both hold a keypoint of the same part.

    Args:
        query: Keypoints of the image, (x, y, visible) in pixels.
        candidates: Keypoints of the image that each edit's new cell came from.
        edit_cell: The replaced cells, row-major, -1 where unused.
        candidate_cell: The cells they were replaced by, in their own images.
        n: Cells per side.
        image_size: Side of the images in pixels.
        parts: The part that each of the P keypoints is of, from `merged_sides`; by default each is
            a part of its own.
    """
    part_of = np.arange(len(query)) if parts is None else np.asarray(parts)
    alike = part_of[:, None] == part_of

    def one(candidate, old, new):
        here = parts_in_cell(query, old, n, image_size)
        there = parts_in_cell(candidate, new, n, image_size)
        near = (here.any() + there.any().astype(jnp.float32)) / 2
        same = (here[:, None] & there & alike).any().astype(jnp.float32)
        return jnp.where(old < 0, jnp.nan, jnp.stack([near, same]))

    return tuple(jax.vmap(one)(candidates, edit_cell, candidate_cell).T)


def chance_agreement(
    query: Float[Array | np.ndarray, "P 3"],
    candidates: Float[Array | np.ndarray, "T P 3"],
    n: int,
    image_size: int,
    parts: Sequence[int] | None = None,
) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    """(Near-KP, Same-KP) that an edit of random cells would have: their mean over all pairs of a
    cell of the image and a cell of the candidate's image. Arguments as for `keypoint_agreement`.
    """
    part_of = np.arange(len(query)) if parts is None else np.asarray(parts)
    of_part = jnp.asarray(part_of[:, None] == np.unique(part_of), jnp.float32)

    def shown(keypoints):
        held = jax.vmap(lambda cell: parts_in_cell(keypoints, cell, n, image_size))
        return (held(jnp.arange(n * n)) @ of_part) > 0

    def one(candidate):
        here, there = shown(query), shown(candidate)
        near = (here.any(-1).mean() + there.any(-1).mean()) / 2
        same = (here.astype(jnp.float32) @ there.T.astype(jnp.float32)) > 0
        return jnp.stack([near, same.mean()])

    return tuple(jax.vmap(one)(candidates).T)


def summarise_agreement(
    near: Float[np.ndarray, "B T"], same: Float[np.ndarray, "B T"]
) -> dict[str, float | int | None]:
    """Means in percent over the first edits and over all edits; None where there are none."""

    def mean(values: np.ndarray) -> float | None:
        used = values[~np.isnan(values)]
        return 100 * float(used.mean()) if len(used) else None

    return {
        "first_edits": int((~np.isnan(near[:, :1])).sum()),
        "near_kp_first": mean(near[:, :1]),
        "same_kp_first": mean(same[:, :1]),
        "all_edits": int((~np.isnan(near)).sum()),
        "near_kp_all": mean(near),
        "same_kp_all": mean(same),
    }
