"""Finer-CAM: evidence for a class that classes like it lack (Zhang et al., CVPR 2025).

A CAM of gradients, GradCAM by default, of the difference between the class's logit and those of its
references, the classes whose logits are nearest.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.checks import check_choice
from fgvce_jax.errors import InputError
from fgvce_jax.methods.cams import WEIGHTINGS, weighted_cells
from fgvce_jax.methods.scores import pick
from fgvce_jax.models.classifier import Classifier


def nearest_classes(
    logits: Float[Array, "B K"], classes: Int[Array, "B"], count: int
) -> Int[Array, "B R"]:
    """The `count` other classes whose logits are nearest to the class's, the nearest first."""
    distance = jnp.abs(logits - pick(logits, classes)[:, None])
    distance = jnp.where(jnp.arange(logits.shape[1]) == classes[:, None], jnp.inf, distance)
    return jax.lax.top_k(-distance, count)[1]


@partial(jax.jit, static_argnames=("num_references", "weights", "base"))
def finercam(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    references: Int[Array, "B R"] | None = None,
    num_references: int = 3,
    strength: float | Float[Array, ""] = 1.0,
    weights: str = "probability",
    base: str = "gradcam",
) -> Float[Array, "B n n"]:
    """The CAM of the weighted mean of z_c - strength * z_r over the references r, z the logits.

    Args:
        references: The classes to hold each class against, such as the contrast class alone; by
            default the `num_references` with the nearest logits.
        num_references: How many, at most all other classes.
        strength: The share of a reference's logit that is taken away. The authors' code has 1, and
            the paper 0.6.
        weights: "probability", each reference by its softmax probability (the authors' code), or
            "even" (the paper's equation).
        base: The CAM: gradcam, gradcampp or layercam.

    Raises:
        InputError: Unknown weights or base, or fewer than one reference.
    """
    check_choice("weights", weights, ("probability", "even"))
    check_choice("base", base, tuple(WEIGHTINGS))
    if num_references < 1:
        raise InputError(f"num_references {num_references}: expected 1 or more")
    feature_map = clf.feature_map(images)
    if references is None:
        count = min(num_references, clf.num_classes - 1)
        references = nearest_classes(clf.logits(feature_map), classes, count)

    def score(logits):
        others = jnp.take_along_axis(logits, references, 1)
        gaps = pick(logits, classes)[:, None] - strength * others
        if weights == "even":
            return gaps.mean(1)
        shares = jnp.take_along_axis(jax.nn.softmax(logits), references, 1)
        return (shares * gaps).sum(1) / (shares.sum(1) + 1e-9)

    return jax.nn.relu(weighted_cells(WEIGHTINGS[base], clf, feature_map, score).sum(-1))
