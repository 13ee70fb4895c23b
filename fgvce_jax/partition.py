"""Saliency partition: how much each cell speaks for a class (FG-VCE, Section 3.1, Eq. 1-4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.checks import check_cells, check_class
from fgvce_jax.errors import InputError
from fgvce_jax.heads import SearchHead, searchable


def gaussian_kernels(n: int, sigma: float) -> Float[Array, "n*n n*n"]:
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
    distance = jnp.arange(n)[:, None] - jnp.arange(n)
    one_axis = jnp.exp(-(distance**2) / (2 * sigma**2))
    return jnp.kron(one_axis, one_axis)


def row_contributions(
    head: SearchHead,
    rows: Float[Array, "n*n D"],
    class_index: Int[Array, ""],
    kernels: Float[Array, "n*n n*n"],
) -> Float[Array, "n*n"]:
    """Contributions of a feature map that the head already holds as rows."""
    # One more kernel, which masks nothing, instead of one more pass for p_c(h).
    kernels = jnp.pad(kernels, ((1, 0), (0, 0)))
    probabilities = jax.nn.softmax(head.masked(rows, kernels))[:, class_index]
    return probabilities[0] - probabilities[1:]


def contributions(
    head: Callable[[Any], Any],
    cells: Float[Array, "n n C"],
    class_index: int | Int[Array, ""],
    sigma: float = 0.8,
) -> Float[Array, "n n"]:
    """The probability that a class loses when each cell's surroundings are masked (Eq. 1-4).

    s_k = p_c(h) - p_c(h * (1 - G_k)), in [-1, 1], neither clipped nor normalised.

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        cells: One feature map.
        class_index: The class c.
        sigma: Width of the Gaussian mask in cells; 0 masks cell k alone ("without SP").

    Raises:
        InputError: Cells that are not [n, n, C] or not the head's, a class outside its classes
            (where its value is known), or sigma below 0.
    """
    head, cells = searchable(head), jnp.asarray(cells)
    check_class(class_index, check_cells(head, cells))
    n = cells.shape[0]
    with jax.default_matmul_precision("highest"):
        scores = row_contributions(head, head.rows(cells), class_index, gaussian_kernels(n, sigma))
    return scores.reshape(n, n)
