"""Fully connected layers on the flattened cells: the head of a VGG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fgvce_jax.heads.base import AdditiveHead


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Dense(AdditiveHead):
    """Fully connected layers on the flattened cells (VGG): A_k = kernel[k], g the other layers.

    Attributes:
        kernel: [n, n, C, D], the first layer (fc6), a matrix for each cell.
        bias: [D].
        layers: The layers after it, each (kernel [D, E], bias [E]).
        activation: Between layers; none after the last.
    """

    kernel: Float[Array, "n n C D"]
    bias: Float[Array, "D"]
    layers: tuple[tuple[Float[Array, "D E"], Float[Array, "E"]], ...]
    activation: Callable[[Any], Any] = field(default=jax.nn.relu, metadata={"static": True})

    def __call__(self, cells):
        flat = cells.reshape(*cells.shape[:-3], -1)
        return self.finish(flat @ self.kernel.reshape(flat.shape[-1], -1), 0)

    def rows(self, cells):
        return jnp.einsum("ijc,ijcd->ijd", cells, self.kernel).reshape(-1, self.bias.shape[0])

    def prepare(self, candidates):
        return None  # a candidate's row depends on the cell it replaces

    def place(self, candidates, prepared, cell):
        return candidates @ self.kernel.reshape(-1, *self.kernel.shape[2:])[cell]

    def finish(self, z, num_cells):
        z = z + self.bias
        for kernel, bias in self.layers:
            z = self.activation(z) @ kernel + bias
        return z
