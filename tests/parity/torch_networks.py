"""The networks of `networks` in torch, with the same weights; images [B, 3, H, W] in [0, 1]."""

import numpy as np
import torch
from torch import nn

from fgvce_jax.models.layers import MaxPool
from fgvce_jax.models.resnet import BasicBlock, Bottleneck


def tensor(array):
    return torch.tensor(np.array(array, dtype=np.float32))


def to_torch(images):
    """[B, H, W, C] to [B, C, H, W]."""
    return tensor(images).permute(0, 3, 1, 2).contiguous()


def convolution(conv):
    kernel = np.asarray(conv.kernel[...])
    layer = nn.Conv2d(
        kernel.shape[2],
        kernel.shape[3],
        kernel.shape[0],
        conv.strides,
        conv.padding[0][0],
        bias=conv.bias is not None,
    )
    layer.weight.data = tensor(kernel.transpose(3, 2, 0, 1))
    if conv.bias is not None:
        layer.bias.data = tensor(conv.bias[...])
    return layer


def norm(bn):
    layer = nn.BatchNorm2d(bn.num_features, eps=1e-5)
    layer.weight.data, layer.bias.data = tensor(bn.scale[...]), tensor(bn.bias[...])
    layer.running_mean, layer.running_var = tensor(bn.mean[...]), tensor(bn.var[...])
    return layer


class Block(nn.Module):
    """A residual block of two or three convolutions, each with its norm and ReLU."""

    def __init__(self, block):
        super().__init__()
        layers = []
        for k in (1, 2, 3) if isinstance(block, Bottleneck) else (1, 2):
            layers += [convolution(getattr(block, f"conv{k}")), norm(getattr(block, f"bn{k}"))]
            layers += [nn.ReLU()]
        *layers, self.relu = layers
        self.branch = nn.Sequential(*layers)
        self.downsample = nn.Identity()
        if block.downsample:
            conv, bn = block.downsample
            self.downsample = nn.Sequential(convolution(conv), norm(bn))

    def forward(self, x):
        return self.relu(self.branch(x) + self.downsample(x))


def _unit(unit):
    if isinstance(unit, BasicBlock | Bottleneck):
        return Block(unit)
    if isinstance(unit, MaxPool):
        return nn.MaxPool2d(unit.size, 2, unit.padding)
    if hasattr(unit, "kernel"):
        return convolution(unit)
    return norm(unit) if hasattr(unit, "scale") else nn.ReLU()


class Network(nn.Module):
    """`features` (a Sequential after normalisation), `pool` for a pooled head, `classifier`."""

    def __init__(self, clf):
        super().__init__()
        self.register_buffer("mean", tensor(clf.features.mean)[:, None, None])
        self.register_buffer("std", tensor(clf.features.std)[:, None, None])
        chain = clf.features.module()
        self.features = nn.Sequential(*(_unit(chain.units[name]) for name in chain.order))
        head = clf.head
        if hasattr(head, "layers"):
            first = np.asarray(head.kernel).transpose(3, 2, 0, 1)
            pairs = [(first.reshape(len(first), -1).T, head.bias), *head.layers]
        else:
            pairs = [(head.kernel, head.bias)]
        self.pool = nn.Identity() if hasattr(head, "layers") else nn.AdaptiveAvgPool2d(1)
        layers = []
        for kernel, bias in pairs:
            linear = nn.Linear(*np.shape(kernel))
            linear.weight.data, linear.bias.data = tensor(kernel).T.contiguous(), tensor(bias)
            layers += [nn.ReLU(), linear]
        self.classifier = nn.Sequential(*layers[1:])
        self.eval()

    def forward(self, x):
        cells = self.features((x - self.mean) / self.std)
        return self.classifier(self.pool(cells).flatten(1))
