"""The questions that contributions, bank and search ask of a head.

A head maps cells [..., n, n, C] to logits [..., K]. Most heads are *additive in the cells up to a
point*: z = sum_k A_k h_k + b and logits = g(z). For those, masking or replacing a cell changes z
by a known D-vector, so no full pass through the head is needed. Every other function is searched
by whole passes (`fgvce_jax.heads.Direct`).

Both kinds answer the same questions about one feature map, held as `rows` [n^2, D]: each cell's
share of the result. For an additive head a row is A_k h_k; for a direct one it is the cell itself.

Some networks need more of an image than its cells: a vision transformer's class token, say, which
no edit touches. This is the image's *context*. A head with a context answers the questions once it
is bound to it (`Head.bind`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Head(ABC):
    """A head for any image: what can be computed of candidates before an image is known."""

    @abstractmethod
    def __call__(self, cells: Float[Array, "*batch n n C"], *context: Any) -> Float[Array, "*b K"]:
        """Logits, by the plain definition, of cells and their context (where there is one)."""

    @abstractmethod
    def prepare(self, candidates: Float[Array, "*batch N C"]) -> Any:
        """The part of `SearchHead.place` that depends neither on the image nor on the cell."""

    @abstractmethod
    def bind(self, context: Any, cells: Float[Array, "n n C"], prepared: Any = None) -> SearchHead:
        """The head of one image.

        Args:
            context: The image's context; None where there is none.
            cells: The image's feature map.
            prepared: The result of `prepare` on the candidates of its search, if one follows.
        """

    def compared(self, cells: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """The vectors whose cosine is the similarity of two cells."""
        return cells


class UnderMasks(NamedTuple):
    """One feature map under M masks.

    Attributes:
        logits: Of each, [M, K].
        held: Intermediate results from which an edit is cheaper than from nothing; None if none is.
    """

    logits: Float[Array, "M K"]
    held: Any = None


class SearchHead(Head):
    """A head with the operations that contributions, bank and search are written in.

    `rows` [n^2, D] stand for one feature map; `candidates` [N, C] are cells that may replace one
    of its own, and `prepared` the result of `prepare` on them, made once for all searches.
    """

    def bind(self, context, cells, prepared=None):
        return self

    @abstractmethod
    def rows(self, cells: Float[Array, "n n C"]) -> Float[Array, "cells D"]:
        """Each cell's share of the result, in its place."""

    @abstractmethod
    def place(
        self, candidates: Float[Array, "N C"], prepared: Any, cell: Int[Array, ""]
    ) -> Float[Array, "N D"]:
        """The rows that the candidates would have in the place of `cell`."""

    @abstractmethod
    def logits(self, rows: Float[Array, "cells D"]) -> Float[Array, "K"]:
        """Logits of the feature map."""

    @abstractmethod
    def masked(
        self, rows: Float[Array, "cells D"], kernels: Float[Array, "M cells"]
    ) -> Float[Array, "M K"]:
        """Logits with the cells scaled by 1 - kernels[k], for every k (Eq. 4)."""

    @abstractmethod
    def substituted(
        self, rows: Float[Array, "cells D"], cell: Int[Array, ""], placed: Float[Array, "N D"]
    ) -> Float[Array, "N K"]:
        """Logits with `cell` replaced by each placed candidate in turn."""

    def under_masks(
        self, rows: Float[Array, "cells D"], kernels: Float[Array, "M cells"]
    ) -> UnderMasks:
        """The same as `masked`, to be carried from edit to edit."""
        return UnderMasks(self.masked(rows, kernels))

    def under_masks_after(
        self,
        masks: UnderMasks,
        rows: Float[Array, "cells D"],
        kernels: Float[Array, "M cells"],
        cell: Int[Array, ""],
        row: Float[Array, "D"],
    ) -> UnderMasks:
        """`masks` of `rows` once `row` stands in the place of `cell`; by default from nothing."""
        return self.under_masks(rows.at[cell].set(row), kernels)


class AdditiveHead(SearchHead):
    """z = sum_k A_k h_k, logits = g(z): masks and replacements act on z alone.

    A subclass gives `rows` (A_k h_k), `prepare`, `place` and `finish` (g, biases included).
    """

    @abstractmethod
    def finish(self, z: Float[Array, "*batch D"], num_cells: int) -> Float[Array, "*batch K"]:
        """Logits from the sum of `num_cells` rows."""

    def logits(self, rows):
        return self.finish(rows.sum(0), len(rows))

    def masked(self, rows, kernels):
        return self.finish((1 - kernels) @ rows, len(rows))

    def substituted(self, rows, cell, placed):
        # The other rows' sum, not the whole less one row: that one may be all of it but a rest.
        others = jnp.where(jnp.arange(len(rows))[:, None] == cell, 0, rows).sum(0)
        return self.finish(others + placed, len(rows))
