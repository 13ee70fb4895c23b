"""The questions that contributions, bank and search ask of a head.

A head maps cells [..., n, n, C] to logits [..., K]. Most heads are *additive in the cells up to a
point*: z = sum_k A_k h_k + b and logits = g(z). For those, masking or replacing a cell changes z
by a known D-vector, so no full pass through the head is needed. Every other function is searched
by whole passes (`fgvce_jax.heads.Direct`).

Both kinds answer the same questions about one feature map, held as `rows` [n^2, D]: each cell's
share of the result. For an additive head a row is A_k h_k; for a direct one it is the cell itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Array, Float, Int


class SearchHead(ABC):
    """A head with the operations that contributions, bank and search are written in.

    `rows` [n^2, D] stand for one feature map; `candidates` [N, C] are cells that may replace one
    of its own, and `prepared` the result of `prepare` on them, made once for all searches.
    """

    @abstractmethod
    def __call__(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch K"]:
        """Logits, by the plain definition."""

    @abstractmethod
    def rows(self, cells: Float[Array, "n n C"]) -> Float[Array, "cells D"]:
        """Each cell's share of the result, in its place."""

    @abstractmethod
    def prepare(self, candidates: Float[Array, "*batch N C"]) -> Any:
        """The part of `place` that does not depend on which cell is replaced."""

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
        self, rows: Float[Array, "cells D"], kernels: Float[Array, "cells cells"]
    ) -> Float[Array, "cells K"]:
        """Logits with the cells scaled by 1 - kernels[k], for every k (Eq. 4)."""

    @abstractmethod
    def substituted(
        self, rows: Float[Array, "cells D"], cell: Int[Array, ""], placed: Float[Array, "N D"]
    ) -> Float[Array, "N K"]:
        """Logits with `cell` replaced by each placed candidate in turn."""


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
        return self.finish(rows.sum(0) - kernels @ rows, len(rows))

    def substituted(self, rows, cell, placed):
        return self.finish(rows.sum(0) - rows[cell] + placed, len(rows))
