"""FG-CAM: relevance is handed down whole, and in proportion to positive contributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import resnet, some_images, vgg
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.fgcam import denoised, input_rule, positive, rules, shares, units_after
from fgvce_jax.models import ModelSpec, build
from fgvce_jax.models.layers import conv


def test_shares_are_in_proportion_to_positive_contributions():
    weights = np.float32([[1, 0, 2], [3, 0, 0], [0, 0, 2]])  # three inputs, three outputs
    x = np.float32([2, 1, 1])
    relevance = np.float32([10, 7, -3])
    # Output 0 is 2 + 3, output 1 has no inputs and loses its 7, output 2 is 4 + 2.
    (ours,) = shares(lambda x: x @ weights, (x,), jnp.asarray(relevance))
    np.testing.assert_allclose(ours, [10 * 2 / 5 - 3 * 4 / 6, 10 * 3 / 5, -3 * 2 / 6], rtol=1e-6)


def test_two_inputs_of_one_layer_share_its_relevance():
    first, second = np.float32([1, 3]), np.float32([3, 1])
    ours = shares(lambda a, b: a + 2 * b, (first, second), jnp.float32([14, 10]))
    np.testing.assert_allclose(ours[0], [2, 6], rtol=1e-6)
    np.testing.assert_allclose(ours[1], [12, 4], rtol=1e-6)


def test_the_input_adds_by_its_distance_from_the_lowest_and_the_highest_value():
    """A 1 x 1 convolution: what a channel adds to an output is seen pixel by pixel."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 3))
    relevance = rng.normal(size=(2, 3, 4, 5))
    layer = conv(3, 5, 1, rngs=nnx.Rngs(0))
    weights = np.float64(layer.kernel[...])[0, 0]
    assert (weights < 0).any()
    ours = input_rule(layer, None, jnp.float32(x))(jnp.float32(relevance))
    for image, given, out in zip(x, relevance, ours, strict=True):
        above = (image - image.min())[..., None] * np.maximum(weights, 0)
        below = (image.max() - image)[..., None] * np.minimum(weights, 0)
        adds = above - below  # [H, W, input channel, output channel]
        expected = (adds / adds.sum(2, keepdims=True) * given[:, :, None]).sum(-1)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [resnet, vgg])
def test_relevance_is_neither_made_nor_lost(network):
    clf = network()
    images, _ = some_images()
    chain = clf.features.module()
    chain.eval()

    @jax.jit
    def carried(images):
        cells, back = rules(chain, (images - clf.features.mean) / clf.features.std)
        relevance, sums = cells, [cells.sum((1, 2, 3))]  # only what is active is relevant
        for name in reversed(chain.order):
            relevance = back[name](relevance)
            sums.append(relevance.sum((1, 2, 3)))
        return cells, jnp.stack(sums), relevance

    cells, sums, relevance = carried(images)
    np.testing.assert_allclose(cells, clf.features(images), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums, np.broadcast_to(sums[0], sums.shape), rtol=1e-3)
    assert relevance.shape == images.shape
    assert np.asarray(relevance).min() >= 0


def test_stages():
    clf = resnet()
    chain = clf.features.module()
    assert units_after(chain, "input") == chain.order
    assert units_after(chain, None) == units_after(chain, "layer1")
    assert units_after(chain, "layer2.0") == ("layer2.1", "layer3.0")
    assert units_after(chain, "layer3") == ()
    assert units_after(vgg().features.module(), None)[0] == "features.8"
    with pytest.raises(fg.InputError, match=r"stage 'layer9': expected input, .*layer2\.1"):
        units_after(chain, "layer9")


def test_at_the_last_layer_it_is_the_map_it_starts_from():
    clf = resnet(ModelSpec(widths=(4, 6), blocks=(1, 1), stem_stride=2), size=16)
    images, classes = some_images(size=16)
    for base in ("gradcam", "layercam", "scorecam"):
        ours = METHODS["fgcam"](clf, images, classes, stage="layer2", base=base)
        expected = METHODS[base](clf, images, classes)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_denoising_keeps_a_tenth_of_the_singular_components():
    """That of the authors' code: centred channels, their mean not added again."""
    terms = np.random.default_rng(0).normal(size=(6, 6, 24)).astype(np.float32)
    matrix = np.float64(terms).reshape(36, 24).T  # a channel a row
    matrix = matrix - matrix.mean(1, keepdims=True)
    left, values, right = np.linalg.svd(matrix, full_matrices=True)
    kept = int(len(values) * 0.1)
    assert kept == 2
    expected = left[:, :kept] @ np.diag(values[:kept]) @ right[:kept]
    np.testing.assert_allclose(
        denoised(jnp.asarray(terms)), expected.T.reshape(6, 6, 24), atol=1e-5
    )


def test_a_denoised_map_is_that_of_the_denoised_terms():
    clf = resnet(ModelSpec(widths=(4, 16), blocks=(1, 1), stem_stride=2), size=16)
    images, classes = some_images(size=16)
    cells = np.asarray(clf.features(images))
    for stage in ("layer2", "layer1"):
        ours = METHODS["fgcam"](clf, images, classes, stage=stage, base="gradcam", denoise=True)
        plain = METHODS["fgcam"](clf, images, classes, stage=stage, base="gradcam")
        assert np.abs(np.asarray(ours) - plain).max() > 0.01 * np.abs(plain).max()
        if stage == "layer2":  # GradCAM's weights of a pooled-linear head are its kernel's
            weights = np.asarray(clf.head.kernel)[:, classes].T / cells.shape[1] ** 2
            terms = jax.vmap(denoised)(cells * weights[:, None, None])
            expected = np.maximum(np.asarray(terms).sum(-1), 0)
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("arch", ["convnext_tiny", "efficientnet_lite0"])
def test_networks_of_other_layers_are_refused(arch):
    clf = jax.eval_shape(lambda: build(ModelSpec(arch), 5, 32, jax.random.key(0)))
    with pytest.raises(fg.InputError, match="fgcam: needs the layers of a ResNet or VGG"):
        jax.eval_shape(METHODS["fgcam"], clf, *some_images(count=1))


def test_a_grouped_convolution_hands_relevance_to_its_own_group():
    layer = conv(4, 6, 1, groups=2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).uniform(size=(1, 2, 2, 4)).astype(np.float32)
    weights = np.maximum(np.float64(layer.kernel[...])[0, 0], 0)  # [2, 6]: inputs of each group
    ours = positive(layer, None)(x)
    expected = np.concatenate([x[..., :2] @ weights[:, :3], x[..., 2:] @ weights[:, 3:]], -1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_what_it_cannot_do():
    clf = resnet(ModelSpec(widths=(4, 6), blocks=(1, 1), stem_stride=2), size=16)
    images, classes = some_images(size=16)
    with pytest.raises(fg.InputError, match="base 'ig': expected one of gradcam"):
        METHODS["fgcam"](clf, images, classes, base="ig")
    with pytest.raises(fg.InputError, match="denoise: expected 10 or more cells"):
        METHODS["fgcam"](clf, images, classes, denoise=True)
    model = tiny()
    images, classes, _ = problems(model)
    with pytest.raises(fg.InputError, match="layers of a ResNet or VGG"):
        METHODS["fgcam"](model.clf, images, classes)
