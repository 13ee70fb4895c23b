"""Scores of chosen classes, and their gradients: the methods' questions to a classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.checks import check_chunk
from fgvce_jax.models.classifier import Classifier


def pick(values: Float[Array, "B K"], classes: Int[Array, "B"]) -> Float[Array, "B"]:
    """Of every row the value of its class."""
    return jnp.take_along_axis(values, classes[:, None], axis=-1)[:, 0]


def image_gradients(
    clf: Classifier, images: Float[Array, "B H W 3"], classes: Int[Array, "B"]
) -> Float[Array, "B H W 3"]:
    """Gradient of every image's class logit with respect to its pixels."""
    return jax.grad(lambda x: pick(clf(x), classes).sum())(images)


def cell_gradients(
    head: Callable[[Any], Any],
    cells: Float[Array, "B n n C"],
    score: Callable[[Float[Array, "B K"]], Float[Array, "B"]],
) -> Float[Array, "B n n C"]:
    """Gradient with respect to its cells of every sample's `score`, a function of the logits."""
    return jax.grad(lambda h: score(head(h)).sum())(cells)


def stream(function: Callable[..., Any], chunk: int, *rows: Any) -> Any:
    """`jax.vmap(function)(*rows)`, `chunk` rows at a time; raises InputError for less than 1."""
    check_chunk(chunk)
    count = jax.tree.leaves(rows)[0].shape[0]
    return jax.lax.map(lambda row: function(*row), rows, batch_size=min(chunk, count))
