"""Part localisation of edits: are the edited cells those of the part in which two classes differ?

The counterpart of `localisation`, for methods that name cells. The first entry is the pointing hit,
the mean over the edits their share inside.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.metrics.localisation import dilated


def edits_in_part(
    edit_cell: Int[Array, "T"], part: Bool[Array, "H W"], n: int
) -> Float[Array, "T"]:
    """1 where the middle of the edited cell lies in the part, else 0; NaN where `edit_cell` is -1.

    All NaN where the part is not visible.

    Args:
        edit_cell: The edited cells in order, row-major, -1 where unused.
        part: The visible pixels of the part, of the image or of the image and its twin. The mask is
            dilated by half a cell.
        n: Cells per side.
    """
    height, width = part.shape
    inside = dilated(part, round(height / n / 2))
    row = ((edit_cell // n + 0.5) * height / n).astype(int)
    column = ((edit_cell % n + 0.5) * width / n).astype(int)
    measured = (edit_cell >= 0) & part.any()
    return jnp.where(measured, inside[row, column].astype(jnp.float32), jnp.nan)
