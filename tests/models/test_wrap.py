"""Other libraries' models, cut by their equations: their logits, and the masks behind a cut."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fgvce_jax as fg
from fgvce_jax.files import fingerprint
from fgvce_jax.heads import ClassToken, PooledLinear, Tokens
from fgvce_jax.models import factory
from fgvce_jax.models.classifier import feature_map_of, head_of
from fgvce_jax.models.wrap import ForeignHead
from fgvce_jax.run_inputs import weights_of

SIZE, K = 32, 5
ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).uniform(size=(3, SIZE, SIZE, 3)).astype(np.float32)


def logits(clf, images=IMAGES):
    return jax.jit(lambda clf, images: clf(images))(clf, images)


class Block(nnx.Module):
    """A transformer's block, called as bonsai's are."""

    def __init__(self, width, rngs):
        self.before = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.attention.out.kernel[...] = 10 * self.attention.out.kernel[...]
        self.after = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.first, self.second = (
            nnx.Linear(*pair, rngs=rngs) for pair in ((width, 2 * width), (2 * width, width))
        )
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, *, rngs):
        x = x + self.attention(self.before(x), rngs=rngs)
        hidden = jax.nn.gelu(self.first(self.after(x)), approximate=False)
        return x + self.dropout(self.second(hidden), rngs=rngs)


class Vit(nnx.Module):
    """Patches of 8 pixels, a class token, two blocks."""

    def __init__(self, rngs, width=12, patch=(8, 8), special=1):
        self.embed = nnx.Conv(3, width, patch, strides=patch, rngs=rngs)
        self.special = nnx.Param(jax.random.normal(rngs.params(), (1, special, width)))
        self.blocks = nnx.List([Block(width, rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.last = nnx.Linear(width, K, rngs=rngs)

    def tokens(self, x, rngs=None, blocks=2):
        x = self.embed(x).reshape(len(x), -1, self.special.shape[-1])
        x = jnp.concatenate([jnp.tile(self.special[...], (len(x), 1, 1)), x], 1)
        for block in self.blocks[:blocks]:
            x = block(x, rngs=rngs)
        return x

    def __call__(self, x, *, rngs):
        return self.last(self.norm(self.tokens(x, rngs))[:, 0])


class Net(nnx.Module):
    """A convolution with batch norm, and what `after` makes of its map."""

    def __init__(self, rngs, after, strides=(4, 4)):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=strides, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.norm.mean[...] = jnp.linspace(-1, 1, 8)
        self.last = nnx.Linear(8, K, rngs=rngs)
        self.flat = nnx.Linear(512, K, rngs=rngs)
        self.after = after

    def __call__(self, x, train: bool = True):
        return self.after(self, jax.nn.relu(self.norm(self.conv(x))))


def mean(net, x):
    return net.last(x.mean((1, 2)))


def normed_mean(net, x):
    x = x.mean((1, 2))
    return net.last(x / jnp.linalg.norm(x, axis=-1, keepdims=True))


def flat(net, x):
    return net.flat(x.reshape(len(x), -1))


def jitted(net, x):
    return jax.jit(lambda x: jax.checkpoint(lambda x: x.mean((1, 2)))(x))(x) @ net.last.kernel[...]


@pytest.mark.parametrize(
    ("after", "head"),
    [(mean, PooledLinear), (jitted, PooledLinear), (normed_mean, ForeignHead), (flat, ForeignHead)],
)
def test_a_convolutional_network(after, head):
    model = Net(nnx.Rngs(0), after)
    clf = fg.wrap(model, SIZE, class_names=tuple("abcde"))
    assert type(clf.head) is head
    assert model.norm.use_running_average is False  # theirs is as it was
    model.eval()
    np.testing.assert_allclose(logits(clf), model(IMAGES), atol=1e-5)
    cells, context = feature_map_of(clf, IMAGES)
    np.testing.assert_allclose(cells, jax.nn.relu(model.norm(model.conv(IMAGES))), atol=1e-6)
    assert context is None
    assert clf.class_names == tuple("abcde")


def test_images_are_normalised_as_the_model_wants_them():
    model = Net(nnx.Rngs(0), mean)
    clf = fg.wrap(model, SIZE, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    model.eval()
    given = (IMAGES - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 1, 2])
    np.testing.assert_allclose(logits(clf), model(given), atol=1e-5)


@pytest.fixture(scope="module")
def vit():
    model = Vit(nnx.Rngs(0))
    clf = fg.wrap(model, SIZE)
    model.eval()
    return model, clf


def test_a_transformer_is_cut_before_its_last_block(vit):
    model, clf = vit
    np.testing.assert_allclose(
        logits(clf), jax.jit(lambda x: model(x, rngs=None))(IMAGES), atol=1e-5
    )
    cells, context = feature_map_of(clf, IMAGES)
    before = model.tokens(IMAGES, blocks=1)
    np.testing.assert_allclose(context, before[:, :1], atol=1e-5)
    np.testing.assert_allclose(cells.reshape(3, 16, 12), before[:, 1:], atol=1e-5)


def class_token(model):
    """The additive head of the same last block."""
    block = model.blocks[1]
    attention = block.attention
    parts = [getattr(attention, name) for name in ("query", "key", "value")]
    pair = lambda layer: (layer.kernel[...], layer.bias[...])  # noqa: E731
    norm = lambda layer: (layer.scale[...], layer.bias[...])  # noqa: E731
    return ClassToken(
        norm1=norm(block.before),
        qkv=(
            jnp.concatenate([part.kernel[...].reshape(12, 12) for part in parts], -1),
            jnp.concatenate([part.bias[...].ravel() for part in parts]),
        ),
        projection=(attention.out.kernel[...].reshape(12, 12), attention.out.bias[...]),
        scale1=jnp.ones(12),
        norm2=norm(block.after),
        layers=(pair(block.first), pair(block.second)),
        scale2=jnp.ones(12),
        norm=norm(model.norm),
        outputs=(pair(model.last),),
        heads=2,
    )


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_masks_act_on_the_attention_of_whatever_transformer(vit, sigma):
    """As in the additive head made of the same weights: contributions, and similarities."""
    model, clf = vit
    assert isinstance(clf.head, Tokens)
    ours = fg.Classifier(clf.features, class_token(model), K, SIZE)
    np.testing.assert_allclose(logits(ours), logits(clf), atol=1e-5)
    of_image = jax.tree.map(lambda leaf: leaf[0], feature_map_of(clf, IMAGES))

    @jax.jit
    def each_class(clf):
        head = head_of(clf, of_image)
        return jnp.stack([fg.contributions(head, of_image.cells, c, sigma) for c in range(K)])

    found, wanted = each_class(clf), each_class(ours)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(wanted).max() > 3e-3
    tokens = jax.random.normal(jax.random.key(0), (3, 7, 12))
    np.testing.assert_allclose(
        clf.head.compared(tokens), class_token(model).compared(tokens), atol=1e-5
    )


def test_a_wrapped_transformer_is_explained_like_the_additive_one(vit):
    model, clf = vit
    ours = fg.Classifier(clf.features, class_token(model), K, SIZE)
    labels = np.asarray(logits(clf)).argmin(-1)
    rng = np.random.default_rng(1)
    references = rng.uniform(size=(60, SIZE, SIZE, 3)).astype(np.float32)
    classes = np.asarray(logits(clf, references)).argmax(-1)
    labels = np.where(np.isin(labels, classes), labels, classes[0])
    outs = [
        fg.explain(each, fg.build_bank(each, references, classes), IMAGES, labels)
        for each in (clf, ours)
    ]
    for name in ("edit_cell", "edit_candidate", "num_edits", "flipped"):
        np.testing.assert_array_equal(getattr(outs[0], name), getattr(outs[1], name))
    np.testing.assert_allclose(outs[0].p_target, outs[1].p_target, atol=1e-5)
    assert np.asarray(outs[0].num_edits).sum() > 0


def test_tokens_that_are_all_averaged_are_cut_behind_the_last_norm():
    model = Vit(nnx.Rngs(0))
    model.eval()

    def averaged(images):
        return model.last(model.norm(model.tokens(images))[:, 1:].mean(1))

    clf = fg.wrap(averaged, SIZE)
    assert feature_map_of(clf, IMAGES).cells.shape == (3, 4, 4, 12)
    np.testing.assert_allclose(logits(clf), jax.jit(averaged)(IMAGES), atol=1e-5)
    assert isinstance(clf.head, PooledLinear)


# --- bad input ----------------------------------------------------------------------------------


def nan_weights():
    model = Net(nnx.Rngs(0), mean)
    model.last.kernel[...] = model.last.kernel[...].at[0, 0].set(jnp.nan)
    return model


class Unbound(nnx.Module):
    def __call__(self, x):
        raise RuntimeError("no such\nlayer")


BAD = {
    "not square": (
        lambda: Net(nnx.Rngs(0), mean, strides=(4, 8)),
        r"features: expected as many rows as columns, got \(8, 4\)",
    ),
    "tokens not square": (
        lambda: Vit(nnx.Rngs(0), patch=(8, 4)),
        "tokens: expected a square of patches, got 4 x 8",
    ),
    "a map in the place of logits": (
        lambda: lambda x: x,
        r"head: expected one vector of logits of an image, got \[\[1, 32, 32, 3\]\]",
    ),
    "two vectors": (
        lambda: lambda x: (x.mean((1, 2)), x.mean((1, 2))),
        r"head: expected one vector .* got \[\[1, 3\], \[1, 3\]\]",
    ),
    "NaN weights": (nan_weights, r"weights: expected numbers, an array \[8, 5\] holds NaN"),
    "NaN logits": (lambda: lambda x: jnp.log(-x.mean((1, 2)) - 1), "logits that are numbers"),
    "probabilities": (
        lambda: lambda x: jax.nn.softmax(x.mean((1, 2))),
        r"head: expected logits, got probabilities, which are positive and sum to 1",
    ),
    "a model that raises": (lambda: Unbound(), r"cannot be called with .* \(no such\)"),
    "no model": (lambda: 3, "model: expected one of Flax, Equinox or Keras, or a function"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_cannot_be_explained(case):
    make, message = BAD[case]
    with pytest.raises(fg.InputError, match=message) as error:
        fg.wrap(make(), SIZE)
    assert "\n" not in str(error.value)


# --- factories ----------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module beside the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text):
        (tmp_path / "mine_of_wrap.py").write_text(text)
        sys.modules.pop("mine_of_wrap", None)
        importlib.invalidate_caches()
        return "mine_of_wrap:make"

    return write


GOOD = """
import jax.numpy as jnp
import fgvce_jax as fg
def make(side=8, classes=3, value=1.0):
    w = value * jnp.ones((3, 3))
    features = lambda x: x[:, :: x.shape[1] // 8, :: x.shape[1] // side] @ w
    return fg.Classifier(features, lambda h: (h.mean((-3, -2)) @ w)[..., :classes], 3, 32)
"""


def test_a_factory_makes_the_classifier(module):
    clf = factory.from_factory(module(GOOD))
    assert clf(IMAGES).shape == (3, 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere", "", "expected package.module:function"),
        ("nowhere.at_all:make", "", "no module nowhere, from "),
        ("mine_of_wrap:other", GOOD, "expected a function other in mine_of_wrap, found none"),
        (None, "import nolibrary\nmake = 1", "needs the package nolibrary, install it"),
        (None, "def make():\n import nolibrary", "needs the package nolibrary, install it"),
        (None, "def make():\n raise KeyError('a')", "it raised KeyError: 'a'"),
        (None, "1 / 0", "it raised ZeroDivisionError: division by zero"),
        (None, "def make():\n return 3", "expected a Classifier, got int"),
        (None, GOOD.replace("side=8", "side=4"), r"cells: expected \[n, n, C\], got \[8, 4, 3\]"),
        (None, GOOD.replace("classes=3", "classes=2"), "head: expected 3 classes' logits, got 2"),
        (None, GOOD.replace(":classes]", ":classes, None]"), r"head: expected logits \[K\]"),
    ],
)
def test_a_factory_that_makes_none(module, name, text, message):
    written = module(text)
    with pytest.raises(fg.InputError, match=rf"model.factory .*: {message}") as error:
        factory.from_factory(name or written)
    assert "\n" not in str(error.value)


def test_a_factory_with_weights_that_are_nan(module):
    text = GOOD.replace("value=1.0", "value=jnp.nan").replace(
        "fg.Classifier(features,",
        "fg.Classifier(__import__('jax').tree_util.Partial(lambda w, x: features(x), w),",
    )
    with pytest.raises(fg.InputError, match=r"weights: expected numbers, .* holds NaN"):
        factory.from_factory(module(text))


def test_the_weights_of_a_function_are_those_that_it_captures(module):
    one, same, other = (
        weights_of(factory.from_factory(module(GOOD.replace("1.0", value))))
        for value in ("1.0", "1.0", "2.0")
    )
    prints = [fingerprint(each) for each in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]
