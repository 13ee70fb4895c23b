"""CALM's head as a distribution, searched, and its two losses."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calm_case import classifier, images_and_labels, joint_by_hand
from reference import gradient

import fgvce_jax as fg
from fgvce_jax.heads import CalmHead
from fgvce_jax.heads.calm import expectation_maximisation, marginal_likelihood
from fgvce_jax.train.config import TrainConfig
from fgvce_jax.train.step import loss_of, through_backbone, trainable, with_trainable


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


def losses_by_hand(weights, cells, labels, fixed_total=None):
    """(CALM-EM given a posterior, CALM-ML) as the authors' code has them, in float64.

    `fixed_total` is the sum that each image's attention is divided by, its own if None; the first
    is a function of the posterior, which is held fixed.
    """
    kernel, bias, to_attention, offset = weights
    scores = cells @ kernel + bias
    of_cell = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    attention = np.maximum(cells @ to_attention + offset, 0)
    total = attention.sum((1, 2), keepdims=True) if fixed_total is None else fixed_total
    prior = attention / total
    joint = np.exp(of_cell) * prior
    chosen = np.arange(len(labels)), slice(None), slice(None), labels
    likelihood = joint.sum((1, 2))[np.arange(len(labels)), labels]
    log_prior = np.log(np.where(prior < 1e-8, prior + 1e-8, prior))
    log_joint = (of_cell + log_prior)[chosen]
    own = joint[chosen] / (likelihood + 1e-10)[:, None, None]
    return (
        lambda posterior: -(posterior * log_joint).sum((1, 2)).mean(),
        -np.log(likelihood).mean(),
        own,
        total,
    )


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("loss", [marginal_likelihood, expectation_maximisation])
def test_losses_and_their_gradients_are_those_of_the_authors_code(clf, loss, detached):
    """Some cells have no attention; no gradient flows through its sum but where it is asked for."""
    rng = np.random.default_rng(0)
    cells = np.maximum(rng.normal(size=(5, 3, 3, 6)) + 0.3, 0).astype(np.float32)
    labels = np.int32([0, 1, 2, 3, 1])
    head = replace(clf.head, attention_bias=jnp.float32([0.2]))
    attention = np.maximum(cells @ head.attention_kernel + head.attention_bias, 0)[..., 0]
    assert (attention == 0).sum() > 0
    assert (attention.sum((1, 2)) > 0).all()

    def run(h, detached):
        return loss(head, h, jnp.asarray(labels), detached=detached)

    of_cells = jax.value_and_grad(run, has_aux=True)
    (value, logits), slope = of_cells(jnp.asarray(cells), detached)
    weights = [np.float64(leaf) for leaf in jax.tree.leaves(head)]
    _, _, posterior, total = losses_by_hand(weights, np.float64(cells), labels)

    def by_hand(h):
        em, ml, *_ = losses_by_hand(weights, h, labels, total if detached else None)
        return em(posterior) if loss is expectation_maximisation else ml

    np.testing.assert_allclose(value, by_hand(np.float64(cells)), rtol=1e-5)
    expected = gradient(by_hand, np.float64(cells))
    np.testing.assert_allclose(slope, expected, atol=2e-5)
    if detached:  # and the other gradient is another one
        _, slope = of_cells(jnp.asarray(cells), False)
        assert np.abs(slope - expected).max() > 0.1
    np.testing.assert_allclose(np.exp(logits).sum(-1), 1, rtol=1e-5)


def test_training_takes_the_reading_from_its_config(clf, batch):
    images, labels = batch
    for head, loss in (("calm_ml", marginal_likelihood), ("calm_em", expectation_maximisation)):
        slopes = []
        for detached in (True, False):
            ours = loss_of(TrainConfig(head=head, calm_detached=detached))
            other = through_backbone(partial(loss, detached=detached))
            slopes += [attention_slope(run, clf, images, labels) for run in (ours, other)]
        for a, b in (slopes[:2], slopes[2:]):
            np.testing.assert_array_equal(a, b)
        assert np.abs(slopes[0] - slopes[2]).max() > 1e-4


def attention_slope(loss, clf, images, labels):
    """The gradient of the attention's kernel."""
    run = jax.jit(jax.grad(lambda head: loss(replace(clf, head=head), images, labels)[0]))
    return np.asarray(run(clf.head).attention_kernel)


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
