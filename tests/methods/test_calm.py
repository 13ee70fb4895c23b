"""CALM: its head as a distribution, its map, its losses, and training with them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.calm import CalmHead, expectation_maximisation, marginal_likelihood
from fgvce_jax.models import ModelSpec, build

B, CLASSES = 8, 4


@pytest.fixture(scope="module")
def clf():
    spec = ModelSpec("small_resnet", widths=(6,), blocks=(1,), stem_stride=4)
    plain = build(spec, CLASSES, 16, jax.random.key(0))
    head = CalmHead.create(jax.random.key(1), 6, CLASSES)
    head = CalmHead(head.kernel * 3, head.bias + 0.1, head.attention_kernel / 2, jnp.ones(1))
    return fg.Classifier(plain.features, head, CLASSES, 16)


@pytest.fixture(scope="module")
def batch():
    labels = jnp.arange(B) % CLASSES
    images = 0.2 * jax.random.uniform(jax.random.key(2), (B, 16, 16, 3))
    return images.at[..., 0].add(0.25 * labels[:, None, None]), labels


forward = jax.jit(lambda clf, images: clf.features(images))


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


def with_weights(clf, weights):
    params, head = weights
    return replace(clf, features=replace(clf.features, params=params), head=head)


@partial(jax.jit, static_argnums=0)
def value_and_slope(loss, clf, images, labels):
    """((loss, (classifier moved on, logits)), gradient of backbone and head)."""
    return jax.value_and_grad(
        lambda weights: loss(with_weights(clf, weights), images, labels), has_aux=True
    )((clf.features.params, clf.head))


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
        weights = (moved.features.params, moved.head)
        clf = with_weights(moved, jax.tree.map(lambda w, g: w - 0.1 * g, weights, slope))
    assert likelihoods[-1] > 0.8 * likelihoods[0]  # negative numbers: closer to 0


def test_another_head_is_refused_with_what_to_do(clf, batch):
    images, labels = batch
    head = fg.PooledLinear(jnp.zeros((6, CLASSES)), jnp.zeros(CLASSES))
    plain = replace(clf, head=head)
    with pytest.raises(fg.InputError, match=r"PooledLinear, expected a CalmHead; .*fgvce train"):
        METHODS["calm"](plain, images, labels)
