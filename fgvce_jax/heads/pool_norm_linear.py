"""Global average pooling, a layer norm and a linear layer: the head of a ConvNeXt."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fgvce_jax.heads.base import AdditiveHead


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PoolNormLinear(AdditiveHead):
    """Pooling, then a layer norm, then a linear layer: A_k = 1, g(z) = norm(z / n^2) kernel + bias.

    The pooled mean is additive in the cells, and the norm is a part of g. A mask scales the cells
    before they are pooled, so the norm sees it.

    Attributes:
        scale: Of the layer norm, [C].
        shift: Likewise.
        kernel: [C, K].
        bias: [K].
        epsilon: Added to the variance in the norm.
    """

    scale: Float[Array, "C"]
    shift: Float[Array, "C"]
    kernel: Float[Array, "C K"]
    bias: Float[Array, "K"]
    epsilon: float = field(default=1e-6, metadata={"static": True})

    def __call__(self, cells):
        return self._of_mean(cells.mean((-3, -2)))

    def rows(self, cells):
        return cells.reshape(-1, cells.shape[-1])

    def prepare(self, candidates):
        return None

    def place(self, candidates, prepared, cell):
        return candidates

    def finish(self, z, num_cells):
        return self._of_mean(z / num_cells)

    def _of_mean(self, pooled: Float[Array, "*batch C"]) -> Float[Array, "*batch K"]:
        centred = pooled - pooled.mean(-1, keepdims=True)
        deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return (centred / deviation * self.scale + self.shift) @ self.kernel + self.bias
