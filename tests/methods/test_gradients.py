"""Guided backpropagation and integrated gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import resnet, some_images
from reference import gradient
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.gbp import guided_relu
from fgvce_jax.models import ModelSpec, build


def test_guided_relu_passes_positive_gradients_of_positive_inputs():
    x = jnp.array([-1.0, 2.0, 3.0, -4.0, 0.0])
    value, pull = jax.vjp(guided_relu, x)
    np.testing.assert_array_equal(value, [0, 2, 3, 0, 0])
    np.testing.assert_array_equal(pull(jnp.array([1.0, -5.0, 7.0, -1.0, 2.0]))[0], [0, 0, 7, 0, 0])


def test_gbp_is_the_gradient_where_no_negative_one_arises():
    clf = resnet(ModelSpec(widths=(4, 6), blocks=(1, 1), stem_stride=2), size=16)
    images, classes = some_images(size=16)

    def plain(clf):
        logits = lambda x: jnp.take_along_axis(clf(x), classes[:, None], 1).sum()  # noqa: E731
        return np.abs(jax.jit(jax.grad(logits))(images)).sum(-1)

    ours = METHODS["gbp"](clf, images, classes)
    assert not np.allclose(ours, plain(clf), rtol=0.1)

    positive = replace(
        clf,
        features=replace(clf.features, params=jax.tree.map(jnp.abs, clf.features.params)),
        head=jax.tree.map(jnp.abs, clf.head),
    )
    np.testing.assert_allclose(
        METHODS["gbp"](positive, images, classes), plain(positive), rtol=1e-4, atol=1e-5
    )


def test_gbp_needs_relus_that_it_can_replace():
    model = tiny()
    images, classes, _ = problems(model)
    with pytest.raises(fg.InputError, match="of the user's own"):
        METHODS["gbp"](model.clf, images, classes)


def test_gbp_needs_relus():
    clf = jax.eval_shape(lambda: build(ModelSpec("convnext_tiny"), 5, 32, jax.random.key(0)))
    images, classes = some_images(count=1)
    with pytest.raises(fg.InputError, match="a network of ReLUs, convnext_tiny has none"):
        jax.eval_shape(METHODS["gbp"], clf, images, classes)


def test_ig_is_the_integral_of_the_gradient():
    model = tiny(kind="dense")
    images, classes, _ = problems(model, count=2)
    middle = METHODS["ig"](model.clf, images, classes, rule="middle", steps=8)
    for image, c, ours in zip(images, classes, middle, strict=True):
        image = np.float64(image)
        logit = lambda x, c=c: model.head(model.features(x))[c]  # noqa: E731
        slopes = [gradient(logit, (k + 0.5) / 8 * image) for k in range(8)]
        expected = np.abs(image * np.mean(slopes, 0)).sum(-1)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_ig_of_a_linear_model_is_weight_times_pixel_by_either_rule():
    weights = jnp.float32(np.random.default_rng(0).normal(size=(4, 4, 3, 5)))
    clf = fg.Classifier(
        lambda x: x,
        jax.tree_util.Partial(lambda w, h: jnp.einsum("bijc,ijck->bk", h, w), weights),
        5,
        4,
    )
    images, classes = some_images(count=2, size=4)
    expected = [np.abs(x * weights[..., c]).sum(-1) for x, c in zip(images, classes, strict=True)]
    for rule in ("middle", "gauss_legendre"):
        ours = METHODS["ig"](clf, images, classes, rule=rule, steps=5)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
