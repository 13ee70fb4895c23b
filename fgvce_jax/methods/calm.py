"""CALM: class activation latent mapping (Kim et al., "Keep CALM and Improve Visual Feature
Attribution", ICCV 2021).

The cell z that decides is a latent variable: p(y, z | x) = p(y | x, z) p(z | x). A classifier needs
a head of this kind, trained by marginal likelihood or by expectation-maximisation; its attribution
map is then p(y = c, z | x), a probability and not a heuristic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.errors import InputError
from fgvce_jax.heads import CalmHead, Direct
from fgvce_jax.models.classifier import Classifier


def calm_head(clf: Classifier) -> CalmHead:
    """The classifier's CALM head.

    Raises:
        InputError: It has none.
    """
    head = clf.head.function if isinstance(clf.head, Direct) else clf.head
    if not isinstance(head, CalmHead):
        raise InputError(
            f"calm: the classifier's head is a {type(head).__name__}, expected a CalmHead; "
            "train one with `fgvce train --head calm_em` (or calm_ml)"
        )
    return head


@jax.jit
def calm(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B n n"]:
    """p(y = c, z | x): the probability that the class is c and that cell z decides it, in [0, 1].

    Its sum over the cells is the classifier's p(c | x).

    Args:
        clf: A classifier with a `CalmHead`.
        images: float32 in [0, 1].
        classes: The class c of each image.

    Raises:
        InputError: The classifier has another head.
    """
    head = calm_head(clf)
    with jax.default_matmul_precision("highest"):
        joint = jnp.exp(head.joint(clf.features(images)))
    return jnp.take_along_axis(joint, classes[:, None, None, None], axis=-1)[..., 0]


def _trained_joint(
    clf: Classifier, images: Float[Array, "B H W 3"], labels: Int[Array, "B"]
) -> tuple[Float[Array, "B n*n"], Float[Array, "B K"], Classifier]:
    """log p(y = label, z | x), log p(y | x), and the classifier with its statistics moved on."""
    cells, features = clf.features.train(images)
    joint = calm_head(clf).joint(cells)
    of_label = jnp.take_along_axis(joint, labels[:, None, None, None], axis=-1)
    return (
        of_label.reshape(len(labels), -1),
        jax.nn.logsumexp(joint, axis=(1, 2)),
        replace(clf, features=features),
    )


def marginal_likelihood(
    clf: Classifier, images: Float[Array, "B H W 3"], labels: Int[Array, "B"]
) -> tuple[Float[Array, ""], tuple[Classifier, Any]]:
    """CALM-ML: mean of -log sum_z p(y, z | x), a loss for `fgvce_jax.train`.

    Returns (loss, (classifier with its BatchNorm statistics moved on, logits [B, K])).
    """
    joint, logits, moved = _trained_joint(clf, images, labels)
    return -jax.nn.logsumexp(joint, axis=-1).mean(), (moved, logits)


def expectation_maximisation(
    clf: Classifier, images: Float[Array, "B H W 3"], labels: Int[Array, "B"]
) -> tuple[Float[Array, ""], tuple[Classifier, Any]]:
    """CALM-EM: mean of -sum_z q(z) log p(y, z | x), q the posterior p(z | x, y) held fixed.

    A loss for `fgvce_jax.train`. Its gradient is that of `marginal_likelihood` at the same weights;
    its value bounds that one from above.
    Returns (loss, (classifier with its BatchNorm statistics moved on, logits [B, K])).
    """
    joint, logits, moved = _trained_joint(clf, images, labels)
    posterior = jax.lax.stop_gradient(jax.nn.softmax(joint, axis=-1))
    return -(posterior * joint).sum(-1).mean(), (moved, logits)
