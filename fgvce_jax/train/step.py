"""A step of training, a pure function of the state and a batch: its loss, its optimizer, itself.

A loss of the head is a function (head, cells, labels) -> (loss, logits): `cross_entropy` here,
CALM's two beside its head in `fgvce_jax.heads.calm`. `through_backbone` makes a `Loss` of it, the
form that the training loop takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from fgvce_jax.data.augment import AugmentConfig, augment
from fgvce_jax.heads.calm import expectation_maximisation, marginal_likelihood
from fgvce_jax.models import Classifier, FeatureMap
from fgvce_jax.train.config import TrainConfig

# --- the loss -------------------------------------------------------------------------------------

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
        out, features = classifier.features.train(images)
        cells, context = FeatureMap.of(out)
        head = classifier.head
        if context is not None:
            head = lambda cells: classifier.head(cells, context)  # noqa: E731
        value, logits = loss(head, cells, labels)
        return value, (replace(classifier, features=features), logits)

    return of_images


def loss_of(config: TrainConfig) -> Loss:
    """The loss that trains the config's head."""
    of_head = {
        "own": partial(cross_entropy, label_smoothing=config.label_smoothing),
        "calm_em": partial(expectation_maximisation, detached=config.calm_detached),
        "calm_ml": partial(marginal_likelihood, detached=config.calm_detached),
    }
    return through_backbone(of_head[config.head])


# --- the optimizer --------------------------------------------------------------------------------


def learning_rate_schedule(config: TrainConfig, steps_per_epoch: int) -> optax.Schedule:
    """Step -> learning rate: linearly up from 0, then down along a half cosine or in steps."""
    total, peak = config.epochs * steps_per_epoch, config.learning_rate
    # One step at least is left for the decay, which optax refuses to spread over none.
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    if config.milestones:
        # `join_schedules` counts the second schedule's steps from the end of the warm-up.
        drops = {epoch * steps_per_epoch - warmup: 0.1 for epoch in config.milestones}
        decay = optax.piecewise_constant_schedule(peak, drops)
    else:
        decay = optax.cosine_decay_schedule(peak, total - warmup)
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def decay_mask(weights: Any) -> Any:
    """True for the kernels among `weights`; False for biases and normalisation, which are 1-D."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)


def make_optimizer(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of `config` with its learning rates and its weight decay."""
    if config.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay, mask=decay_mask)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.sgd(schedule, momentum=0.9),
    )


# --- the step -------------------------------------------------------------------------------------


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
