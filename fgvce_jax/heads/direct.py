"""Any other head, by whole passes: the plain definition that the additive heads are held to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from fgvce_jax.errors import InputError
from fgvce_jax.heads.base import Head, SearchHead


class WholePasses(SearchHead):
    """A head by whole passes: the plain definition of every operation, a cell its own row."""

    def rows(self, cells):
        return cells.reshape(-1, cells.shape[-1])

    def prepare(self, candidates):
        return None

    def place(self, candidates, prepared, cell):
        return candidates

    def logits(self, rows):
        return self(as_cells(rows))

    def masked(self, rows, kernels):
        return jax.vmap(lambda kernel: self.logits(rows * (1 - kernel)[:, None]))(kernels)

    def substituted(self, rows, cell, placed):
        return jax.vmap(lambda row: self.logits(rows.at[cell].set(row)))(placed)


def as_cells(rows: Float[Array, "cells C"]) -> Float[Array, "n n C"]:
    """Rows that are cells, in their square."""
    side = math.isqrt(len(rows))
    return rows.reshape(side, side, -1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Direct(WholePasses):
    """Any function from cells to logits.

    Attributes:
        function: Cells [..., n, n, C], and the context where there is one, to logits [..., K], a
            pytree callable.
        context: Of one image, once bound to it.
    """

    function: Callable[..., Any]
    context: Any = None

    def __call__(self, cells, *context):
        held = context if self.context is None else (self.context,)
        return self.function(cells, *held)

    def bind(self, context, cells, prepared=None):
        return self if context is None else Direct(self.function, context)


def searchable(head: Callable[..., Any]) -> Head:
    """`head` itself where it answers the search's questions, else as `Direct`."""
    if isinstance(head, Head):
        return head
    if jax.tree_util.all_leaves([head]):
        head = jax.tree_util.Partial(head)
    return Direct(head)


def of_one_image(head: Callable[..., Any]) -> SearchHead:
    """`searchable`, for a head that needs no context, or was bound to one.

    Raises:
        InputError: It was not.
    """
    head = searchable(head)
    if not isinstance(head, SearchHead):
        raise InputError(
            f"head: a {type(head).__name__} needs the image's context, "
            f"expected head.bind(context, cells)"
        )
    return head
