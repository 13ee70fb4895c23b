"""Modules of other libraries hold activations and flags beside their arrays."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fgvce_jax as fg


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layer:
    """As an Equinox module: every field is a leaf, its activation and its flag too."""

    kernel: Any
    activation: Any
    training: Any = False
    name: str = field(default="layer", metadata={"static": True})

    def __call__(self, x):
        if self.training:  # a traced flag cannot be asked
            raise AssertionError
        return self.activation(x @ self.kernel)


def classifier(rng):
    features = Layer(jnp.float32(rng.normal(size=(3, 6))), jax.nn.relu)
    weights = jnp.float32(rng.normal(size=(6, 4)) * 9)
    head = Layer(weights, lambda cells: cells.mean((-3, -2)))
    clf = fg.Classifier(features, head, 4, 4)
    return clf, features, head


def test_a_module_with_an_activation_goes_through_the_whole_pipeline():
    rng = np.random.default_rng(0)
    clf, features, head = classifier(rng)
    images = rng.random((20, 4, 4, 3), np.float32)
    logits = np.maximum(images @ features.kernel, 0) @ head.kernel
    np.testing.assert_allclose(
        jax.jit(lambda c, x: c(x))(clf, images), logits.mean((1, 2)), rtol=1e-5
    )

    centred = fg.Classifier(features, lambda c: head(c) - logits.mean((0, 1, 2)), 4, 4)
    predicted = np.asarray(centred(images).argmax(-1))
    bank = fg.build_bank(centred, images, predicted, fg.BankConfig(per_class=3, top_m=2))
    out = fg.explain(centred, bank, images[:4], (predicted[:4] + 1) % 4)
    assert out.num_edits.max() > 0


def test_other_weights_are_not_compiled_again():
    rng = np.random.default_rng(1)
    clf, *_ = classifier(rng)
    images = rng.random((2, 4, 4, 3), np.float32)
    call = jax.jit(lambda c, x: c(x))
    first = call(clf, images)
    second = call(jax.tree.map(lambda leaf: leaf * 2, clf), images)
    np.testing.assert_allclose(second, 4 * first, rtol=1e-5)
    assert call._cache_size() == 1


def test_a_leaf_that_cannot_be_a_constant_is_named():
    rng = np.random.default_rng(2)
    _, features, head = classifier(rng)
    broken = replace(features, training=bytearray(b"x"))
    with pytest.raises(fg.InputError, match=r"^features: holds a bytearray .* expected jax.tree"):
        fg.Classifier(broken, head, 4, 4)
