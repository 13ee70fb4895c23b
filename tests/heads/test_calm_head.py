"""CALM's head as a distribution, searched, and its two losses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calm_case import classifier, images_and_labels, joint_by_hand

import fgvce_jax as fg
from fgvce_jax.heads import CalmHead
from fgvce_jax.heads.calm import expectation_maximisation, marginal_likelihood
from fgvce_jax.train.step import through_backbone, trainable, with_trainable


@pytest.fixture(scope="module")
def clf():
    return classifier()


@pytest.fixture(scope="module")
def batch():
    return images_and_labels()


forward = jax.jit(lambda clf, images: clf.features(images))


def test_without_any_attention_every_cell_has_the_same(clf):
    blind = CalmHead(clf.head.kernel, clf.head.bias, jnp.zeros((6, 1)), -jnp.ones(1))
    cells = jax.random.uniform(jax.random.key(3), (3, 3, 6))
    expected = jax.nn.softmax(cells @ blind.kernel + blind.bias).mean((0, 1))
    np.testing.assert_allclose(jax.nn.softmax(blind(cells)), expected, atol=1e-6)


def test_a_calm_head_is_searched_like_any_other(clf, batch):
    images, _ = batch
    cells = forward(clf, images)
    target = int(np.argsort(np.asarray(clf.head(cells[0])))[-2])
    direction = clf.head.kernel[:, target]
    candidates = jax.nn.relu(jnp.outer(jnp.arange(1.0, 4.0), direction * 5))
    out = jax.jit(fg.counterfactual)(clf.head, cells[0], target, candidates)
    assert bool(out.flipped)
    assert int(jnp.argmax(clf.head(out.cells))) == target


@partial(jax.jit, static_argnums=0)
def value_and_slope(loss, clf, images, labels):
    """((loss, (classifier moved on, logits)), gradient of backbone and head)."""
    return jax.value_and_grad(
        lambda weights: through_backbone(loss)(with_trainable(clf, weights), images, labels),
        has_aux=True,
    )(trainable(clf))


def test_the_losses_are_those_of_the_paper(clf, batch):
    images, labels = batch
    cells, _ = jax.jit(lambda features: features.train(images))(clf.features)
    likelihood, bound = [], []
    for h, label in zip(cells, labels, strict=True):
        joint = joint_by_hand(clf.head, np.asarray(h))[..., label]
        posterior = joint / joint.sum()
        likelihood.append(-np.log(joint.sum()))
        bound.append(-(posterior * np.log(np.maximum(joint, 1e-30))).sum())
    (ml, (moved, logits)), slope = value_and_slope(marginal_likelihood, clf, images, labels)
    (em, _), em_slope = value_and_slope(expectation_maximisation, clf, images, labels)
    np.testing.assert_allclose(ml, np.mean(likelihood), rtol=1e-4)
    np.testing.assert_allclose(em, np.mean(bound), rtol=1e-4)
    np.testing.assert_allclose(logits, clf.head(cells), atol=1e-5)
    old, new = (jax.tree.leaves(c.features.stats) for c in (clf, moved))
    assert any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True))
    # The posterior is held fixed: so the gradient of the bound is that of the likelihood.
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(em_slope), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(slope[1]))


@pytest.mark.parametrize("loss", [marginal_likelihood, expectation_maximisation])
def test_descending_either_loss_makes_the_labels_likelier(clf, batch, loss):
    images, labels = batch
    likelihoods = []
    for _ in range(40):
        (_, (moved, logits)), slope = value_and_slope(loss, clf, images, labels)
        likelihoods.append(np.take_along_axis(np.asarray(logits), labels[:, None], 1).mean())
        weights = jax.tree.map(lambda w, g: w - 0.1 * g, trainable(moved), slope)
        clf = with_trainable(moved, weights)
    assert likelihoods[-1] > 0.8 * likelihoods[0]  # negative numbers: closer to 0
