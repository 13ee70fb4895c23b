"""Planted problems: a head, an image of one class, and candidates that speak for another."""

import jax.numpy as jnp
import numpy as np

from fgvce_jax import Dense, PooledLinear


def planted(rng, n=5, channels=12, classes=6, count=15, kind="pooled"):
    """Returns (head, reference head arguments, cells, predicted, target, candidates).

    Features are non-negative, as after a ReLU. The image carries the head's own evidence for one
    class in a few cells; candidates carry evidence for the target, more or less.
    """
    directions = rng.normal(size=(channels, classes)).astype(np.float32)
    target, rival = rng.choice(classes, 2, replace=False)
    cells = np.maximum(rng.normal(size=(n, n, channels)) * 0.5, 0)
    spots = rng.choice(n * n, n, replace=False)
    cells.reshape(n * n, -1)[spots] += np.maximum(directions[:, rival], 0) * rng.uniform(1, 2)
    strength = rng.uniform(0.5, 3, size=(count, 1))
    candidates = np.maximum(
        strength * directions[:, target] + rng.normal(size=(count, channels)) * 0.7, 0
    )
    cells, candidates = np.float32(cells), np.float32(candidates)
    bias = rng.normal(size=classes).astype(np.float32) * 0.1
    if kind == "pooled":
        arguments = (directions * 2, bias)
        head = PooledLinear(*map(jnp.asarray, arguments))
    else:
        # relu(x) - relu(-x) = x: the hidden layer keeps the evidence, and mixes it a little.
        lift = np.hstack([np.eye(classes), -np.eye(classes)])
        mixing = rng.normal(size=(n, n, 1, 1)) * 0.1 + 1
        first = np.float32(mixing * (directions @ lift) / (n * n) * 2)
        offset = np.float32(rng.normal(size=2 * classes) * 0.1)
        last = np.float32(lift.T + rng.normal(size=lift.T.shape) * 0.05), bias
        arguments = (first, offset, (last,))
        head = Dense(
            jnp.asarray(first), jnp.asarray(offset), ((jnp.asarray(last[0]), jnp.asarray(bias)),)
        )
    return head, arguments, cells, int(rival), int(target), candidates
