"""Global average pooling and a linear layer: the head of a ResNet."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from fgvce_jax.heads.base import AdditiveHead


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PooledLinear(AdditiveHead):
    """Global average pooling and a linear layer (ResNet): A_k = kernel, g(z) = z / n^2 + bias.

    Attributes:
        kernel: [C, K].
        bias: [K].
    """

    kernel: Float[Array, "C K"]
    bias: Float[Array, "K"]

    def __call__(self, cells):
        return cells.mean((-3, -2)) @ self.kernel + self.bias

    def rows(self, cells):
        return cells.reshape(-1, cells.shape[-1]) @ self.kernel

    def prepare(self, candidates):
        return candidates @ self.kernel

    def place(self, candidates, prepared, cell):
        return prepared

    def finish(self, z, num_cells):
        return z / num_cells + self.bias
