"""Logits after replacing one cell, by computing anew only where the replacement reaches.

Behind an early cut a cell reaches its surroundings: each 3x3 convolution widens its window by one
cell on every side, and a max-pool takes it to one pooled cell. Where the layers end in a head that
is additive in their cells, the rest of the feature map stays as it was. So a candidate costs its
window, and the feature map of the image one pass for all candidates. Exact up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fgvce_jax.heads import AdditiveHead, PooledLinear, as_cells
from fgvce_jax.models.layers import MaxPool, ResidualBlock


def can_follow(layers: Sequence[Any], head: Any, n: int) -> bool:
    """Whether `substituted_locally` takes these layers, this head, and n x n cells.

    Residual blocks of stride 1 and a pooled head, as long as the last window is no larger than the
    feature map; or one 2x2 max-pool of an even number of cells and any additive head.
    """
    if all(isinstance(layer, ResidualBlock) for layer in layers):
        convs = [conv for layer in layers for conv, _ in layer.steps()]
        width = 1 + sum(conv.kernel_size[0] - 1 for conv in convs)
        strided = any(conv.strides not in (1, (1, 1)) for conv in convs)
        return isinstance(head, PooledLinear) and not strided and width <= n
    pooled = len(layers) == 1 and isinstance(layers[0], MaxPool)
    exact = pooled and (layers[0].size, layers[0].padding, n % 2) == (2, 0, 0)
    return exact and isinstance(head, AdditiveHead)


def substituted_locally(
    layers: Sequence[Any],
    head: Any,
    rows: Float[Array, "cells C"],
    cell: Int[Array, ""],
    placed: Float[Array, "N C"],
) -> Float[Array, "N K"]:
    """Logits with `cell` replaced by each of N others, for what `can_follow` takes.

    Args:
        layers: The layers behind the cut, in inference mode, first to last.
        head: The head behind them.
        rows: The cells at the cut, row-major.
        cell: The cell to be replaced.
        placed: The cells in its place.
    """
    if isinstance(layers[0], MaxPool):
        return _behind_a_pool(head, rows, cell, placed)
    return _behind_blocks(layers, head, rows, cell, placed)


def _behind_a_pool(
    head: AdditiveHead,
    rows: Float[Array, "cells C"],
    cell: Int[Array, ""],
    placed: Float[Array, "N C"],
) -> Float[Array, "N K"]:
    cells = as_cells(rows)
    half = len(cells) // 2
    windows = cells.reshape(half, 2, half, 2, -1).swapaxes(1, 2).reshape(half * half, 4, -1)
    i, j = jnp.divmod(cell, len(cells))
    pooled, inside = i // 2 * half + j // 2, i % 2 * 2 + j % 2
    others = jnp.where(jnp.arange(4)[:, None] == inside, -jnp.inf, windows[pooled]).max(0)
    behind = windows.max(1).reshape(half, half, -1)
    changed = jnp.maximum(others, placed)
    moved = head.place(changed, head.prepare(changed), pooled)
    return head.substituted(head.rows(behind), pooled, moved)


class _Change(NamedTuple):
    """A feature map, and how N replacements of one cell change it in a window around that cell.

    Attributes:
        cells: The feature map before the replacement.
        by: Its change, 0 beyond the borders of the feature map.
    """

    cells: Float[Array, "n n C"]
    by: Float[Array, "N w w C"]


def _behind_blocks(
    blocks: Sequence[ResidualBlock],
    head: PooledLinear,
    rows: Float[Array, "cells C"],
    cell: Int[Array, ""],
    placed: Float[Array, "N C"],
) -> Float[Array, "N K"]:
    change = _Change(as_cells(rows), (placed - rows[cell])[:, None, None])
    for block in blocks:
        change = _through_block(block, change, cell)
    total = change.cells.sum((0, 1)) + change.by.sum((1, 2))
    return head.finish(total @ head.kernel, len(rows))


def _through_block(block: ResidualBlock, start: _Change, cell: Int[Array, ""]) -> _Change:
    *first, (conv, norm) = block.steps()
    inner = start
    for convolution, normalisation in first:
        linear = _convolved(convolution, inner)
        before = block.activation(normalisation(linear.cells))
        after = block.activation(normalisation(_changed(linear, cell)))
        inner = _difference(before, after, cell)
    linear = _convolved(conv, inner)
    # The shortcut leads past the convolutions, so its change fills the middle of their window.
    border = (linear.by.shape[1] - start.by.shape[1]) // 2
    wide = jnp.pad(start.by, ((0, 0), (border, border), (border, border), (0, 0)))
    before = block.activation(norm(linear.cells) + block.shortcut(start.cells[None])[0])
    beside = block.shortcut(_changed(_Change(start.cells, wide), cell))
    after = block.activation(norm(_changed(linear, cell)) + beside)
    return _difference(before, after, cell)


def _changed(change: _Change, cell: Int[Array, ""]) -> Float[Array, "N w w C"]:
    """The window after the replacement."""
    return _window(change.cells, cell, change.by.shape[1]) + change.by


def _difference(
    before: Float[Array, "n n C"], after: Float[Array, "N w w C"], cell: Int[Array, ""]
) -> _Change:
    n, width = len(before), after.shape[1]
    inside = _window(jnp.ones((n, n, 1)), cell, width)
    return _Change(before, inside * (after - _window(before, cell, width)))


def _convolved(conv: nnx.Conv, change: _Change) -> _Change:
    """The change behind a convolution: only its own window enters, whatever lies around it."""
    cells, by = conv(change.cells[None])[0], change.by
    kernel, groups = conv.kernel[...], conv.feature_group_count
    size, _, inputs, outputs = kernel.shape
    count, width = by.shape[:2]
    # Every changed cell's part in every cell that it reaches, then the sum of these parts: a
    # convolution of a window that is mostly border would multiply zeros.
    grouped = by.reshape(count, width, width, groups, inputs)
    weights = kernel.reshape(size, size, inputs, groups, outputs // groups)
    out = jnp.zeros((count, width + size - 1, width + size - 1, outputs), by.dtype)
    for a in range(size):
        for b in range(size):
            part = jnp.einsum("nijgc,cgd->nijgd", grouped, weights[a, b])
            i, j = size - 1 - a, size - 1 - b
            out = out.at[:, i : i + width, j : j + width].add(
                part.reshape(count, width, width, outputs)
            )
    return _Change(cells, out)


def _window(x: Float[Array, "n n C"], cell: Int[Array, ""], width: int) -> Float[Array, "w w C"]:
    """The window of an odd width about a cell; 0 beyond the borders."""
    n, reach = len(x), width // 2
    padded = jnp.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    return jax.lax.dynamic_slice(padded, (*jnp.divmod(cell, n), 0), (width, width, x.shape[-1]))
