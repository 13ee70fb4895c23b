"""Residual networks (He et al., CVPR 2016), wide ones (Zagoruyko & Komodakis, BMVC 2016) and those
of grouped convolutions (Xie et al., CVPR 2017), and a small configurable one.

They are torchvision's variants, which stride in the 3x3 convolution of a bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flax import nnx

from fgvce_jax.models.architecture import Architecture, Renames, cuts_after, pooled_head
from fgvce_jax.models.layers import Activation, MaxPool, ResidualBlock, batch_norm, conv


def _downsample(inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> nnx.List | None:
    if stride == 1 and inputs == outputs:
        return None
    return nnx.List([conv(inputs, outputs, 1, stride, rngs=rngs), batch_norm(outputs, rngs=rngs)])


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions beside a shortcut; `expansion` is 1."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int, activation: Callable[[Any], Any], rngs: nnx.Rngs
    ):
        self.conv1 = conv(inputs, width, 3, stride, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, zero=True, rngs=rngs)
        self.downsample = nnx.data(_downsample(inputs, width, stride, rngs))
        self.activation = activation

    def steps(self):
        return (self.conv1, self.bn1), (self.conv2, self.bn2)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (strided) and 1x1 convolutions beside a shortcut; the output has 4 x width.

    `widening` multiplies the channels of the 3x3 convolution, which has `groups` groups.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        activation: Callable[[Any], Any],
        rngs: nnx.Rngs,
        *,
        widening: int = 1,
        groups: int = 1,
    ):
        outputs, width = width * self.expansion, width * widening
        self.conv1 = conv(inputs, width, 1, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, stride, groups=groups, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.conv3 = conv(width, outputs, 1, rngs=rngs)
        self.bn3 = batch_norm(outputs, zero=True, rngs=rngs)
        self.downsample = nnx.data(_downsample(inputs, outputs, stride, rngs))
        self.activation = activation

    def steps(self):
        return (self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)


def _stages(
    block: Callable[..., BasicBlock | Bottleneck],
    expansion: int,
    channels: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    activation: Callable[[Any], Any],
    rngs: nnx.Rngs,
) -> dict[str, nnx.Module]:
    """Blocks named layer1.0, layer1.1, ...; every stage but the first halves the resolution."""
    units: dict[str, nnx.Module] = {}
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
        for index in range(count):
            stride = 2 if stage > 1 and index == 0 else 1
            units[f"layer{stage}.{index}"] = block(channels, width, stride, activation, rngs)
            channels = width * expansion
    return units


def _cuts(blocks: Sequence[int]) -> Mapping[str, str]:
    return cuts_after((f"layer{stage}", count) for stage, count in enumerate(blocks, 1))


HUGGING_FACE: Renames = (
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d+)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"^classifier\.1\.", "fc."),
)


def _resnet(
    block: type[BasicBlock] | type[Bottleneck], blocks: Sequence[int], **options: int
) -> Architecture:
    """Images [B, H, W, 3] to cells [B, H/32, W/32, 512 x expansion]; `options` are the block's."""

    def units(
        activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
    ) -> dict[str, nnx.Module]:
        kind, widths = partial(block, **options), (64, 128, 256, 512)
        return {
            "conv1": conv(3, 64, 7, 2, rngs=rngs),
            "bn1": batch_norm(64, rngs=rngs),
            "relu": Activation(activation),
            "maxpool": MaxPool(3, padding=1),
            **_stages(kind, block.expansion, 64, widths, blocks, activation, rngs),
        }

    width, basic = 256 * options.get("widening", 1), block is BasicBlock
    mark = (
        f"layer3.{blocks[2] - 1}.conv1.weight",
        (width, *((256, 3, 3) if basic else (1024, 1, 1))),
    )
    return Architecture(units, _cuts(blocks), pooled_head, renames=HUGGING_FACE, mark=mark)


RESNETS = {
    "resnet18": _resnet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _resnet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _resnet(Bottleneck, (3, 4, 6, 3)),
    "resnet101": _resnet(Bottleneck, (3, 4, 23, 3)),
    "resnet152": _resnet(Bottleneck, (3, 8, 36, 3)),
    "wide_resnet50_2": _resnet(Bottleneck, (3, 4, 6, 3), widening=2),
    "resnext50_32x4d": _resnet(Bottleneck, (3, 4, 6, 3), widening=2, groups=32),
}


def small_resnet(widths: Sequence[int], blocks: Sequence[int], stem_stride: int) -> Architecture:
    """A ResNet of basic blocks: images [B, H, W, 3] to cells [B, H/s, W/s, widths[-1]].

    The total stride s is `stem_stride` * 2 ** (len(widths) - 1).

    Args:
        widths: Channels of each stage.
        blocks: Blocks of each stage.
        stem_stride: 1, 2, or 4 (a strided convolution and a max-pool).
    """

    def units(
        activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
    ) -> dict[str, nnx.Module]:
        stem: dict[str, nnx.Module] = {
            "conv1": conv(3, widths[0], 3, min(stem_stride, 2), rngs=rngs),
            "bn1": batch_norm(widths[0], rngs=rngs),
            "relu": Activation(activation),
        }
        if stem_stride == 4:
            stem["maxpool"] = MaxPool(3, padding=1)
        return stem | _stages(BasicBlock, 1, widths[0], widths, blocks, activation, rngs)

    return Architecture(
        units, _cuts(blocks), pooled_head, renames=HUGGING_FACE, evaluated=(112, None)
    )
