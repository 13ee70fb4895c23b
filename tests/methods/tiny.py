"""A classifier small enough to be written out in float64 NumPy, gradients by differences."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import reference

import fgvce_jax as fg

N, PATCH, CHANNELS, CLASSES = 4, 3, 8, 5


def _features(weights, images):
    kernel, bias = weights
    batch = images.shape[0]
    patches = images.reshape(batch, N, PATCH, N, PATCH, 3).swapaxes(2, 3)
    return jax.nn.relu(patches.reshape(batch, N, N, -1) @ kernel + bias)


@dataclass(frozen=True)
class Tiny:
    """`clf` and the same in NumPy: features(image) -> cells, head(cells) -> logits."""

    clf: fg.Classifier
    kernel: np.ndarray
    bias: np.ndarray
    head: object

    def features(self, image):
        cells = np.zeros((N, N, CHANNELS))
        for i in range(N):
            for j in range(N):
                patch = image[i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
                cells[i, j] = np.maximum(np.float64(patch).reshape(-1) @ self.kernel + self.bias, 0)
        return cells


def tiny(seed=0, kind="pooled", sharpness=8.0):
    """Images of side N * PATCH, N x N cells, CLASSES classes; the head is pooled or dense."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(PATCH * PATCH * 3, CHANNELS)).astype(np.float32) * 0.4
    bias = rng.normal(size=CHANNELS).astype(np.float32) * 0.1
    if kind == "pooled":
        weights = sharpness * rng.normal(size=(CHANNELS, CLASSES)), rng.normal(size=CLASSES) * 0.1
        weights = tuple(np.float32(w) for w in weights)
        head, plain = fg.PooledLinear(*map(jnp.asarray, weights)), reference.pooled_linear(*weights)
    else:
        first = np.float32(rng.normal(size=(N, N, CHANNELS, 12)) * 0.2)
        offset = np.float32(rng.normal(size=12) * 0.1)
        last = np.float32(rng.normal(size=(12, CLASSES))), np.float32(rng.normal(size=CLASSES))
        head = fg.Dense(jnp.asarray(first), jnp.asarray(offset), (tuple(map(jnp.asarray, last)),))
        plain = reference.dense(first, offset, (last,))
    features = jax.tree_util.Partial(_features, (jnp.asarray(kernel), jnp.asarray(bias)))
    clf = fg.Classifier(features, head, CLASSES, N * PATCH)
    return Tiny(clf, np.float64(kernel), np.float64(bias), plain)


def problems(model, count=6, seed=1):
    """(images, predicted, another class) for `count` random images."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(count, N * PATCH, N * PATCH, 3)).astype(np.float32)
    predicted = np.array([np.argmax(model.head(model.features(image))) for image in images])
    contrast = (predicted + rng.integers(1, CLASSES, count)) % CLASSES
    return images, predicted.astype(np.int32), contrast.astype(np.int32)


def partition_weight(head, cells, c, sigma=0.8):
    s = np.maximum(reference.contributions(head, cells, c, sigma), 0)
    return s / s.max() if s.max() > 0 else s
