"""Vision transformers give the logits of transformers', torchvision's and timm's networks."""

from functools import partial

import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.torch import save_file
from test_models import assert_same_logits
from tiny_transformers import DESIGNS, SWIN, TINY, tiny_transformers

from fgvce_jax.models import ModelSpec, load_classifier, recut
from fgvce_jax.models.convert import classifier_from_weights
from fgvce_jax.models.positions import cubic
from fgvce_jax.models.recognise import recognised
from fgvce_jax.models.spec import NETWORKS
from fgvce_jax.models.transformer import LaterUnits

CLASSES = 5
WIDTH, BLOCKS, HEADS = TINY.width, TINY.blocks, TINY.heads
WINDOW = SWIN["window"]
CONFIG = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "num_labels": CLASSES,
    "layer_norm_eps": 1e-6,
}
HUGGING_FACE = {
    "vit_s_16": ("ViT", "ForImageClassification"),
    "vit_s_32": ("ViT", "ForImageClassification"),
    "deit_s_16_distilled": ("DeiT", "ForImageClassificationWithTeacher"),
    "deit_s_16_distilled_cls": ("DeiT", "ForImageClassification"),
    "dinov2_s_14": ("Dinov2", "ForImageClassification"),
    "dinov2_s_14_reg": ("Dinov2WithRegisters", "ForImageClassification"),
}


def library(name):
    """torchvision or timm, which have no release for every torch."""
    return pytest.importorskip(name)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_transformers(monkeypatch)


def settled(network):
    """Random weights of a size that makes every tensor count."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            fan_in = weight[0].numel() if weight.ndim in (2, 4) else 4
            noise = torch.randn(weight.shape, generator=generator) * fan_in**-0.5
            scale = weight.ndim == 1 and not name.endswith("bias")
            weight.copy_(0.7 + 0.3 * noise if scale else noise)
    return network.eval()


def assert_same(model, arch, path, size):
    assert_same_logits(model, load_classifier(arch, path, image_size=size), size)


def hugging_face(arch, size=32, **options):
    family, task = HUGGING_FACE[arch]
    config = CONFIG | {"image_size": size, "patch_size": DESIGNS[arch].patch} | options
    if family in ("ViT", "DeiT"):
        config["intermediate_size"] = 4 * WIDTH
    model = getattr(transformers, family + task)
    return settled(model(getattr(transformers, f"{family}Config")(**config)))


@pytest.mark.parametrize("arch", HUGGING_FACE)
def test_logits_at_every_cut(tmp_path, arch):
    model = hugging_face(arch)
    model.save_pretrained(tmp_path)
    clf = load_classifier(arch, tmp_path / "model.safetensors", image_size=32)
    assert_same_logits(model, clf, 32)
    if arch != "vit_s_32":
        for cut in clf.spec.cuts:
            assert_same_logits(model, recut(clf, cut), 32)


def test_the_names_of_the_modules_themselves(tmp_path):
    """transformers renames the modules when it saves; a state dict saved with torch has these."""
    model = hugging_face("vit_s_16")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert_same_logits(
        model, load_classifier("vit_s_16", tmp_path / "w.safetensors", image_size=32), 32
    )


def test_the_constant_of_the_norms(tmp_path):
    """Hugging Face's ViT adds 1e-12; here it is larger, to be seen."""
    model = hugging_face("vit_s_16", layer_norm_eps=0.1)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    spec = ModelSpec("vit_s_16", epsilon=0.1)
    assert_same_logits(model, classifier_from_weights(path, spec, 32), 32)
    with pytest.raises(AssertionError):
        assert_same_logits(model, load_classifier("vit_s_16", path, image_size=32), 32)


@pytest.mark.parametrize("arch", ["vit_s_16", "dinov2_s_14", "dinov2_s_14_reg"])
@pytest.mark.parametrize("size", [24, 56])
def test_other_sizes_than_the_trained_one(tmp_path, arch, size):
    model = hugging_face(arch)
    model.save_pretrained(tmp_path)
    clf = load_classifier(arch, tmp_path / "model.safetensors", image_size=size)
    flexible = partial(model, interpolate_pos_encoding=True) if arch == "vit_s_16" else model
    assert_same_logits(flexible, clf, size)


@pytest.mark.parametrize("antialias", [False, True])
def test_cubic_interpolation_is_torchs(antialias):
    for old, new in ((7, 3), (37, 16), (4, 9), (5, 5), (1, 3)):
        rows = torch.eye(old, dtype=torch.float64).reshape(1, 1, old, old)
        expected = torch.nn.functional.interpolate(
            rows, size=(old, new), mode="bicubic", antialias=antialias
        )
        np.testing.assert_allclose(cubic(old, new, antialias).T, expected[0, 0], atol=1e-12)


@pytest.mark.parametrize("size", [64, 72, 48])
def test_swin_of_transformers(tmp_path, size):
    """With 16, 8 and 4 cells a side, and with padded windows and merged odd maps."""
    config = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[2, 2, 2],
        num_heads=[2, 2, 4],
        window_size=WINDOW,
        num_labels=CLASSES,
    )
    model = settled(transformers.SwinForImageClassification(config))
    model.save_pretrained(tmp_path)
    clf = load_classifier("swin_t", tmp_path / "model.safetensors", image_size=size)
    if size == 48:  # 3 cells in a window of 4, which transformers refuses
        return
    assert_same_logits(model, clf, size)
    for cut in ("features.1.0", "features.1", "features.5.0"):
        assert_same_logits(model, recut(clf, cut), size)


@pytest.mark.parametrize("size", [64, 72, 48])
def test_swin_of_torchvision(tmp_path, size):
    torchvision = library("torchvision")
    model = settled(
        torchvision.models.SwinTransformer(
            [4, 4], 8, [2, 2, 2], [2, 2, 4], [WINDOW, WINDOW], num_classes=CLASSES
        )
    )
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert_same_logits(
        model, load_classifier("swin_t", tmp_path / "w.safetensors", image_size=size), size
    )


def test_vit_of_torchvision(tmp_path):
    torchvision = library("torchvision")
    model = settled(
        torchvision.models.VisionTransformer(
            32, 8, BLOCKS, HEADS, WIDTH, 4 * WIDTH, num_classes=CLASSES
        )
    )
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert_same_logits(
        model, load_classifier("vit_s_16", tmp_path / "w.safetensors", image_size=32), 32
    )


@pytest.mark.parametrize("arch", ["vit_s_16", "deit_s_16_distilled", "swin_t", "no_embed_class"])
def test_networks_of_timm(tmp_path, arch):
    timm = library("timm")
    options = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": BLOCKS}
    options |= {"num_heads": HEADS, "num_classes": CLASSES}
    size = 32
    if arch == "swin_t":
        size, options = 64, {"img_size": 64, "embed_dim": 8, "depths": (2, 2, 2)}
        options |= {"num_heads": (2, 2, 4), "window_size": WINDOW, "num_classes": CLASSES}
        network = timm.models.SwinTransformer
    elif arch == "deit_s_16_distilled":
        network = timm.models.VisionTransformerDistilled
    else:
        network = timm.models.VisionTransformer
    if arch == "no_embed_class":
        options["no_embed_class"], arch = True, "vit_s_16"
    model = settled(network(**options))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    clf = load_classifier(arch, tmp_path / "w.safetensors", image_size=size)
    assert_same_logits(model, clf, size)


# --- the real sizes -----------------------------------------------------------------------------

FULL = {
    "vit_ti_16": ("ViT", "ForImageClassification", 192, 3, 16),
    "vit_s_16": ("ViT", "ForImageClassification", 384, 6, 16),
    "vit_b_16": ("ViT", "ForImageClassification", 768, 12, 16),
    "vit_s_32": ("ViT", "ForImageClassification", 384, 6, 32),
    "vit_b_32": ("ViT", "ForImageClassification", 768, 12, 32),
    "deit_ti_16_distilled": ("DeiT", "ForImageClassificationWithTeacher", 192, 3, 16),
    "deit_s_16_distilled": ("DeiT", "ForImageClassificationWithTeacher", 384, 6, 16),
    "deit_b_16_distilled": ("DeiT", "ForImageClassificationWithTeacher", 768, 12, 16),
    "deit_ti_16_distilled_cls": ("DeiT", "ForImageClassification", 192, 3, 16),
    "deit_s_16_distilled_cls": ("DeiT", "ForImageClassification", 384, 6, 16),
    "deit_b_16_distilled_cls": ("DeiT", "ForImageClassification", 768, 12, 16),
    "dinov2_s_14": ("Dinov2", "ForImageClassification", 384, 6, 14),
    "dinov2_b_14": ("Dinov2", "ForImageClassification", 768, 12, 14),
    "dinov2_s_14_reg": ("Dinov2WithRegisters", "ForImageClassification", 384, 6, 14),
    "dinov2_b_14_reg": ("Dinov2WithRegisters", "ForImageClassification", 768, 12, 14),
    "swin_t": ("Swin", "ForImageClassification", None, None, 4),
}


def full_size(arch):
    """The real network without memory for its weights."""
    family, task, width, heads, patch = FULL[arch]
    options = {}
    if width:
        options = {"hidden_size": width, "num_attention_heads": heads, "patch_size": patch}
        options |= {} if "Dino" in family else {"intermediate_size": 4 * width}
    config = getattr(transformers, f"{family}Config")(num_labels=7, **options)
    with torch.device("meta"):
        return getattr(transformers, family + task)(config)


def heads_of(arch):
    """Attention heads of the first block of ours, which no shape shows."""
    return nnx.eval_shape(lambda: NETWORKS[arch].units(torch.relu, nnx.Rngs(0), 224))[
        "blocks.0"
    ].heads


def shapes_alone(network):
    """Its tensors by name, without the memory."""
    zero = np.float32(0)
    return {name: np.broadcast_to(zero, leaf.shape) for name, leaf in network.state_dict().items()}


@pytest.mark.parametrize("arch", FULL)
def test_the_real_sizes_are_recognised_by_names_and_shapes(monkeypatch, arch):
    monkeypatch.undo()
    assert recognised(shapes_alone(full_size(arch)), "weights") == arch
    if FULL[arch][3] is not None:
        assert heads_of(arch) == FULL[arch][3]


def test_every_transformer_of_the_table_is_among_them():
    table = {arch for arch, known in NETWORKS.items() if known.rest.__self__ is LaterUnits}
    assert set(FULL) == table


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("vit_s_16", "vit_small_patch16_224"),
        ("vit_b_32", "vit_base_patch32_224"),
        ("vit_ti_16", "deit_tiny_patch16_224"),
        ("deit_s_16_distilled", "deit_small_distilled_patch16_224"),
        ("swin_t", "swin_tiny_patch4_window7_224"),
    ],
)
def test_the_real_sizes_of_timm(monkeypatch, arch, name):
    monkeypatch.undo()
    timm = library("timm")
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=7)
    assert recognised(shapes_alone(network), "weights") == arch
    if arch != "swin_t":
        assert heads_of(arch) == network.blocks[0].attn.num_heads


@pytest.mark.parametrize("arch", ["vit_b_16", "vit_b_32", "swin_t"])
def test_the_real_sizes_of_torchvision(monkeypatch, arch):
    monkeypatch.undo()
    torchvision = library("torchvision")
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(num_classes=7)
    assert recognised(shapes_alone(network), "weights") == arch


def test_a_real_vit_b_16(tmp_path, monkeypatch):
    """All of one size that people use, with its number of heads."""
    monkeypatch.undo()
    config = transformers.ViTConfig(num_labels=7, layer_norm_eps=1e-6)
    model = settled(transformers.ViTForImageClassification(config))
    model.save_pretrained(tmp_path)
    assert_same_logits(model, load_classifier("vit_b_16", tmp_path / "model.safetensors"), 224, 1)
