"""Any other head, by whole passes: the plain definition that the additive heads are held to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from fgvce_jax.heads.base import SearchHead


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Direct(SearchHead):
    """Any function from cells to logits, by whole passes: the plain definition of every operation.

    Attributes:
        function: Cells [..., n, n, C] to logits [..., K], a pytree callable.
    """

    function: Callable[[Any], Any]

    def __call__(self, cells):
        return self.function(cells)

    def rows(self, cells):
        return cells.reshape(-1, cells.shape[-1])

    def prepare(self, candidates):
        return None

    def place(self, candidates, prepared, cell):
        return candidates

    def logits(self, rows):
        side = math.isqrt(len(rows))
        return self.function(rows.reshape(side, side, -1))

    def masked(self, rows, kernels):
        return jax.vmap(lambda kernel: self.logits(rows * (1 - kernel)[:, None]))(kernels)

    def substituted(self, rows, cell, placed):
        return jax.vmap(lambda row: self.logits(rows.at[cell].set(row)))(placed)


def searchable(head: Callable[[Any], Any]) -> SearchHead:
    """`head` itself where it answers the search's questions, else as `Direct`."""
    if isinstance(head, SearchHead):
        return head
    if jax.tree_util.all_leaves([head]):
        head = jax.tree_util.Partial(head)
    return Direct(head)
