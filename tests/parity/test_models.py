"""Ported weights give torch's logits: networks of transformers, and torch's by their layer list."""

from collections import OrderedDict

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from fgvce_jax.errors import InputError
from fgvce_jax.models import load_classifier, named, port
from fgvce_jax.models.recognise import recognised
from fgvce_jax.models.weights_file import read_weights

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)

forward = jax.jit(lambda clf, images: clf(images))


class BasicBlock(nn.Module):
    """torchvision's, with its attribute names."""

    expansion = 1

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample(inputs, width, stride)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Bottleneck(nn.Module):
    """torchvision's, with its attribute names; the stride is in the 3x3."""

    expansion = 4

    def __init__(self, inputs, width, stride, per_group=64, groups=1):
        super().__init__()
        inner = width * per_group // 64 * groups
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = downsample(inputs, 4 * width, stride)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn3(self.conv3(y)) + shortcut).relu()


def downsample(inputs, outputs, stride):
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def torch_resnet(num_classes, block=Bottleneck, counts=(3, 4, 6, 3), **options):
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    inputs = 64
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True)):
        blocks = []
        for index in range(count):
            blocks.append(block(inputs, width, 2 if stage and not index else 1, **options))
            inputs = block.expansion * width
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return nn.Sequential(layers | {"fc": nn.Linear(inputs, num_classes)})


def vgg(depth, normed, num_classes):
    layers, inputs = [], 3
    for width, count in zip((64, 128, 256, 512, 512), depth, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if normed else []
            layers.append(nn.ReLU())
            inputs = width
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*layers),
            avgpool=nn.AdaptiveAvgPool2d(7),
            flat=nn.Flatten(),
            classifier=nn.Sequential(*dense, nn.Dropout(), nn.Linear(4096, num_classes)),
        )
    )


def settle(network, size):
    """Random affine parameters, and statistics as they come from random images."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = None  # a cumulative average
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, size, size))
    return network.eval()


def assert_same_logits(network, clf, size, count=2):
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network((images - MEAN) / STD)
    expected = getattr(expected, "logits", expected).numpy()
    ours = np.asarray(forward(clf, images.permute(0, 2, 3, 1).numpy()))
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return settle(torch_resnet(11), 64)


@pytest.fixture(scope="module")
def resnet_file(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "resnet50.safetensors"
    save_file(resnet.state_dict(), path)
    return path


@pytest.mark.parametrize("size", [64, 224])
def test_resnet50_by_torchvisions_names(resnet, resnet_file, size):
    clf = load_classifier("resnet50", resnet_file, image_size=size)
    assert clf.num_classes == 11
    assert_same_logits(resnet, clf, size)


@pytest.mark.parametrize(
    ("arch", "block", "counts", "options"),
    [
        ("resnet18", BasicBlock, (2, 2, 2, 2), {}),
        ("resnet34", BasicBlock, (3, 4, 6, 3), {}),
        ("resnet101", Bottleneck, (3, 4, 23, 3), {}),
        ("resnet152", Bottleneck, (3, 8, 36, 3), {}),
        ("wide_resnet50_2", Bottleneck, (3, 4, 6, 3), {"per_group": 128}),
        ("resnext50_32x4d", Bottleneck, (3, 4, 6, 3), {"per_group": 4, "groups": 32}),
    ],
)
def test_other_resnets(tmp_path, arch, block, counts, options):
    torch.manual_seed(0)
    network = settle(torch_resnet(5, block, counts, **options), 64)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    clf = load_classifier(arch, tmp_path / "w.safetensors", image_size=64)
    assert clf.features(np.zeros((1, 64, 64, 3), np.float32)).shape[1:3] == (2, 2)
    assert_same_logits(network, clf, 64)


def test_resnet18_of_transformers(tmp_path):
    torch.manual_seed(0)
    config = ResNetConfig(
        num_labels=7,
        layer_type="basic",
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
    )
    network = settle(ResNetForImageClassification(config), 64)
    network.save_pretrained(tmp_path)
    clf = load_classifier("resnet18", weights=tmp_path / "model.safetensors", image_size=64)
    assert_same_logits(network, clf, 64)


@pytest.mark.parametrize("cut", ["layer4.0", "layer3", "layer1.0"])
def test_resnet50_cut_early(resnet, resnet_file, cut):
    clf = load_classifier("resnet50", weights=resnet_file, cut=cut, image_size=64)
    assert_same_logits(resnet, clf, 64)


def test_resnet50_of_transformers(tmp_path):
    torch.manual_seed(0)
    network = settle(ResNetForImageClassification(ResNetConfig(num_labels=7)), 64)
    network.save_pretrained(tmp_path)
    clf = load_classifier("resnet50", weights=tmp_path / "model.safetensors", image_size=64)
    assert clf.num_classes == 7
    assert_same_logits(network, clf, 64)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    other = load_classifier("resnet50", tmp_path / "pytorch_model.bin", image_size=64)
    for ours, expected in zip(jax.tree.leaves(other), jax.tree.leaves(clf), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("arch", "depth"), [("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))]
)
@pytest.mark.parametrize("normed", [False, True], ids=["", "bn"])
def test_vgg(tmp_path, arch, depth, normed):
    torch.manual_seed(0)
    network = settle(vgg(depth, normed, 6), 64)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    arch = f"{arch}_bn" if normed else arch
    for size, cut in ((64, None), (224, "conv" if normed else None)):
        clf = load_classifier(arch, tmp_path / "w.safetensors", image_size=size, cut=cut)
        cells = clf.features(np.zeros((1, size, size, 3), np.float32))
        assert cells.shape == (1, *2 * (size // (16 if cut else 32),), 512)
        assert_same_logits(network, clf, size, count=1)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("plain.pth", lambda state: state),
        ("parallel.pt", lambda state: {f"module.{key}": value for key, value in state.items()}),
        (
            "lightning.ckpt",
            lambda state: {
                "epoch": 3,
                "state_dict": {f"model.resnet.{key}": value for key, value in state.items()},
                "optimizer_states": [{"state": {0: {"momentum": torch.zeros(3)}}}],
                "hyper_parameters": {"lr": 0.1},
            },
        ),
        ("half.pth", lambda state: {key: value.bfloat16() for key, value in state.items()}),
    ],
)
def test_files_of_torch(tmp_path, resnet, resnet_file, name, wrap):
    torch.save(wrap(resnet.state_dict()), tmp_path / name)
    clf = load_classifier("resnet50", weights=tmp_path / name)
    expected = named(load_classifier("resnet50", weights=resnet_file))
    for key, array in named(clf).items():
        tolerance = 2**-8 if name == "half.pth" else 0
        np.testing.assert_allclose(array, expected[key], rtol=tolerance, err_msg=key)


def test_safetensors_in_half_precision(tmp_path):
    tensor = torch.linspace(-2, 2, 12).reshape(3, 4)
    save_file({"a": tensor.bfloat16(), "b": tensor.half()}, tmp_path / "w.safetensors")
    tensors = read_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["a"], tensor.bfloat16().float().numpy())
    np.testing.assert_array_equal(tensors["b"], tensor.half().float().numpy())
    assert tensors["a"].dtype == tensors["b"].dtype == np.float32


class Surprise:
    """What must never run."""

    def __reduce__(self):
        return (open, ("surprise.txt", "w"))


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"fc.bias": torch.zeros(3)}, "extra": Surprise()}, "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: holds a pickled .*open, which is not unpickled"):
        load_classifier("resnet50", weights="w.pth")
    module = nn.Sequential(nn.Linear(2, 3))
    torch.save(module, "module.pth")
    torch.save(module, "old.pth", _use_new_zipfile_serialization=False)
    for name in ("module", "old"):
        with pytest.raises(InputError, match=r"pickled torch\.nn.*model\.state_dict\(\)"):
            port(f"{name}.pth", "out")
    torch.jit.save(torch.jit.script(module), "script.pt")
    with pytest.raises(InputError, match=r"TorchScript.*torch\.jit\.load\('script\.pt'\)"):
        port("script.pt", "out")
    assert not (tmp_path / "surprise.txt").exists()


def test_files_that_torch_cannot_read(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    for name, damaged in (("half", content[: len(content) // 2]), ("text", b"hi"), ("empty", b"")):
        (tmp_path / f"{name}.pth").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}\.pth: not a readable torch file"):
            load_classifier("resnet50", weights=tmp_path / f"{name}.pth")
    for name, content in (("list", [torch.zeros(3)]), ("numbers", {"state_dict": {"a": 3}})):
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(InputError, match="no tensors"):
            load_classifier("resnet50", weights=tmp_path / f"{name}.pth")


def shapes_alone(network):
    """Its tensors by name, without the memory."""
    return {k: np.broadcast_to(np.float32(0), v.shape) for k, v in network.state_dict().items()}


@pytest.mark.parametrize(
    ("arch", "make"),
    [
        ("resnet18", lambda: torch_resnet(3, BasicBlock, (2, 2, 2, 2))),
        ("resnet152", lambda: torch_resnet(3, Bottleneck, (3, 8, 36, 3))),
        ("resnext50_32x4d", lambda: torch_resnet(3, per_group=4, groups=32)),
        ("vgg19", lambda: vgg((2, 2, 4, 4, 4), False, 6)),
        ("vgg16_bn", lambda: vgg((2, 2, 3, 3, 3), True, 6)),
    ],
)
def test_a_state_dict_is_recognised(arch, make):
    with torch.device("meta"):
        network = make()
    assert recognised(shapes_alone(network), "weights") == arch


def test_another_architecture_is_named_by_names_and_shapes(tmp_path, resnet_file):
    message = r"these look like a ResNet-50's \(--arch resnet50\); expected a "
    for arch in ("vgg16", "wide_resnet50_2", "resnext50_32x4d"):
        with pytest.raises(InputError, match=message):
            load_classifier(arch, weights=resnet_file)
    assert port(resnet_file, tmp_path / "c").spec.arch == "resnet50"
