"""Attention rollout (Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.whole_vit import whole_vit


@jax.jit
def rollout(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B n n"]:
    """The class token's row of prod_l (A_l + I) / 2, of the patches; the same for every class.

    A_l [T, T] is the mean over the heads of block l's attention, and half of each token comes by
    the shortcut. Where several tokens are read (a distilled DeiT), the mean of their rows.

    Raises:
        InputError: No vision transformer of this package.
    """
    vit = whole_vit(clf, images, "rollout")
    count = max(vit.design.read, 1)
    rows = jnp.broadcast_to(jnp.eye(vit.tokens.shape[1]), (len(images), *2 * vit.tokens.shape[1:2]))
    flow = rows
    for step in vit.steps():
        flow = (step.attention.mean(1) + rows) / 2 @ flow
    return vit.of_patches(flow[:, :count].mean(1))
