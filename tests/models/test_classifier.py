from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpy_resnet as reference
import pytest

from fgvce_jax.errors import InputError
from fgvce_jax.heads import Dense, PooledLinear
from fgvce_jax.models import Classifier, ModelSpec, build, named, recut, with_activation
from fgvce_jax.models.chain_head import ChainHead
from fgvce_jax.models.named import with_named
from fgvce_jax.models.spec import template

SPEC = ModelSpec(widths=reference.WIDTHS, blocks=reference.BLOCKS)


@pytest.fixture(scope="module")
def weights():
    return reference.state_dict()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(size=(2, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def clf(weights):
    """Our classifier with the reference's weights, by a renaming written here."""
    ours = {"mean": reference.MEAN, "std": reference.STD}
    kinds = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
    for name, array in weights.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight":
            kinds_of_weight = {1: "scale", 2: "kernel", 4: "kernel"}
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            ours[f"{layer}.{kinds_of_weight[array.ndim]}"] = array
        elif kind in kinds:
            ours[f"{layer}.{kinds[kind]}"] = array
    return with_named(template(SPEC, reference.CLASSES, reference.SIZE), ours)


def test_cells_and_logits_are_those_of_the_definition(clf, weights, images):
    cells, logits = zip(*(reference.small_resnet(weights, image) for image in images), strict=True)
    np.testing.assert_allclose(jax.jit(lambda c, x: c.features(x))(clf, images), cells, atol=2e-5)
    np.testing.assert_allclose(jax.jit(lambda c, x: c(x))(clf, images), logits, atol=2e-5)


def test_another_activation_replaces_every_relu(clf, weights, images):
    def leaky(x):
        return jnp.where(x > 0, x, 0.3 * x)

    expected = [
        reference.small_resnet(weights, image, lambda x: np.where(x > 0, x, 0.3 * x))[1]
        for image in images
    ]
    for cut in (None, "layer1.0"):
        other = with_activation(recut(clf, cut), leaky)
        np.testing.assert_allclose(jax.jit(lambda c, x: c(x))(other, images), expected, atol=2e-5)
    back = with_activation(with_activation(clf, leaky), jax.nn.relu)
    assert jax.tree.structure(back) == jax.tree.structure(clf)


@pytest.mark.parametrize(
    ("cut", "shape"),
    [
        ("layer1.0", (8, 8, 4)),
        ("layer1", (8, 8, 4)),
        ("layer2.0", (4, 4, 6)),
        ("layer2", (4, 4, 6)),
    ],
)
def test_every_cut_gives_the_same_logits(clf, images, cut, shape):
    other = recut(clf, cut)
    cells = jax.jit(lambda c, x: c.features(x))(other, images)
    assert cells.shape == (2, *shape)
    assert isinstance(other.head, ChainHead if shape == (8, 8, 4) else PooledLinear)
    head = jax.jit(lambda head, cells: head(cells))
    logits = jax.jit(lambda c, x: c(x))(clf, images)
    np.testing.assert_allclose(head(other.head, cells), logits, atol=1e-5)
    stacked = head(other.head, jnp.stack([0 * cells, cells, cells])[:, None])
    assert stacked.shape == (3, 1, 2, 5)
    np.testing.assert_allclose(stacked[2, 0], logits, atol=1e-5)
    np.testing.assert_allclose(head(other.head, cells[0]), logits[0], atol=1e-5)
    assert jax.tree.structure(recut(other, None)) == jax.tree.structure(clf)


def test_weights_are_arguments_of_a_compiled_function(clf, images):
    forward = jax.jit(lambda c, x: c(x))
    doubled = replace(clf, head=replace(clf.head, bias=clf.head.bias + 1))
    np.testing.assert_allclose(forward(doubled, images), forward(clf, images) + 1, atol=1e-5)
    assert forward._cache_size() == 1


def test_gradient_of_a_weight_is_its_finite_difference(clf, images):
    @jax.jit
    def loss(params):
        other = replace(clf, features=replace(clf.features, params=params))
        return jnp.square(other(images)).sum()

    gradient = jax.grad(loss)(clf.features.params)
    direction = jax.tree.map(jnp.sign, gradient)
    step = 1e-4
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, s=s: p + s * d, clf.features.params, direction))
        for s in (step, -step)
    )
    slope = sum(abs(leaf).sum() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=0.02)


def test_training_moves_the_statistics_and_leaves_the_original(clf, images):
    before = np.array(named(clf)["bn1.mean"])
    cells, moved = jax.jit(lambda b, x: b.train(x))(clf.features, images)
    _, eager = clf.features.train(images)
    weights = {name: np.asarray(array) for name, array in named(clf).items()}
    kernel = weights["conv1.kernel"].transpose(3, 2, 0, 1)
    x = np.stack(
        [reference.conv2d((i - reference.MEAN) / reference.STD, kernel, 2, 1) for i in images]
    )
    after = named(replace(clf, features=moved))
    expected = 0.9 * before + 0.1 * x.mean((0, 1, 2))
    np.testing.assert_allclose(after["bn1.mean"], expected, atol=1e-5)
    np.testing.assert_allclose(
        after["bn1.var"], 0.9 * weights["bn1.var"] + 0.1 * x.var((0, 1, 2)), atol=1e-4
    )
    np.testing.assert_array_equal(named(clf)["bn1.mean"], before)
    np.testing.assert_allclose(jax.tree.leaves(eager.stats)[0], jax.tree.leaves(moved.stats)[0])
    assert jax.tree.structure(moved) == jax.tree.structure(clf.features)
    assert not np.allclose(cells, clf.features(images))


def test_bfloat16_is_close_and_gives_float32(clf, images):
    half = clf.astype(jnp.bfloat16)
    both = jax.jit(lambda c, x: (c.features(x), c(x)))
    cells, logits = both(half, images)
    exact, _ = both(clf, images)
    assert cells.dtype == logits.dtype == jnp.float32
    assert jax.tree.leaves(half.features.params)[0].dtype == jnp.bfloat16
    assert 0 < np.abs(cells - exact).max() < 0.05 * np.abs(exact).max()


def test_default_small_resnet_has_7_by_7_cells_and_is_small():
    clf = template(ModelSpec(), 50, 112)
    cells = jax.eval_shape(lambda c, x: c.features(x), clf, jnp.zeros((1, 112, 112, 3)))
    assert cells.shape == (1, 7, 7, 192)
    assert sum(leaf.size for leaf in jax.tree.leaves(clf)) < 3_000_000
    for stride in (1, 2):
        clf = template(ModelSpec(widths=(4, 8), blocks=(1, 1), stem_stride=stride), 3, 28)
        cells = jax.eval_shape(lambda c, x: c.features(x), clf, jnp.zeros((1, 28, 28, 3)))
        assert cells.shape == (1, 14 // stride, 14 // stride, 8)


@pytest.mark.parametrize(
    ("spec", "shape", "parameters"),
    [
        (ModelSpec("resnet50"), (7, 7, 2048), 25_557_032 + 2 * 26_560),
        (ModelSpec("resnet50", "layer4.0"), (7, 7, 2048), 25_557_032 + 2 * 26_560),
        (ModelSpec("resnet50", "layer3"), (14, 14, 1024), 25_557_032 + 2 * 26_560),
        (ModelSpec("vgg16"), (7, 7, 512), 138_357_544),
        (ModelSpec("vgg16", "conv"), (14, 14, 512), 138_357_544),
        (ModelSpec("vgg19"), (7, 7, 512), 143_667_240),
        (ModelSpec("vgg16_bn"), (7, 7, 512), 138_365_992 + 2 * 4_224),
        (ModelSpec("vgg19_bn", "pool"), (7, 7, 512), 143_678_248 + 2 * 5_504),
    ],
    ids=lambda value: f"{value.arch}-{value.cut}" if isinstance(value, ModelSpec) else "",
)
def test_large_architectures_have_the_published_sizes(spec, shape, parameters):
    """Parameter counts as published for ImageNet; statistics, two per norm channel, come on top."""
    clf = template(spec, 1000, 224)
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    assert jax.eval_shape(lambda c, x: c.features(x), clf, images).shape == (2, *shape)
    assert jax.eval_shape(lambda c, x: c(x), clf, images).shape == (2, 1000)
    assert sum(leaf.size for leaf in jax.tree.leaves(clf)) == parameters + 6  # mean, std


def test_vgg_cut_before_the_pool_gives_the_same_logits_and_takes_another_activation():
    rng = np.random.default_rng(0)
    empty = template(ModelSpec("vgg16"), 3, 32)
    weights = {
        name: rng.standard_normal(leaf.shape, np.float32) / np.prod(leaf.shape[:-1]) ** 0.5
        for name, leaf in named(empty).items()
    }
    clf = with_named(empty, weights)
    images = rng.uniform(size=(1, 32, 32, 3)).astype(np.float32)
    conv = recut(clf, "conv")
    assert isinstance(clf.head, Dense)
    both = jax.jit(lambda c, x: (c.features(x), c(x)))
    cells, logits = both(clf, images)
    assert cells.shape == (1, 1, 1, 512)
    earlier, same = both(conv, images)
    assert earlier.shape == (1, 2, 2, 512)
    np.testing.assert_allclose(earlier.max((1, 2)), cells[:, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(same, logits, rtol=1e-4)

    cells, logits = both(with_activation(clf, jnp.abs), images)
    y = np.einsum("bijc,ijcd->bd", cells, weights["classifier.0.kernel"])
    y = np.abs(y + weights["classifier.0.bias"])
    y = np.abs(y @ weights["classifier.3.kernel"] + weights["classifier.3.bias"])
    y = y @ weights["classifier.6.kernel"] + weights["classifier.6.bias"]
    np.testing.assert_allclose(logits, y, rtol=1e-3)
    np.testing.assert_allclose(both(with_activation(conv, jnp.abs), images)[1], y, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "resnet5"}, "resnet50"),
        ({"arch": "resnet50", "cut": "layer5"}, "layer4.0"),
        ({"arch": "vgg16", "cut": "layer4"}, "conv, pool"),
        ({"widths": (8,), "blocks": (1, 1)}, "blocks"),
        ({"widths": (8, 0), "blocks": (1, 1)}, "blocks"),
        ({"stem_stride": 3}, "1, 2 or 4"),
    ],
)
def test_specs_that_cannot_be_built_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ModelSpec(**arguments)


def test_a_spec_survives_json():
    import json

    spec = ModelSpec(cut="layer1.0", widths=(3, 5), blocks=(2, 1), stem_stride=2)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(InputError, match="depth"):
        ModelSpec.from_dict({"arch": "resnet50", "depth": 3})


def test_building_is_deterministic_and_scaled_for_relu():
    spec = ModelSpec(widths=(64, 128), blocks=(1, 1))
    first, second, other = (
        named(build(spec, 9, 32, jax.random.key(seed), mean=(0, 0, 0), std=(1, 2, 3)))
        for seed in (0, 0, 1)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    kernel = first["layer2.0.conv2.kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 128)) ** 0.5, rtol=0.01)
    assert not np.allclose(kernel, other["layer2.0.conv2.kernel"])
    assert list(first["std"]) == [1, 2, 3]


def test_too_small_images_are_refused():
    with pytest.raises(InputError, match="image_size 16"):
        template(ModelSpec("vgg16"), 3, 16)


def test_functions_of_the_users_own():
    clf = Classifier(lambda x: x, lambda h: h.mean((-3, -2)), num_classes=3, image_size=4)
    images = jnp.arange(96.0).reshape(2, 4, 4, 3) / 96
    np.testing.assert_allclose(jax.jit(lambda c, x: c(x))(clf, images), images.mean((1, 2)))
    assert clf.class_names == ("0", "1", "2")
    with pytest.raises(InputError, match="own"):
        with_activation(clf, jax.nn.relu)
    with pytest.raises(InputError, match="dtype"):
        clf.astype(jnp.bfloat16)
    with pytest.raises(InputError, match="expected 3 names, got 2"):
        replace(clf, class_names=("a", "b"))
