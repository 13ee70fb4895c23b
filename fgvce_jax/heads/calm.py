"""The head of CALM and the two losses that train it (Kim et al., "Keep CALM and Improve Visual
Feature Attribution", ICCV 2021).

The cell z that decides is a latent variable: p(y, z | x) = p(y | x, z) p(z | x). Both losses map
(head, cells, labels) to (loss, logits). As in the authors' code, no gradient flows by default
through the sum that the attention is divided by; the paper does not mention it.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

EPSILON = 1e-8
"""Added, before the logarithm, to each p(z | x) below it."""


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

    def of_cell(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch n n K"]:
        """log p(y | x, z)."""
        return jax.nn.log_softmax(cells @ self.kernel + self.bias)

    def attention(
        self, cells: Float[Array, "*batch n n C"], detached: bool = False
    ) -> Float[Array, "*batch n n 1"]:
        """p(z | x); the same in every cell where no cell has any attention.

        `detached` is for training: no gradient flows through the sum over the cells.
        """
        attention = jax.nn.relu(cells @ self.attention_kernel + self.attention_bias)
        total = attention.sum((-3, -2), keepdims=True)
        if detached:
            total = jax.lax.stop_gradient(total)
        even = 1 / (cells.shape[-3] * cells.shape[-2])
        return jnp.where(total > 0, attention / jnp.where(total > 0, total, 1), even)

    def joint(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch n n K"]:
        """p(y, z | x)."""
        return jnp.exp(self.of_cell(cells)) * self.attention(cells)

    def likelihood(
        self, cells: Float[Array, "*batch n n C"], detached: bool = False
    ) -> Float[Array, "*batch K"]:
        """log p(y | x); `detached` as in `attention`."""
        weights = jnp.broadcast_to(self.attention(cells, detached), (*cells.shape[:-1], 1))
        return jax.nn.logsumexp(self.of_cell(cells), axis=(-3, -2), b=weights)

    def __call__(self, cells: Float[Array, "*batch n n C"]) -> Float[Array, "*batch K"]:
        """log p(y | x)."""
        return self.likelihood(cells)


def of_class(values: Float[Array, "B n n K"], classes: Int[Array, "B"]) -> Float[Array, "B n n"]:
    """The values of each image's class."""
    return jnp.take_along_axis(values, classes[:, None, None, None], axis=-1)[..., 0]


def marginal_likelihood(
    head: CalmHead,
    cells: Float[Array, "B n n C"],
    labels: Int[Array, "B"],
    *,
    detached: bool = True,
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """CALM-ML: mean of -log sum_z p(y, z | x); and the logits.

    `detached`: no gradient flows through the sum that the attention is divided by.
    """
    logits = head.likelihood(cells, detached)
    return -jnp.take_along_axis(logits, labels[:, None], axis=-1).mean(), logits


def expectation_maximisation(
    head: CalmHead,
    cells: Float[Array, "B n n C"],
    labels: Int[Array, "B"],
    *,
    detached: bool = True,
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """CALM-EM: mean of -sum_z q(z) log p(y, z | x), q the posterior p(z | x, y); and the logits.

    q is held fixed, so the gradient is that of `marginal_likelihood` at the same weights; the
    value bounds that one from above. `detached` as there.
    """
    attention = head.attention(cells, detached)
    safe = jnp.where(attention < EPSILON, attention + EPSILON, attention)
    log_joint = of_class(head.of_cell(cells) + jnp.log(safe), labels)
    joint = of_class(head.joint(cells), labels)
    posterior = jax.lax.stop_gradient(joint / (joint.sum((1, 2), keepdims=True) + 1e-10))
    return -(posterior * log_joint).sum((1, 2)).mean(), head(cells)
