"""LeGrad: sensitivity of a class to each block's attention (Bousselham et al., "LeGrad: An
Explainability Method for Vision Transformers via Feature Formation Sensitivity", ICCV 2025)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.methods.scores import pick
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.whole_vit import WholeViT, whole_vit


@jax.jit
def legrad(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B n n"]:
    """mean_l mean_hi ReLU(ds_l / dA_l), of the patches: what they are to the class in each block.

    A_l [heads, T, T] is the attention of block l after its softmax, and s_l the logit that the
    mean of that block's tokens would have behind the final norm; h and i are heads and queries.

    Raises:
        InputError: No vision transformer of this package.
    """
    vit = whole_vit(clf, images, "legrad")
    total = jnp.zeros(vit.tokens.shape[:2])
    for step in vit.steps():
        slope = jax.grad(lambda a, step=step: _score(vit, step.output(a), classes).sum())(
            step.attention
        )
        total = total + jax.nn.relu(slope).mean((1, 2))
    return vit.of_patches(total / len(vit.blocks))


def _score(
    vit: WholeViT, tokens: Float[Array, "B T C"], classes: Int[Array, "B"]
) -> Float[Array, "B"]:
    """The class logit of a block's tokens, pooled as if the block were the last."""
    if vit.design.read:
        pooled = vit.norm.compared(tokens.mean(1))
    else:  # a DINOv2 reads its class token and its patches' mean
        normed = vit.norm.compared(tokens)
        pooled = jnp.concatenate([normed[:, 0], normed[:, vit.special :].mean(1)], -1)
    logits = [pooled @ kernel + bias for kernel, bias in vit.outputs]
    return pick(jnp.stack(logits).mean(0), classes)
