"""Saliency partition: the contribution of each cell to a class (FG-VCE, Section 3.1, Eq. 1-4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fgvce_jax.checks import check_cells, check_class
from fgvce_jax.config import SearchConfig
from fgvce_jax.errors import InputError
from fgvce_jax.heads import SearchHead, of_one_image


def gaussian_kernels(n: int, sigma: float) -> Float[Array, "cells cells"]:
    """One Gaussian per cell, centred on it (Eq. 2); row k is G_k, cells row-major.

    Args:
        n: Cells per side.
        sigma: Standard deviation in units of cells; 0 is the hard mask of cell k alone.

    Raises:
        InputError: sigma below 0.
    """
    if not sigma >= 0:
        raise InputError(f"sigma: expected 0 or more, got {sigma}")
    if sigma == 0:
        return jnp.eye(n * n)
    distance = (jnp.arange(n)[:, None] - jnp.arange(n)) / sigma
    one_axis = jnp.exp(-(distance**2) / 2)
    return jnp.kron(one_axis, one_axis)


def row_contributions(
    head: SearchHead,
    rows: Float[Array, "cells D"],
    class_index: Int[ArrayLike, ""],
    kernels: Float[Array, "cells cells"],
    against: Int[ArrayLike, ""] | None = None,
) -> Float[Array, "cells"]:
    """Contributions of a feature map that the head already holds as rows; see `contributions`."""
    return contributions_of_masks(head.masked(rows, with_no_mask(kernels)), class_index, against)


def with_no_mask(kernels: Float[Array, "cells cells"]) -> Float[Array, "cells+1 cells"]:
    """The kernels and before them one that masks nothing, instead of a pass for the whole map."""
    return jnp.pad(kernels, ((1, 0), (0, 0)))


def contributions_of_masks(
    logits: Float[Array, "masks K"],
    class_index: Int[ArrayLike, ""],
    against: Int[ArrayLike, ""] | None = None,
) -> Float[Array, "cells"]:
    """Contributions from the logits under the masks of `with_no_mask`; see `contributions`."""
    if against is not None:
        margin = logits[:, class_index] - logits[:, against]
        return margin[0] - margin[1:]
    probabilities = jax.nn.softmax(logits)
    p = probabilities[:, class_index]
    others = jnp.where(jnp.arange(logits.shape[-1]) == class_index, 0, probabilities).sum(-1)
    # p and 1 - p lose the same, but of two float32 numbers close to 1 the difference is noise,
    # and 1 - p is known exactly there, as the sum of the other classes' probabilities.
    return jnp.where(p[0] > 0.5, others[1:] - others[0], p[0] - p[1:])


def contributions(
    head: Callable[[Any], Any],
    cells: ArrayLike,
    class_index: ArrayLike,
    sigma: float = SearchConfig.sigma,
    *,
    against: ArrayLike | None = None,
) -> Float[Array, "n n"]:
    """The loss of a class's probability, or margin, when each cell's surroundings are masked.

    s_k = p_c(h) - p_c(h * (1 - G_k)), in [-1, 1], neither clipped nor normalised (Eq. 1-4); with
    `against`, the same of the difference of two logits: s_k = (z_c - z_a)(h) - (z_c - z_a)(h *
    (1 - G_k)).

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        cells: One feature map, [n, n, C].
        class_index: The class c.
        sigma: Width of the Gaussian mask in cells; 0 masks cell k alone ("without SP").
        against: The class a of a margin; by default contributions are to c's probability.

    Raises:
        InputError: Cells that are not [n, n, C] or not the head's, a class outside its classes
            (where its value is known), or sigma below 0.
    """
    head, cells = of_one_image(head), jnp.asarray(cells)
    num_classes = check_cells(head, cells)
    check_class(class_index, num_classes)
    if against is not None:
        check_class(against, num_classes)
    n = cells.shape[0]
    with jax.default_matmul_precision("highest"):
        scores = row_contributions(
            head, head.rows(cells), class_index, gaussian_kernels(n, sigma), against
        )
    return scores.reshape(n, n)
