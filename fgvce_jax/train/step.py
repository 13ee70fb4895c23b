"""One step of training, a pure function of the training state and a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, UInt8

from fgvce_jax.data.augment import AugmentConfig, augment
from fgvce_jax.models import Classifier
from fgvce_jax.train.losses import Loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    Attributes:
        classifier: Weights and BatchNorm statistics.
        opt_state: The optimizer's.
        step: Steps made, int32.
    """

    classifier: Classifier
    opt_state: optax.OptState
    step: Int[Array, ""]


def trainable(classifier: Classifier) -> tuple[Any, Any]:
    """The weights that gradients are taken of: the backbone's parameters and the head."""
    return classifier.features.params, classifier.head


def with_trainable(classifier: Classifier, weights: tuple[Any, Any]) -> Classifier:
    """`classifier` with `weights`, as `trainable` gives them, in place of its own."""
    params, head = weights
    backbone: Any = classifier.features
    return replace(classifier, features=replace(backbone, params=params), head=head)


def make_step(
    optimizer: optax.GradientTransformation, loss: Loss, augmentation: AugmentConfig
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The jitted step: (state, images, labels, key) -> (state, metrics).

    Images are uint8 [B, S, S, 3], labels int32 [B]; `key` is the run's, and the step folds its
    number in. The state passed in is donated. Metrics are scalars on the device: the batch's mean
    `loss` and how many of it were `correct`.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState,
        images: UInt8[Array, "B S S 3"],
        labels: Int[Array, "B"],
        key: Key[Array, ""],
    ) -> tuple[TrainState, dict[str, Array]]:
        # A key for every image of every step: nothing random is carried from step to step.
        keys = jax.random.split(jax.random.fold_in(key, state.step), len(images))
        pixels = jax.vmap(partial(augment, augmentation))(keys, images / jnp.float32(255))

        def of_weights(weights):
            return loss(with_trainable(state.classifier, weights), pixels, labels)

        weights = trainable(state.classifier)
        (value, (moved, logits)), grads = jax.value_and_grad(of_weights, has_aux=True)(weights)
        updates, opt_state = optimizer.update(grads, state.opt_state, weights)
        updated: Any = optax.apply_updates(weights, updates)
        classifier = with_trainable(moved, updated)
        correct = (logits.argmax(-1) == labels).sum()
        return TrainState(classifier, opt_state, state.step + 1), {
            "loss": value,
            "correct": correct,
        }

    return step
