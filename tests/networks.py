"""Networks of this package with random weights, small or quickly made, no branch of them zero."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fgvce_jax as fg
from fgvce_jax.models import Backbone, ModelSpec
from fgvce_jax.models.chain_head import ChainHead
from fgvce_jax.models.layers import Activation, Chain, MaxPool, batch_norm, conv
from fgvce_jax.models.spec import template

MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)
SMALL = ModelSpec(widths=(8, 12, 16), blocks=(1, 2, 1), stem_stride=2)


def filled(tree, rng):
    """Arrays in the place of shapes; some BatchNorm scales are negative."""

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            fan_in = np.prod(leaf.shape[:-1])
            array = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        elif "scale" in name:
            array = rng.normal(0.8, 0.4, leaf.shape)
        elif "var" in name:
            array = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            array = rng.normal(0, 0.2, leaf.shape)
        return jnp.asarray(array, leaf.dtype)

    tree = jax.tree_util.tree_map_with_path(fill, tree)
    return replace(tree, features=replace(tree.features, mean=jnp.array(MEAN), std=jnp.array(STD)))


def resnet(spec=SMALL, size=32, classes=5, seed=0):
    """By default basic blocks, with and without a projection, and 4 x 4 cells."""
    clf = filled(template(spec, classes, size), np.random.default_rng(seed))
    return replace(clf, head=replace(clf.head, kernel=3 * clf.head.kernel))


def vgg(spec=None, size=32, classes=5, seed=0, last_conv=None):
    """By default three convolutions with BatchNorm and 4 x 4 cells; dense layers are narrow.

    `last_conv`, a layer's name, is cut down to 32 channels: a ScoreCAM of 512 takes long.
    """
    rng = np.random.default_rng(seed)
    if spec:
        clf = template(spec, classes, size)
    else:

        def make():
            rngs = nnx.Rngs(0)
            layers = []
            for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
                layers += [conv(inputs, outputs, 3, bias=True, rngs=rngs)]
                layers += [batch_norm(outputs, rngs=rngs), Activation(jax.nn.relu), MaxPool(2)]
            chain = Chain({f"features.{i}": layer for i, layer in enumerate(layers)})
            return Backbone.from_module(chain, MEAN, STD)

        clf = fg.Classifier(jax.eval_shape(make), None, classes, size)

    def layer(*shape):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return jnp.float32(rng.normal(0, scale, shape)), jnp.float32(rng.normal(0, 0.1, shape[-1]))

    rest = clf.head.module() if isinstance(clf.head, ChainHead) else None
    clf = filled(replace(clf, head=None), rng)
    clf = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf[..., :32] if f"'{last_conv}'" in str(path) else leaf, clf
    )
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    cells = jax.eval_shape(lambda features, x: features(x), clf.features, image)
    pooled = cells if rest is None else jax.eval_shape(rest, cells)
    head = fg.Dense(*layer(*pooled.shape[1:], 24), (layer(24, 20), layer(20, classes)))
    return replace(clf, head=head if rest is None else ChainHead.from_chain(rest, head))


def some_images(count=3, size=32, classes=5, seed=0):
    """Smooth random images in [0, 1], float32, and a class for each."""
    rng = np.random.default_rng(seed)
    coarse = jnp.float32(rng.uniform(size=(count, 8, 8, 3)))
    images = jax.image.resize(coarse, (count, size, size, 3), "cubic")
    return np.clip(np.asarray(images), 0, 1), rng.integers(0, classes, count).astype(np.int32)
