"""SCOUT: self-aware discriminant counterfactual explanations (Wang & Vasconcelos, CVPR 2020).

The authors' code cuts a network at its last ReLU: a ResNet before its average pooling, which is
where this package cuts one, and a VGG before its last max-pool (`cut="conv"`).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.checks import check_choice
from fgvce_jax.methods.scores import with_sp
from fgvce_jax.models.classifier import Classifier, head_of


def highest_probability(logits: Float[Array, "K"]) -> Float[Array, ""]:
    """The largest softmax probability, written so that its gradient stays exact close to 1."""
    top = jnp.argmax(logits)
    others = jnp.where(jnp.arange(len(logits)) == top, -jnp.inf, logits)
    return jnp.exp(-jax.nn.softplus(jax.nn.logsumexp(others) - logits[top]))


FLOOR = 1e-7  # in the place of negative attributions in the authors' code


@partial(jax.jit, static_argnames=("reading", "sp_sigma"))
def scout(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    *,
    reading: str = "code",
    sp_sigma: float | None = None,
) -> Float[Array, "B n n"]:
    """Evidence for P, none for Q, and a sure classifier: A_P * (max A_Q - A_Q) * A_conf; 0 or more.

    A_P and A_Q are sum_channels h * dy/dh for y the logit of P and of Q. A_conf is made of the
    gradient of the confidence score, the highest softmax probability.

    Args:
        reading: Of negatives, and of A_conf. "code", the authors' code: A_P and A_Q are 1e-7 where
            they are negative, and A_conf is sum_channels h * ReLU(dy/dh). "paper": A_conf is made
            like the other two, and all three are 0 where they are negative.
        sp_sigma: That of `with_sp`, by the contributions to P.

    Raises:
        InputError: An unknown reading.
    """
    check_choice("reading", reading, ("code", "paper"))
    feature_map = clf.feature_map(images)

    def one(of_image, predicted, contrast):
        cells = of_image.cells
        logits, pull_back = jax.vjp(head_of(clf, of_image), cells)

        def attribution(cotangent):
            return (cells * pull_back(cotangent)[0]).sum(-1)

        unit = jnp.eye(logits.shape[-1])
        for_p, for_q = attribution(unit[predicted]), attribution(unit[contrast])
        of_confidence = jax.grad(highest_probability)(logits)
        if reading == "code":
            for_p, for_q = (jnp.where(values < 0, FLOOR, values) for values in (for_p, for_q))
            sure = (cells * jax.nn.relu(pull_back(of_confidence)[0])).sum(-1)
        else:
            for_p, for_q = jax.nn.relu(for_p), jax.nn.relu(for_q)
            sure = jax.nn.relu(attribution(of_confidence))
        return for_p * (for_q.max() - for_q) * sure

    with jax.default_matmul_precision("highest"):
        maps = jax.vmap(one)(feature_map, classes, contrast_classes)
    return with_sp(maps, clf, feature_map, classes, sp_sigma)
