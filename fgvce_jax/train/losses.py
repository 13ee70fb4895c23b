"""What a training step minimises.

A loss of the head is a function (head, cells, labels) -> (loss, logits): `cross_entropy` here,
CALM's two beside its head in `fgvce_jax.heads.calm`. `through_backbone` makes a `Loss` of it, the
form that the training loop takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, Int

from fgvce_jax.heads.calm import expectation_maximisation, marginal_likelihood
from fgvce_jax.models import Classifier
from fgvce_jax.train.config import TrainConfig

HeadLoss = Callable[
    [Any, Float[Array, "B n n C"], Int[Array, "B"]],
    tuple[Float[Array, ""], Float[Array, "B K"]],
]
"""(head, cells, labels) -> (loss, logits)."""

Loss = Callable[
    [Classifier, Float[Array, "B S S 3"], Int[Array, "B"]],
    tuple[Float[Array, ""], tuple[Classifier, Float[Array, "B K"]]],
]
"""(classifier, images in [0, 1], labels) -> (loss, (classifier with its BatchNorm statistics moved
on, logits))."""


def cross_entropy(
    head: Callable[[Any], Any],
    cells: Float[Array, "B n n C"],
    labels: Int[Array, "B"],
    *,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """Mean cross-entropy against labels smoothed as in Szegedy et al. 2016; and the logits."""
    logits = head(cells)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean(), logits


def through_backbone(loss: HeadLoss) -> Loss:
    """`loss` of the cells that a classifier's backbone gives in training mode."""

    def of_images(classifier, images, labels):
        cells, features = classifier.features.train(images)
        value, logits = loss(classifier.head, cells, labels)
        return value, (replace(classifier, features=features), logits)

    return of_images


def loss_of(config: TrainConfig) -> Loss:
    """The loss that trains the config's head."""
    of_head = {
        "own": partial(cross_entropy, label_smoothing=config.label_smoothing),
        "calm_em": expectation_maximisation,
        "calm_ml": marginal_likelihood,
    }
    return through_backbone(of_head[config.head])
