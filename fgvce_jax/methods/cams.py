"""Class activation maps weighted by gradients: GradCAM (Selvaraju et al., ICCV 2017), GradCAM++
(Chattopadhyay et al., WACV 2018) and LayerCAM (Jiang et al., TIP 2021).

Each is ReLU(sum_c w_c h_c), not normalised, h the cells and w made of the gradient g of the class
logit with respect to them. A *weighting* maps (h, g) of one sample to w, [n, n, C] or [C].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.methods.scores import pick
from fgvce_jax.models.classifier import Classifier, FeatureMap

Weighting = Callable[[Float[Array, "n n C"], Float[Array, "n n C"]], Any]


def gradcam_weights(
    cells: Float[Array, "n n C"], gradient: Float[Array, "n n C"]
) -> Float[Array, "C"]:
    """GradCAM: the gradient's mean over cells."""
    return gradient.mean((0, 1))


def gradcampp_weights(
    cells: Float[Array, "n n C"], gradient: Float[Array, "n n C"]
) -> Float[Array, "C"]:
    """GradCAM++: sum_ij alpha ReLU(g), alpha = g^2 / (2 g^2 + sum_ab h g^3), 0 for 0 / 0."""
    square = gradient**2
    divisor = 2 * square + (cells * gradient**3).sum((0, 1))
    alpha = jnp.where(divisor != 0, square / jnp.where(divisor != 0, divisor, 1), 0)
    return (alpha * jax.nn.relu(gradient)).sum((0, 1))


def layercam_weights(
    cells: Float[Array, "n n C"], gradient: Float[Array, "n n C"]
) -> Float[Array, "n n C"]:
    """LayerCAM: the gradient's positive part, cell by cell."""
    return jax.nn.relu(gradient)


def weighted_cells(
    weighting: Weighting,
    clf: Classifier,
    feature_map: FeatureMap,
    score: Callable[[Float[Array, "B K"]], Any],
) -> Float[Array, "B n n C"]:
    """The terms w_c h_c of a map, before their sum over channels.

    `score` [B], of the logits, is what the gradient is taken of: a class logit, say.
    """
    cells, context = feature_map
    gradients = jax.grad(lambda h: score(clf.logits(FeatureMap(h, context))).sum())(cells)
    return jax.vmap(lambda h, g: weighting(h, g) * h)(cells, gradients)


def _method(weighting: Weighting) -> Callable[..., Any]:
    def cam(
        clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
    ) -> Float[Array, "B n n"]:
        score = partial(pick, classes=classes)
        terms = weighted_cells(weighting, clf, clf.feature_map(images), score)
        return jax.nn.relu(terms.sum(-1))

    cam.__doc__ = weighting.__doc__
    return jax.jit(cam)


WEIGHTINGS = {
    "gradcam": gradcam_weights,
    "gradcampp": gradcampp_weights,
    "layercam": layercam_weights,
}
gradcam, gradcampp, layercam = map(_method, WEIGHTINGS.values())
