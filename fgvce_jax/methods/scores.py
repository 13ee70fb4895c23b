"""Scores of chosen classes: what the methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.checks import check_chunk
from fgvce_jax.models.classifier import Classifier, FeatureMap, head_of
from fgvce_jax.partition import contributions


def pick(values: Float[Array, "B K"], classes: Int[Array, "B"]) -> Float[Array, "B"]:
    """Of every row the value of its class."""
    return jnp.take_along_axis(values, classes[:, None], axis=-1)[:, 0]


def image_gradients(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B H W 3"]:
    """Gradient of every image's class logit with respect to its pixels."""
    return jax.grad(lambda x: pick(clf(x), classes).sum())(images)


def with_sp(
    maps: Float[Array, "B n n"],
    clf: Classifier,
    feature_map: FeatureMap,
    classes: Int[Array, "B"],
    sigma: float | None,
) -> Float[Array, "B n n"]:
    """The paper's "+SP" (Table 3): maps times contributions, clipped at 0, over their maximum.

    `sigma` is the width of the contributions' masks, in cells; None is without SP and leaves the
    maps as they are. All 0 where no cell contributes to the class.
    """
    if sigma is None:
        return maps
    scores = contributions_of(clf, feature_map, classes, sigma)
    highest = scores.max((-2, -1), keepdims=True)
    return maps * (jnp.maximum(scores, 0) / jnp.where(highest > 0, highest, 1))


def contributions_of(
    clf: Classifier,
    feature_map: FeatureMap,
    classes: Int[Array, "B"],
    sigma: float,
    against: Int[Array, "B"] | None = None,
) -> Float[Array, "B n n"]:
    """`fgvce_jax.contributions` of every image at the cut."""

    def one(of_image, class_index, other):
        head = head_of(clf, of_image)
        return contributions(head, of_image.cells, class_index, sigma, against=other)

    return jax.vmap(one)(feature_map, classes, against)


def stream(function: Callable[..., Any], chunk: int, *rows: Any) -> Any:
    """`jax.vmap(function)(*rows)`, `chunk` rows at a time; raises InputError for less than 1."""
    check_chunk(chunk)
    count = jax.tree.leaves(rows)[0].shape[0]
    return jax.lax.map(lambda row: function(*row), rows, batch_size=min(chunk, count))
