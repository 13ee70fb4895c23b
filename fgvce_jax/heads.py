"""What follows the last convolutional stage, in the shape the search needs.

A head maps cells [..., n, n, C] to logits [..., K]. Most heads are *additive in the cells up to a
point*: z = sum_k A_k h_k + b and logits = g(z). For those (`PooledLinear`, `Dense`) masking or
replacing a cell changes z by a known D-vector, so no full pass through the head is needed. Every
other function is wrapped as `Direct`, which passes whole feature maps.

Both kinds answer the same few questions about one feature map, held as `rows` [n^2, D]: what each
cell amounts to. For an additive head a row is A_k h_k; for a direct one it is the cell itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key


class SearchHead(ABC):
    """A head with the operations that contributions, bank and search are written in.

    `rows` [n^2, D] stand for one feature map; `candidates` [N, C] are cells that may replace one
    of its own, and `prepared` is what `prepare` made of them once, for all searches.
    """

    @abstractmethod
    def __call__(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch K"]:
        """Logits, by the plain definition."""

    @abstractmethod
    def rows(self, cells: Float[Array, "n n C"]) -> Float[Array, "n*n D"]:
        """What each cell amounts to, in its place."""

    @abstractmethod
    def prepare(self, candidates: Float[Array, "*batch N C"]) -> Any:
        """What can be computed of candidates before it is known which cell they replace."""

    @abstractmethod
    def place(
        self, candidates: Float[Array, "N C"], prepared: Any, cell: Int[Array, ""]
    ) -> Float[Array, "N D"]:
        """The rows that the candidates would have in the place of `cell`."""

    @abstractmethod
    def logits(self, rows: Float[Array, "n*n D"]) -> Float[Array, "K"]:
        """Logits of the feature map."""

    @abstractmethod
    def masked(
        self, rows: Float[Array, "n*n D"], kernels: Float[Array, "n*n n*n"]
    ) -> Float[Array, "n*n K"]:
        """Logits with the cells scaled by 1 - kernels[k], for every k (Eq. 4)."""

    @abstractmethod
    def substituted(
        self, rows: Float[Array, "n*n D"], cell: Int[Array, ""], placed: Float[Array, "N D"]
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


LEAST_ATTENTION = 1e-6
"""Added to every cell's attention: where no cell has any, all have the same."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class CalmHead:
    """The head of CALM (Kim et al., ICCV 2021), searched by whole passes.

    It maps cells [..., n, n, C] to log p(y | x) [..., K], which are logits: their softmax is
    p(y | x) = sum_z p(y | x, z) p(z | x), with the deciding cell z a latent variable.

    Attributes:
        kernel: Of p(y | x, z) = softmax_y(h_z kernel + bias), a 1x1 convolution, [C, K].
        bias: [K].
        attention_kernel: Of p(z | x), ReLU(h_z attention_kernel + attention_bias) divided by its
            sum over the cells, [C, 1].
        attention_bias: [1].
    """

    kernel: Float[Array, "C K"]
    bias: Float[Array, "K"]
    attention_kernel: Float[Array, "C 1"]
    attention_bias: Float[Array, "1"]

    @classmethod
    def create(cls, key: Key[Array, ""], channels: int, num_classes: int) -> CalmHead:
        """Fresh weights: Glorot uniform kernels, biases 0 and, for the attention, 1.

        The attention starts above 0, since a cell without any gets no gradient.
        """
        glorot = jax.nn.initializers.glorot_uniform()
        for_class, for_attention = jax.random.split(key)
        return cls(
            kernel=glorot(for_class, (channels, num_classes)),
            bias=jnp.zeros(num_classes),
            attention_kernel=glorot(for_attention, (channels, 1)),
            attention_bias=jnp.ones(1),
        )

    def joint(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch n n K"]:
        """log p(y, z | x)."""
        attention = jax.nn.relu(cells @ self.attention_kernel + self.attention_bias)
        attention = attention + LEAST_ATTENTION
        log_attention = jnp.log(attention / attention.sum((-3, -2), keepdims=True))
        return jax.nn.log_softmax(cells @ self.kernel + self.bias) + log_attention

    def __call__(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch K"]:
        """log p(y | x)."""
        return jax.nn.logsumexp(self.joint(cells), axis=(-3, -2))


def searchable(head: Callable[[Any], Any]) -> SearchHead:
    """`head` itself where it answers the search's questions, else as `Direct`."""
    if isinstance(head, SearchHead):
        return head
    if jax.tree_util.all_leaves([head]):
        head = jax.tree_util.Partial(head)
    return Direct(head)
