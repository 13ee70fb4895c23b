"""ConvNeXt gives the logits of transformers' under its own, torchvision's and timm's names."""

import re

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_models import assert_same_logits
from transformers import ConvNextConfig, ConvNextForImageClassification

from fgvce_jax.models import load_classifier, named, recut

SIZES = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}


def network(arch, num_classes=6):
    """Random weights whose branches count: the initial layer scale would hide them."""
    depths, widths = SIZES[arch]
    torch.manual_seed(0)
    config = ConvNextConfig(depths=list(depths), hidden_sizes=list(widths), num_labels=num_classes)
    model = ConvNextForImageClassification(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("layer_scale_parameter"):
                weight.uniform_(0.05, 0.3)
            elif weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
    return model


def torchvision_name(name):
    """By torchvision's layer list: features are stem, stage, downsampling, stage, ..."""
    name = name.removeprefix("convnext.")
    kind = name.rsplit(".", 1)[1]
    if name.startswith("embeddings"):
        return f"features.0.{int('layernorm' in name)}.{kind}"
    if name.startswith("layernorm"):
        return f"classifier.0.{kind}"
    if name.startswith("classifier"):
        return f"classifier.2.{kind}"
    stage, rest = re.fullmatch(r"encoder\.stages\.(\d)\.(.*)", name).groups()
    if rest.startswith("downsampling_layer"):
        return f"features.{2 * int(stage)}.{rest.split('.')[1]}.{kind}"
    _, index, layer = rest.split(".")[:3]
    prefix = f"features.{2 * int(stage) + 1}.{index}"
    place = {"dwconv": 0, "layernorm": 2, "pwconv1": 3, "pwconv2": 5}
    return (
        f"{prefix}.layer_scale" if layer not in place else f"{prefix}.block.{place[layer]}.{kind}"
    )


def timm_name(name):
    name = name.removeprefix("convnext.").replace("encoder.stages", "stages")
    for theirs, other in (
        ("embeddings.patch_embeddings", "stem.0"),
        ("embeddings.layernorm", "stem.1"),
        ("downsampling_layer", "downsample"),
        (".layers.", ".blocks."),
        ("dwconv", "conv_dw"),
        ("pwconv1", "mlp.fc1"),
        ("pwconv2", "mlp.fc2"),
        ("layer_scale_parameter", "gamma"),
        ("layernorm", "norm"),
        ("classifier", "head.fc"),
    ):
        name = name.replace(theirs, other)
    return f"head.{name}" if name.startswith("norm") else name


@pytest.mark.parametrize("arch", SIZES)
def test_logits(tmp_path, arch):
    model = network(arch)
    model.save_pretrained(tmp_path)
    clf = load_classifier(arch, tmp_path / "model.safetensors", image_size=64)
    assert_same_logits(model, clf, 64)
    if arch == "convnext_tiny":
        for cut in ("features.7.0", "features.5"):
            assert_same_logits(model, recut(clf, cut), 64)
        assert_same_logits(model, load_classifier(arch, tmp_path / "model.safetensors"), 224, 1)


def test_names_of_torchvision_and_timm(tmp_path):
    model = network("convnext_tiny")
    model.save_pretrained(tmp_path)
    expected = named(load_classifier("convnext_tiny", tmp_path / "model.safetensors"))
    for rename in (torchvision_name, timm_name):
        state = {}
        for name, value in model.state_dict().items():
            shaped = value[:, None, None] if "layer_scale" in name else value
            state[rename(name)] = (shaped if rename is torchvision_name else value).contiguous()
        save_file(state, tmp_path / "w.safetensors")
        other = named(load_classifier("convnext_tiny", tmp_path / "w.safetensors"))
        assert set(other) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)
        assert all(jax.numpy.isfinite(array).all() for array in other.values())
