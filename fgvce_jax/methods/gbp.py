"""Guided backpropagation (Springenberg et al., ICLR workshop 2015)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.errors import InputError
from fgvce_jax.methods.scores import image_gradients
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.spec import with_activation


@jax.custom_vjp
def guided_relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """ReLU through which only positive gradients come back."""
    return jax.nn.relu(x)


guided_relu.defvjp(
    fwd=lambda x: (jax.nn.relu(x), x > 0),
    bwd=lambda active, gradient: (jnp.where(active, jax.nn.relu(gradient), 0),),
)


@jax.jit
def gbp(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B H W"]:
    """Guided gradient of the class logit, summed over channels in absolute value.

    Raises:
        InputError: A classifier of the user's own functions, whose ReLUs cannot be replaced, or a
            network without any, such as a ConvNeXt or a vision transformer.
    """
    guided = with_activation(clf, guided_relu)
    if jax.tree.structure(guided) == jax.tree.structure(clf):
        raise InputError(f"gbp: needs a network of ReLUs, {clf.spec.arch} has none")
    return jnp.abs(image_gradients(guided, images, classes)).sum(-1)
