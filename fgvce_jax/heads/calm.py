"""The head of CALM and the two losses that train it (Kim et al., "Keep CALM and Improve Visual
Feature Attribution", ICCV 2021).

The cell z that decides is a latent variable: p(y, z | x) = p(y | x, z) p(z | x). Both losses map
(head, cells, labels) to (loss, logits).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

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


def of_class(joint: Float[Array, "B n n K"], classes: Int[Array, "B"]) -> Float[Array, "B n n"]:
    """log p(y = c, z | x) of each image's class c."""
    return jnp.take_along_axis(joint, classes[:, None, None, None], axis=-1)[..., 0]


def marginal_likelihood(
    head: CalmHead, cells: Float[Array, "B n n C"], labels: Int[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """CALM-ML: mean of -log sum_z p(y, z | x); and the logits."""
    joint = head.joint(cells)
    of_label = of_class(joint, labels).reshape(len(labels), -1)
    return -jax.nn.logsumexp(of_label, axis=-1).mean(), jax.nn.logsumexp(joint, axis=(1, 2))


def expectation_maximisation(
    head: CalmHead, cells: Float[Array, "B n n C"], labels: Int[Array, "B"]
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """CALM-EM: mean of -sum_z q(z) log p(y, z | x), q the posterior p(z | x, y); and the logits.

    q is held fixed, so the gradient is that of `marginal_likelihood` at the same weights; the
    value bounds that one from above.
    """
    joint = head.joint(cells)
    of_label = of_class(joint, labels).reshape(len(labels), -1)
    posterior = jax.lax.stop_gradient(jax.nn.softmax(of_label, axis=-1))
    return -(posterior * of_label).sum(-1).mean(), jax.nn.logsumexp(joint, axis=(1, 2))
