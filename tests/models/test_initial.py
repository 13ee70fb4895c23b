from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import NAMES, SIZE, arrays, tiny_classifier

from fgvce_jax.config import ModelConfig
from fgvce_jax.errors import InputError
from fgvce_jax.heads import CalmHead, Dense
from fgvce_jax.models import ModelSpec, build, save_classifier
from fgvce_jax.models.initial import for_classes, fresh_head, initial_classifier

KEY = jax.random.key(0)


def test_fine_tuning_keeps_the_backbone_and_starts_the_head_anew(tmp_path):
    tiny = tiny_classifier()
    save_classifier(tiny, tmp_path / "checkpoint")
    config = ModelConfig(checkpoint=str(tmp_path / "checkpoint"))
    same = initial_classifier(config, ("a", "b", "c"), KEY)
    np.testing.assert_array_equal(same.head.kernel, tiny.head.kernel)
    assert same.class_names == ("a", "b", "c")
    more = initial_classifier(config, ("a", "b", "c", "d"), KEY)
    assert more.num_classes == 4
    assert more.head.kernel.shape == (8, 4)
    for a, b in zip(arrays(more.features), arrays(tiny.features), strict=True):
        np.testing.assert_array_equal(a, b)


def test_calms_head_replaces_the_own_one_on_the_same_backbone():
    tiny = tiny_classifier()
    calm = for_classes(tiny, NAMES, KEY, "calm")
    assert calm.spec == replace(tiny.spec, head="calm")
    expected = CalmHead.create(KEY, 8, 3)
    for a, b in zip(arrays(calm), arrays((tiny.features, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert for_classes(calm, ("a", "b", "c"), KEY, "calm").head is calm.head


@pytest.mark.parametrize("head", ["own", "calm"])
def test_no_new_head_for_a_cut_model(head):
    """Its checkpoint would lack the layers after the cut, and could not be opened again."""
    spec = ModelSpec(widths=(8, 8), blocks=(1, 1), stem_stride=2, cut="layer1")
    cut = build(spec, 3, SIZE, KEY)
    with pytest.raises(InputError, match="head ChainHead: expected an uncut model's"):
        for_classes(cut, ("a", "b"), KEY, head)


def test_fresh_head_of_a_dense_one_replaces_its_last_layer():
    ones = jnp.ones
    head = Dense(ones((2, 2, 3, 5)), ones(5), ((ones((5, 6)), ones(6)), (ones((6, 9)), ones(9))))
    fresh = fresh_head(head, 4, KEY)
    assert fresh.layers[0] is head.layers[0]
    assert fresh.kernel is head.kernel
    kernel, bias = fresh.layers[1]
    assert kernel.shape == (6, 4)
    assert 0.002 < float(kernel.std()) < 0.02
    assert (bias == 0).all()
    with pytest.raises(InputError, match="uncut"):
        fresh_head(partial(jnp.mean), 4, KEY)


def test_a_model_is_a_checkpoint_or_weights():
    with pytest.raises(InputError, match="expected a checkpoint or weights, got both a and b"):
        ModelConfig(checkpoint="a", arch="vgg16", weights="b")


def test_models_that_cannot_be_trained_are_refused():
    with pytest.raises(InputError, match="expected arch, checkpoint or factory"):
        initial_classifier(ModelConfig(), NAMES, KEY)
    cut = ModelConfig(arch="resnet50", cut="layer4.0")
    with pytest.raises(InputError, match=r"model\.cut 'layer4\.0'"):
        initial_classifier(cut, NAMES, KEY)
