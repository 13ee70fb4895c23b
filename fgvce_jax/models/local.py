"""Logits after replacing one cell, by computing anew only where the replacement reaches.

Behind an early cut a cell reaches its surroundings: each 3x3 convolution widens its window by one
cell on every side, and a max-pool takes it to one pooled cell. Where the layers end in a head that
is additive in their cells, the rest of the feature map stays as it was. So a candidate costs its
window, and so does an edit of each masked feature map. Exact up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fgvce_jax.heads import Dense, PooledLinear, UnderMasks, as_cells
from fgvce_jax.models.layers import MaxPool, ResidualBlock


def local_form(layers: Sequence[Any], head: Any, n: int) -> BehindBlocks | BehindPool | None:
    """How to follow a change through these layers, in inference mode; None where it cannot be.

    Residual blocks of stride 1 and a pooled head, as long as the last window is no larger than the
    n x n cells; or one 2x2 max-pool of an even number of cells and a dense head.
    """
    if all(isinstance(layer, ResidualBlock) for layer in layers):
        convs = [conv for layer in layers for conv, _ in layer.steps()]
        width = 1 + sum(conv.kernel_size[0] - 1 for conv in convs)
        strided = any(conv.strides not in (1, (1, 1)) for conv in convs)
        fits = isinstance(head, PooledLinear) and not strided and width <= n
        return BehindBlocks(tuple(layers), head) if fits else None
    pooled = len(layers) == 1 and isinstance(layers[0], MaxPool)
    exact = pooled and (layers[0].size, layers[0].padding, n % 2) == (2, 0, 0)
    return BehindPool(head) if exact and isinstance(head, Dense) else None


class BehindPool(NamedTuple):
    """A 2x2 max-pool, then a dense head: a cell matters for one of the pooled cells.

    Attributes:
        head: Of the pooled cells.
    """

    head: Dense

    def substituted(self, rows, cell, placed):
        """`SearchHead.substituted`, of cells."""
        behind = self.head.rows(as_cells(_windows(rows).max(1)))
        pooled, inside = _window_of(cell, len(rows))
        others = jnp.where((inside == cell)[:, None], -jnp.inf, rows[inside]).max(0)
        moved = self.head.place(jnp.maximum(others, placed), None, pooled)
        return self.head.substituted(behind, pooled, moved)

    def under_masks(self, rows, kernels):
        """`SearchHead.under_masks`; held is the first layer's result."""

        def one(kernel):
            pooled = _windows(rows * (1 - kernel)[:, None]).max(1)
            return self.head.rows(as_cells(pooled)).sum(0)

        return self._of_sums(jax.vmap(one)(kernels), len(rows))

    def under_masks_after(self, masks, rows, kernels, cell, row):
        """`SearchHead.under_masks_after`."""

        pooled, inside = _window_of(cell, len(rows))
        kept = (1 - kernels[:, inside])[..., None]
        window = rows[inside]
        before, after = (
            (kept * cells).max(1)
            for cells in (window, jnp.where((inside == cell)[:, None], row, window))
        )
        return self._of_sums(masks.held + self.head.place(after - before, None, pooled), len(rows))

    def _of_sums(self, sums: Float[Array, "M D"], num_cells: int) -> UnderMasks:
        return UnderMasks(self.head.finish(sums, num_cells // 4), sums)


def _windows(rows: Float[Array, "cells C"]) -> Float[Array, "pooled 4 C"]:
    """The cells of each 2x2 window, row-major."""
    cells = as_cells(rows)
    half, channels = len(cells) // 2, cells.shape[-1]
    cells = cells.reshape(half, 2, half, 2, channels).swapaxes(1, 2)
    return cells.reshape(half * half, 4, channels)


def _window_of(cell: Int[Array, ""], num_cells: int) -> tuple[Int[Array, ""], Int[Array, "4"]]:
    """The index of the window that a cell is in, and the window's cells."""
    n = math.isqrt(num_cells)
    i, j = jnp.divmod(cell, n)
    corner = (i // 2 * 2) * n + j // 2 * 2
    return i // 2 * (n // 2) + j // 2, corner + jnp.array([0, 1, n, n + 1])


class _Trace(NamedTuple):
    """B feature maps at one residual block, or the change of each in a window around a cell.

    Attributes:
        inputs: What enters the block, [B, n, n, C].
        linear: The result of each convolution, before its norm.
    """

    inputs: Float[Array, "B n n C"]
    linear: tuple[Float[Array, "B n n _"], ...]


class BehindBlocks(NamedTuple):
    """Residual blocks of stride 1, then a pooled head: a cell matters in a window around it.

    Attributes:
        blocks: In inference mode, first to last.
        head: Of the last one's cells.
    """

    blocks: tuple[ResidualBlock, ...]
    head: PooledLinear

    def substituted(self, rows, cell, placed):
        """`SearchHead.substituted`, of cells."""
        traces, total = self._traced(as_cells(rows)[None])
        _, change = self._followed(traces, cell, placed - rows[cell])
        return self._logits(total + change, len(rows))

    def under_masks(self, rows, kernels):
        """`SearchHead.under_masks`; held are the traces of all masked maps, and their totals."""
        held = self._traced(jax.vmap(as_cells)(rows * (1 - kernels)[..., None]))
        return UnderMasks(self._logits(held[1], len(rows)), held)

    def under_masks_after(self, masks, rows, kernels, cell, row):
        """`SearchHead.under_masks_after`."""
        traces, total = masks.held
        by = (1 - kernels[:, cell])[:, None] * (row - rows[cell])
        changes, change = self._followed(traces, cell, by)
        held = jax.tree.map(lambda x, by: _added(x, by, cell), traces, changes), total + change
        return UnderMasks(self._logits(held[1], len(rows)), held)

    def _logits(self, total: Float[Array, "B D"], num_cells: int) -> Float[Array, "B K"]:
        return self.head.finish(total @ self.head.kernel, num_cells)

    def _traced(
        self, cells: Float[Array, "B n n C"]
    ) -> tuple[tuple[_Trace, ...], Float[Array, "B D"]]:
        """The feature maps at every block, and the sum of the last one's cells."""
        traces = []
        for block in self.blocks:
            linear, x = [], cells
            for index, (conv, norm) in enumerate(block.steps()):
                linear.append(conv(block.activation(x) if index else x))
                x = norm(linear[-1])
            traces.append(_Trace(cells, tuple(linear)))
            cells = block.activation(x + block.shortcut(cells))
        return tuple(traces), cells.sum((1, 2))

    def _followed(
        self, traces: tuple[_Trace, ...], cell: Int[Array, ""], by: Float[Array, "N C"]
    ) -> tuple[tuple[_Trace, ...], Float[Array, "N D"]]:
        """The changes of the traces and of the total where `cell` changes by each of `by`."""
        change, changes = by[:, None, None], []
        for block, trace in zip(self.blocks, traces, strict=True):
            followed, change = _through(block, trace, change, cell)
            changes.append(followed)
        return tuple(changes), change.sum((1, 2))


def _through(
    block: ResidualBlock, trace: _Trace, entering: Float[Array, "N w w C"], cell: Int[Array, ""]
) -> tuple[_Trace, Float[Array, "N W W D"]]:
    """The change of a block's trace and of its result, from that of what enters it."""
    n, linear = trace.inputs.shape[1], []
    before = after = change = entering
    for index, (conv, norm) in enumerate(block.steps()):
        if index:
            change = _inside(n, cell, block.activation(after) - block.activation(before))
        linear.append(_spread(conv, change))
        before = _window(trace.linear[index], cell, linear[-1].shape[1])
        before, after = norm(before), norm(before + linear[-1])
    # The shortcut leads past the convolutions, so its change fills the middle of their window.
    border = (linear[-1].shape[1] - entering.shape[1]) // 2
    wide = jnp.pad(entering, ((0, 0), (border, border), (border, border), (0, 0)))
    beside = _window(trace.inputs, cell, wide.shape[1])
    new = block.activation(after + block.shortcut(beside + wide))
    old = block.activation(before + block.shortcut(beside))
    return _Trace(entering, tuple(linear)), _inside(n, cell, new - old)


def _spread(conv: nnx.Conv, by: Float[Array, "N w w C"]) -> Float[Array, "N W W D"]:
    """A convolution of a change: the sum of every changed cell's part in every cell it reaches.

    As one convolution it would mostly multiply the zeros around the window.
    """
    kernel, groups = conv.kernel[...], conv.feature_group_count
    size, _, inputs, outputs = kernel.shape
    count, width = by.shape[:2]
    grouped = by.reshape(count, width, width, groups, inputs)
    weights = kernel.reshape(size, size, inputs, groups, outputs // groups)
    out = jnp.zeros((count, width + size - 1, width + size - 1, outputs), by.dtype)
    for a in range(size):
        for b in range(size):
            part = jnp.einsum("nijgc,cgd->nijgd", grouped, weights[a, b])
            part = part.reshape(count, width, width, outputs)
            i, j = size - 1 - a, size - 1 - b
            out = out.at[:, i : i + width, j : j + width].add(part)
    return out


def _window(x: Float[Array, "B n n C"], cell: Int[Array, ""], width: int) -> Any:
    """The windows of an odd width about a cell; 0 beyond the borders."""
    n, reach = x.shape[1], width // 2
    around = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    start = (0, *jnp.divmod(cell, n), 0)
    return jax.lax.dynamic_slice(jnp.pad(x, around), start, (len(x), width, width, x.shape[-1]))


def _inside(n: int, cell: Int[Array, ""], by: Float[Array, "N w w C"]) -> Float[Array, "N w w C"]:
    """A change in a window, without what lies beyond the borders of the feature map."""
    return by * _window(jnp.ones((1, n, n, 1)), cell, by.shape[1])


def _added(
    x: Float[Array, "B n n C"], by: Float[Array, "B w w C"], cell: Int[Array, ""]
) -> Float[Array, "B n n C"]:
    """The feature maps with the changes in a window; those beyond the borders are dropped."""
    n, width = x.shape[1], by.shape[1]
    offsets = jnp.arange(width) - width // 2
    i, j = (place + offsets for place in jnp.divmod(cell, n))
    i, j = (jnp.where(index < 0, n, index) for index in (i, j))  # negative ones would wrap
    return x.at[:, i[:, None], j].add(by, mode="drop")
