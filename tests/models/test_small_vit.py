"""The small vision transformer: a residual stem, then a transformer, held to the two of them."""

from dataclasses import replace

import jax
import numpy as np
import numpy_transformers as plain
import pytest
from networks import filled

import fgvce_jax as fg
from fgvce_jax.models import ModelSpec, load_classifier, named, recut, save_classifier
from fgvce_jax.models.named import with_named
from fgvce_jax.models.spec import template
from fgvce_jax.models.whole_vit import whole_vit
from fgvce_jax.train.step import TrainState, loss_of, make_optimizer, make_step, trainable

SPEC = ModelSpec("small_vit", widths=(8, 12, 64), blocks=(1, 1, 2), stem_stride=2)
SIZE = 32

forward = jax.jit(lambda clf, images: clf(images))


@pytest.fixture(scope="module")
def clf():
    return filled(template(SPEC, 5, SIZE), np.random.default_rng(0))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(size=(2, SIZE, SIZE, 3)).astype(np.float32)


def test_it_is_a_residual_stem_and_a_transformer(clf, images):
    w = plain.weights_of(named(clf))
    spec = replace(SPEC, arch="small_resnet", widths=SPEC.widths[:2], blocks=SPEC.blocks[:2])
    stem = template(spec, 1, SIZE)  # held to NumPy in test_classifier
    own = {name: named(clf).get(name, np.zeros(leaf.shape)) for name, leaf in named(stem).items()}
    stem = with_named(stem, own)
    for image, logits in zip(images, forward(clf, images), strict=True):
        cells = np.asarray(stem.features(image[None])[0], np.float64)
        patches = cells.reshape(4, 2, 4, 2, 12).swapaxes(1, 2).reshape(16, -1)
        patches = patches @ w["patch_embed.proj.kernel"].reshape(-1, 64)
        positions = w["patch_embed.pos_embed"][0]
        context = w["patch_embed.cls_token"][0] + positions[:1]
        patches = patches + w["patch_embed.proj.bias"] + positions[1:]
        expected = plain.vit_logits(w, (0, 1), patches, context, 2, np.ones(16), 1)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        forward(recut(clf, "blocks.0"), images), forward(clf, images), atol=1e-5
    )


def test_its_attention_is_read_behind_the_stem(clf, images):
    @jax.jit
    def logits(clf, images):
        vit = whole_vit(clf, images, "rollout")
        assert (vit.side, vit.special) == (4, 1)
        kernel, bias = vit.outputs[0]
        return vit.norm.compared(vit.steps()[-1].tokens[:, 0]) @ kernel + bias

    np.testing.assert_allclose(logits(clf, images), forward(clf, images), rtol=1e-4, atol=1e-4)


def test_a_step_of_training_moves_all_of_it(clf, images):
    config = fg.train.TrainConfig(batch_size=2)
    optimizer = make_optimizer(config, lambda step: 1e-3)
    state = TrainState(clf, optimizer.init(trainable(clf)), np.int32(0))
    before = {name: np.array(leaf) for name, leaf in named(clf).items()}
    step = make_step(optimizer, loss_of(config), config.augment)
    state = jax.tree.map(jax.numpy.array, state)  # a copy, which the step may take over
    state, _ = step(state, np.uint8(255 * images), np.int32([0, 3]), jax.random.key(0))
    still = {n for n, leaf in named(state.classifier).items() if np.array_equal(leaf, before[n])}
    assert still == {"mean", "std"}


def test_a_checkpoint_comes_back_and_at_another_size(clf, images, tmp_path):
    save_classifier(clf, tmp_path / "c")
    again = load_classifier(tmp_path / "c")
    np.testing.assert_array_equal(forward(again, images), forward(clf, images))
    larger = load_classifier(tmp_path / "c", image_size=48)
    assert named(larger)["patch_embed.pos_embed"].shape == (1, 37, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (32,), "blocks": (1,)}, r"widths \[32\]: expected for small_vit at least two"),
        ({"widths": (8, 48), "blocks": (1, 1)}, r"the last a multiple of 32$"),
        ({"head": "calm"}, "head 'calm': small_vit has none"),
        ({"cut": "layer1"}, "cut 'layer1': expected one of blocks.0 for small_vit"),
    ],
)
def test_stages_that_it_cannot_have(options, message):
    with pytest.raises(fg.InputError, match=message) as caught:
        replace(SPEC, **options)
    assert "\n" not in str(caught.value)
