import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import tiny_classifier

from fgvce_jax.train import TrainConfig
from fgvce_jax.train.step import decay_mask, learning_rate_schedule, make_optimizer, trainable


def test_schedule_by_hand():
    schedule = learning_rate_schedule(
        TrainConfig(epochs=5, warmup_epochs=1.0, learning_rate=0.1), 10
    )
    expected = {0: 0.0, 5: 0.05, 10: 0.1, 20: 0.05 * (1 + math.cos(math.pi / 4)), 30: 0.05, 50: 0.0}
    for step, value in expected.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-7)


def test_schedule_without_warmup_starts_at_the_top():
    schedule = learning_rate_schedule(
        TrainConfig(epochs=2, warmup_epochs=0.0, learning_rate=0.1), 4
    )
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(4)) == pytest.approx(0.05)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_schedule_in_steps(warmup):
    config = TrainConfig(epochs=9, warmup_epochs=warmup, learning_rate=0.1, milestones=(3, 6))
    schedule = learning_rate_schedule(config, 10)
    assert float(schedule(5)) == pytest.approx(0.05 if warmup else 0.1)
    for step, value in {10: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001}.items():
        assert float(schedule(step)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_shrinks_kernels_alone(name):
    config = TrainConfig(
        optimizer=name, learning_rate=0.1, weight_decay=0.5, warmup_epochs=0.0, epochs=100
    )
    optimizer = make_optimizer(config, learning_rate_schedule(config, 100))
    weights = jax.tree.map(jnp.ones_like, trainable(tiny_classifier()))
    zeros = jax.tree.map(jnp.zeros_like, weights)
    updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(weights), weights)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        decays = "kernel" in jax.tree_util.keystr(path)
        np.testing.assert_allclose(update, -0.1 * 0.5 if decays else 0, rtol=1e-5)
    assert sum(jax.tree.leaves(decay_mask(weights))) == 4  # stem, two of the block, the head
