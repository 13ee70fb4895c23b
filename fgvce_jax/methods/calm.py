"""CALM: class activation latent mapping (Kim et al., "Keep CALM and Improve Visual Feature
Attribution", ICCV 2021).

The attribution map is p(y = c, z | x), a probability and not a heuristic. It needs a classifier
with CALM's head (`fgvce_jax.heads.calm`), in which the cell z that decides is a latent variable.
"""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

from fgvce_jax.errors import InputError
from fgvce_jax.heads import CalmHead, Direct
from fgvce_jax.heads.calm import of_class
from fgvce_jax.models.classifier import Classifier


@jax.jit
def calm(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B n n"]:
    """p(y = c, z | x): the probability that the class is c and that cell z decides it, in [0, 1].

    Its sum over the cells is the classifier's p(c | x).

    Raises:
        InputError: The classifier's head is no `CalmHead`.
    """
    head = clf.head.function if isinstance(clf.head, Direct) else clf.head
    if not isinstance(head, CalmHead):
        raise InputError(
            f"calm: the classifier's head is a {type(head).__name__}, expected a CalmHead; "
            "train one with `fgvce train --head calm_em` (or calm_ml)"
        )
    with jax.default_matmul_precision("highest"):
        return of_class(head.joint(clf.feature_map(images).cells), classes)
