"""The optimizer: warm-up, then cosine decay or steps, and weight decay for the kernels alone."""

from __future__ import annotations

from typing import Any

import jax
import optax

from fgvce_jax.train.config import TrainConfig


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
