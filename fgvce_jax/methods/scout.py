"""SCOUT: self-aware discriminant counterfactual explanations (Wang & Vasconcelos, CVPR 2020)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.methods.scores import with_sp
from fgvce_jax.models.classifier import Classifier


def highest_probability(logits: Float[Array, "K"]) -> Float[Array, ""]:
    """The largest softmax probability, written so that its gradient stays exact close to 1."""
    top = jnp.argmax(logits)
    others = jnp.where(jnp.arange(len(logits)) == top, -jnp.inf, logits)
    return jnp.exp(-jax.nn.softplus(jax.nn.logsumexp(others) - logits[top]))


@partial(jax.jit, static_argnames="sp_sigma")
def scout(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    *,
    sp_sigma: float | None = None,
) -> Float[Array, "B n n"]:
    """Evidence for P, none for Q, and a sure classifier: A_P * (max A_Q - A_Q) * A_conf.

    A = sum_channels h * dy/dh, negatives set to 0, for y the logit of P, the logit of Q, and the
    highest softmax probability (the confidence score). 0 or more.
    `sp_sigma` is that of `with_sp`, by the contributions to P.
    """
    cells = clf.features(images)

    def one(cells, predicted, contrast):
        logits, pull_back = jax.vjp(clf.head, cells)

        def attribution(cotangent):
            return jax.nn.relu((cells * pull_back(cotangent)[0]).sum(-1))

        unit = jnp.eye(logits.shape[-1])
        for_p, for_q = attribution(unit[predicted]), attribution(unit[contrast])
        sure = attribution(jax.grad(highest_probability)(logits))
        return for_p * (for_q.max() - for_q) * sure

    with jax.default_matmul_precision("highest"):
        maps = jax.vmap(one)(cells, classes, contrast_classes)
    return with_sp(maps, clf.head, cells, classes, sp_sigma)
