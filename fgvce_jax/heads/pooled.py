"""Global average pooling and a linear layer: the head of a ResNet, of a Swin and of a DINOv2."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fgvce_jax.heads.base import AdditiveHead, Head


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PooledTokens(Head):
    """A linear layer on the class token and the patches' mean, after the final norm (DINOv2).

    Context [..., S, C] are the special tokens, the class token first. Its part of the logits is
    the same whatever the cells, so it adds to the bias. A mask scales the normalised patches in
    the mean.

    Attributes:
        kernel: Of the class token and, below, of the patches' mean, [2 C, K].
        bias: [K].
    """

    kernel: Float[Array, "D K"]
    bias: Float[Array, "K"]

    def __call__(self, cells, context):
        pooled = jnp.concatenate([context[..., 0, :], cells.mean((-3, -2))], -1)
        return pooled @ self.kernel + self.bias

    def prepare(self, candidates):
        return candidates @ self._halves()[1]

    def bind(self, context, cells, prepared=None):
        of_class, of_patches = self._halves()
        return PooledLinear(of_patches, self.bias + context[0] @ of_class)

    def _halves(self):
        return jnp.split(self.kernel, 2)
