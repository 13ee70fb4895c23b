"""The examples of other libraries' models, against those libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fgvce_jax as fg
from examples.models import equimo_vit, equinox_cnn, flax_linen, flax_nnx, keras_cnn
from fgvce_jax.heads import PooledLinear, Tokens
from fgvce_jax.models.classifier import feature_map_of
from fgvce_jax.models.wrap import ForeignHead

IMAGES = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype(np.float32)


def of_flax_nnx(images):
    model = flax_nnx.model()
    model.eval()
    return model(images)


def of_flax_linen(images):
    return flax_linen.model()(images, train=False)


def of_equinox(images):
    return jax.vmap(equinox_cnn.model())(jnp.moveaxis(images, -1, 1))


def of_equimo(images):
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    model = equimo_vit.model()
    given = jnp.moveaxis((images - mean) / std, -1, 1)
    return jax.vmap(lambda image: model(image, inference=True))(given)


def of_keras(images):
    return keras_cnn.model()(255 * images, training=False)


@pytest.mark.parametrize(
    ("example", "theirs", "head", "shape"),
    [
        (flax_nnx, of_flax_nnx, PooledLinear, (8, 8, 32)),
        (flax_linen, of_flax_linen, ForeignHead, (8, 8, 32)),
        (equinox_cnn, of_equinox, PooledLinear, (8, 8, 32)),
        (equimo_vit, of_equimo, Tokens, (4, 4, 48)),
        (keras_cnn, of_keras, PooledLinear, (8, 8, 32)),
    ],
    ids=["flax nnx", "flax linen", "equinox", "equimo", "keras"],
)
def test_logits_are_theirs(example, theirs, head, shape):
    clf = example.classifier()
    np.testing.assert_allclose(jax.jit(clf)(IMAGES), theirs(IMAGES), atol=1e-5)
    assert isinstance(clf.head, head)
    assert feature_map_of(clf, IMAGES).cells.shape == (4, *shape)


def test_probabilities_are_refused():
    import keras

    layers = keras.layers
    net = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]
    with pytest.raises(fg.InputError, match="head: expected logits, got probabilities"):
        fg.wrap(keras.Sequential([keras.Input((32, 32, 3)), *net]), 32)
