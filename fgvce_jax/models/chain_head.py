"""The rest of a network that was cut early, as a head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.heads import WholePasses
from fgvce_jax.models.layers import Chain
from fgvce_jax.models.local import local_form


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ChainHead(WholePasses):
    """More layers, in inference mode, and then a head: cells [..., n, n, C] to logits [..., K].

    Not additive in the cells, so every mask and candidate takes a whole pass, unless a changed cell
    can be followed as far as it reaches (`fgvce_jax.models.local`).

    Attributes:
        params: The remaining layers' weights, an `nnx.State`.
        stats: Their BatchNorm statistics; no gradient flows into them.
        head: The head behind the last layer.
        graphdef: The layers' static structure, of a `Chain`.
    """

    params: nnx.State
    stats: nnx.State
    head: Callable[[Any], Any]
    graphdef: nnx.GraphDef = field(metadata={"static": True})

    @classmethod
    def from_chain(cls, chain: Chain, head: Callable[[Any], Any]) -> ChainHead:
        """Split the layers' weights from their structure."""
        graphdef, params, stats = nnx.split(chain, nnx.Param, ...)
        return cls(params, stats, head, graphdef)

    def module(self) -> Chain:
        """The remaining layers again, holding these weights."""
        return nnx.merge(self.graphdef, self.params, jax.lax.stop_gradient(self.stats))

    def behind(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch m m D"]:
        """The cells behind the last layer."""
        batch = cells.shape[:-3]
        flat = cells.reshape(math.prod(batch), *cells.shape[-3:])
        out = self._inferring()(flat)
        return out.reshape(*batch, *out.shape[1:])

    def __call__(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch K"]:
        return self.head(self.behind(cells))

    def substituted(self, rows, cell, placed):
        return self._form(rows).substituted(rows, cell, placed)

    def under_masks(self, rows, kernels):
        return self._form(rows).under_masks(rows, kernels)

    def under_masks_after(self, masks, rows, kernels, cell, row):
        return self._form(rows).under_masks_after(masks, rows, kernels, cell, row)

    def _form(self, rows: Float[Array, "cells C"]) -> Any:
        chain = self._inferring()
        layers = [chain.units[name] for name in chain.order]
        return local_form(layers, self.head, math.isqrt(len(rows))) or super()

    def _inferring(self) -> Chain:
        chain = self.module()
        chain.eval()
        return chain
