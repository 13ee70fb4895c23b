"""CALM: its map, and the heads that it refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calm_case import CLASSES, B, classifier, images_and_labels, joint_by_hand

import fgvce_jax as fg
from fgvce_jax.methods import METHODS


@pytest.fixture(scope="module")
def clf():
    return classifier()


@pytest.fixture(scope="module")
def batch():
    return images_and_labels()


forward = jax.jit(lambda clf, images: clf.features(images))


def test_the_map_is_the_joint_probability(clf, batch):
    images, labels = batch
    maps = METHODS["calm"](clf, images, labels)
    cells = forward(clf, images)
    logits = clf.head(cells)
    assert maps.shape == (B, 4, 4)
    for h, label, ours, z in zip(cells, labels, maps, logits, strict=True):
        joint = joint_by_hand(clf.head, np.asarray(h))
        np.testing.assert_allclose(ours, joint[..., label], atol=1e-5)
        np.testing.assert_allclose(jax.nn.softmax(z), joint.sum((0, 1)), atol=1e-5)
        np.testing.assert_allclose(np.exp(z).sum(), 1, atol=1e-5)  # logits are log p


def test_another_head_is_refused_with_what_to_do(clf, batch):
    images, labels = batch
    head = fg.PooledLinear(jnp.zeros((6, CLASSES)), jnp.zeros(CLASSES))
    plain = replace(clf, head=head)
    with pytest.raises(fg.InputError, match=r"PooledLinear, expected a CalmHead; .*fgvce train"):
        METHODS["calm"](plain, images, labels)
