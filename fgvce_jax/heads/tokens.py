"""Any other head on the tokens of a transformer, by whole passes with masks on the attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fgvce_jax.heads.base import Head
from fgvce_jax.heads.direct import Direct, as_cells


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tokens(Head):
    """A function of patches, special tokens and a mask on the attention that the patches receive.

    A norm follows the cut of a transformer, and undoes a scaling of the cells. So a mask G scales
    the attention mass of a patch instead: log(1 - G) is added to its attention logits as a key,
    in every block behind the cut.

    Attributes:
        function: (cells [..., n, n, C], context, log_mask [..., n, n] or None) to logits
            [..., K], a pytree callable.
        norm: The norm that follows the cut: cells are compared behind it. A pytree callable.
    """

    function: Callable[..., Any]
    norm: Callable[[Any], Any]

    def __call__(self, cells, context):
        return self.function(cells, context, None)

    def prepare(self, candidates):
        return None

    def compared(self, cells):
        return self.norm(cells)

    def bind(self, context, cells, prepared=None):
        return BoundTokens(self.function, context, self.norm)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BoundTokens(Direct):
    """`Tokens` and one image's context."""

    norm: Any = None

    def __call__(self, cells, log_mask=None):
        return self.function(cells, self.context, log_mask)

    def compared(self, cells):
        return self.norm(cells)

    def masked(self, rows, kernels):
        cells = as_cells(rows)
        logs = jnp.log1p(-kernels).reshape(-1, *cells.shape[:2])
        return jax.vmap(partial(self, cells))(logs)
