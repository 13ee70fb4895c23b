"""Guided backpropagation (Springenberg et al., ICLR workshop 2015)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.methods.scores import image_gradients
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.spec import with_activation


@jax.custom_vjp
def guided_relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """ReLU through which only positive gradients come back."""
    return jax.nn.relu(x)


def _forward(
    x: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Bool[Array, "*shape"]]:
    return jax.nn.relu(x), x > 0


def _backward(
    active: Bool[Array, "*shape"], gradient: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"]]:
    return (jnp.where(active, jax.nn.relu(gradient), 0),)


guided_relu.defvjp(_forward, _backward)


@jax.jit
def gbp(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B H W"]:
    """Guided gradient of the class logit, summed over channels in absolute value.

    Args:
        clf: A classifier of this package, whose ReLUs can be replaced.
        images: In [0, 1].
        classes: The class that each map explains.

    Raises:
        InputError: The classifier is made of the user's own functions.
    """
    return jnp.abs(image_gradients(with_activation(clf, guided_relu), images, classes)).sum(-1)
