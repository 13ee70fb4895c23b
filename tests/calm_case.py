"""A small classifier with CALM's head, images for it, and its joint probability by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import reference

import fgvce_jax as fg
from fgvce_jax.heads import CalmHead
from fgvce_jax.models import ModelSpec, build

B, CLASSES = 8, 4


def classifier():
    spec = ModelSpec("small_resnet", widths=(6,), blocks=(1,), stem_stride=4)
    plain = build(spec, CLASSES, 16, jax.random.key(0))
    head = CalmHead.create(jax.random.key(1), 6, CLASSES)
    head = CalmHead(head.kernel * 3, head.bias + 0.1, head.attention_kernel / 2, jnp.ones(1))
    return fg.Classifier(plain.features, head, CLASSES, 16)


def images_and_labels():
    labels = jnp.arange(B) % CLASSES
    images = 0.2 * jax.random.uniform(jax.random.key(2), (B, 16, 16, 3))
    return images.at[..., 0].add(0.25 * labels[:, None, None]), labels


def joint_by_hand(head, cells):
    """p(y, z | x) in float64, [n, n, K]."""
    kernel, bias, to_attention, offset = (np.float64(leaf) for leaf in jax.tree.leaves(head))
    n = len(cells)
    attention = np.zeros((n, n))
    of_class = np.zeros((n, n, kernel.shape[1]))
    for i in range(n):
        for j in range(n):
            h = np.float64(cells[i, j])
            of_class[i, j] = reference.softmax(h @ kernel + bias)
            attention[i, j] = max(float((h @ to_attention + offset)[0]), 0)
    return of_class * (attention / attention.sum())[..., None]
