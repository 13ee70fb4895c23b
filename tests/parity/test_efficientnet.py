"""EfficientNet-Lite0 gives the logits of the same network in torch, under both of its namings."""

from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file
from test_models import forward, settle
from torch import nn
from torch.nn import functional

from fgvce_jax.models import load_classifier, named, recut

EXPANDED = ((2, 24, 3, 2), (2, 40, 5, 2), (3, 80, 3, 2), (3, 112, 5, 1), (4, 192, 5, 2))


class SameConv(nn.Conv2d):
    """TensorFlow's SAME: as many windows as strides fit, what is missing added after first."""

    def forward(self, x):
        need = [
            max((-(-n // s) - 1) * s + k - n, 0)
            for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        (top, left), (bottom, right) = [n // 2 for n in need], [n - n // 2 for n in need]
        return super().forward(functional.pad(x, (left, right, top, bottom)))


def convolution(inputs, outputs, size, stride=1, groups=1):
    return SameConv(inputs, outputs, size, stride, groups=groups, bias=False)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted bottleneck by the names of the PyTorch port; `expansion` 1 leaves out the first
    convolution."""

    def __init__(self, inputs, outputs, size, stride, expansion=6):
        super().__init__()
        width = expansion * inputs
        if expansion > 1:
            self._expand_conv, self._bn0 = convolution(inputs, width, 1), norm(width)
        self._depthwise_conv = convolution(width, width, size, stride, width)
        self._bn1 = norm(width)
        self._project_conv, self._bn2 = convolution(width, outputs, 1), norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        y = functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_bn0") else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


def efficientnet_lite0(num_classes):
    blocks, inputs = [Block(32, 16, 3, 1, expansion=1)], 16
    for count, outputs, size, stride in (*EXPANDED, (1, 320, 3, 1)):
        for index in range(count):
            blocks.append(Block(inputs, outputs, size, 1 if index else stride))
            inputs = outputs
    return nn.Sequential(
        OrderedDict(
            _conv_stem=convolution(3, 32, 3, 2),
            _bn0=norm(32),
            stem=nn.ReLU6(),
            _blocks=nn.Sequential(*blocks),
            _conv_head=convolution(320, 1280, 1),
            _bn1=norm(1280),
            last=nn.ReLU6(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            _fc=nn.Linear(1280, num_classes),
        )
    )


def timm_name(name):
    """By counting blocks stage by stage."""
    outer = {"_fc.": "classifier.", "_conv": "conv", "_bn0.": "bn1.", "_bn1.": "bn2."}
    for theirs, ours in outer.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    _, number, layer, kind = name.split(".")
    stages = [(s, i) for s, n in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(n)]
    stage, index = stages[int(number)]
    layers = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    first, others = ["conv_dw", "bn1", "conv_pw", "bn2"], ["conv_pw", "bn1", "conv_dw", "bn2"]
    theirs = [None, None, *first] if stage == 0 else [*others, "conv_pwl", "bn3"]
    return f"blocks.{stage}.{index}.{theirs[layers.index(layer)]}.{kind}"


def test_logits_and_names(tmp_path):
    torch.manual_seed(0)
    network = settle(efficientnet_lite0(9), 64)
    state = network.state_dict()
    torch.save(state, tmp_path / "lite0.pth")
    clf = load_classifier("efficientnet_lite0", tmp_path / "lite0.pth", image_size=64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network((255 * images - 127) / 128).numpy()
    inputs = images.permute(0, 2, 3, 1).numpy()
    for cut in (None, "blocks.4", "blocks.0.0"):
        ours = np.asarray(forward(recut(clf, cut), inputs))
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
    assert clf.features(inputs).shape == (2, 2, 2, 1280)

    save_file({timm_name(name): value for name, value in state.items()}, tmp_path / "t.safetensors")
    other = named(load_classifier("efficientnet_lite0", tmp_path / "t.safetensors", image_size=64))
    for name, array in named(clf).items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)


def test_sizes_that_do_not_divide(tmp_path):
    """SAME pads one more row and column after than before, where the stride does not fit."""
    torch.manual_seed(1)
    network = settle(efficientnet_lite0(4), 64)
    torch.save(network.state_dict(), tmp_path / "lite0.pth")
    clf = load_classifier("efficientnet_lite0", tmp_path / "lite0.pth", image_size=75)
    images = torch.rand(1, 3, 75, 75, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network((255 * images - 127) / 128).numpy()
    ours = np.asarray(forward(clf, images.permute(0, 2, 3, 1).numpy()))
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
