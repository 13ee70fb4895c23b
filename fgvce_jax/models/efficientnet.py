"""EfficientNet-Lite0 (Tan & Le, ICML 2019; the Lite variants are TensorFlow's of 2020): inverted
bottlenecks of depthwise convolutions with ReLU6 and no squeeze-and-excitation.

Its names are timm's (`tf_efficientnet_lite0`). Convolutions are padded as TensorFlow pads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.models.architecture import (
    Architecture,
    Renames,
    cuts_after,
    linear_names,
    pooled_head,
)
from fgvce_jax.models.layers import Activation, batch_norm, conv

# Of each stage: blocks, channels, kernel, stride of the first block.
STAGES = (
    (1, 16, 3, 1),
    (2, 24, 3, 2),
    (2, 40, 5, 2),
    (3, 80, 3, 2),
    (3, 112, 5, 1),
    (4, 192, 5, 2),
    (1, 320, 3, 1),
)
STEM, LAST, EXPANSION = 32, 1280, 6
EPSILON = 1e-3
CEILING = 6.0


def _conv(
    inputs: int, outputs: int, size: int, stride: int = 1, *, groups: int = 1, rngs: nnx.Rngs
) -> nnx.Conv:
    return conv(inputs, outputs, size, stride, groups=groups, padding="SAME", rngs=rngs)


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return batch_norm(channels, epsilon=EPSILON, rngs=rngs)


class DepthwiseSeparable(nnx.Module):
    """A depthwise convolution and a 1x1; the first block, whose channels are not expanded."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        activation: Callable[[Any], Any],
        rngs: nnx.Rngs,
    ):
        self.conv_dw = _conv(inputs, inputs, size, stride, groups=inputs, rngs=rngs)
        self.bn1 = _norm(inputs, rngs)
        self.conv_pw = _conv(inputs, outputs, 1, rngs=rngs)
        self.bn2 = _norm(outputs, rngs)
        self.activation = Activation(activation, CEILING)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        return self.bn2(self.conv_pw(self.activation(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nnx.Module):
    """1x1 to six times the channels, depthwise, 1x1 back; a shortcut where the shape stays."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        activation: Callable[[Any], Any],
        rngs: nnx.Rngs,
    ):
        width = EXPANSION * inputs
        self.conv_pw = _conv(inputs, width, 1, rngs=rngs)
        self.bn1 = _norm(width, rngs)
        self.conv_dw = _conv(width, width, size, stride, groups=width, rngs=rngs)
        self.bn2 = _norm(width, rngs)
        self.conv_pwl = _conv(width, outputs, 1, rngs=rngs)
        self.bn3 = _norm(outputs, rngs)
        self.activation = Activation(activation, CEILING)
        self.shortcut = stride == 1 and inputs == outputs

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        y = self.activation(self.bn1(self.conv_pw(x)))
        y = self.activation(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.shortcut else y


def _units(
    activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
) -> dict[str, nnx.Module]:
    units: dict[str, nnx.Module] = {
        "conv_stem": _conv(3, STEM, 3, 2, rngs=rngs),
        "bn1": _norm(STEM, rngs),
        "act1": Activation(activation, CEILING),
    }
    channels = STEM
    for stage, (count, outputs, size, stride) in enumerate(STAGES):
        block = DepthwiseSeparable if stage == 0 else InvertedResidual
        for index in range(count):
            units[f"blocks.{stage}.{index}"] = block(
                channels, outputs, size, 1 if index else stride, activation, rngs
            )
            channels = outputs
    return units | {
        "conv_head": _conv(channels, LAST, 1, rngs=rngs),
        "bn2": _norm(LAST, rngs),
        "act2": Activation(activation, CEILING),
    }


def _numbered_block(found: re.Match[str]) -> str:
    """A layer of a block that is counted through all stages, as the PyTorch port of them has it."""
    place, layer, kind = int(found[1]), found[2], found[3]
    if place == 0:
        names = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    else:
        names = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw"}
        names |= {"bn1": "bn2", "project_conv": "conv_pwl", "bn2": "bn3"}
    for stage, (count, *_) in enumerate(STAGES):
        if place < count:
            return f"blocks.{stage}.{place}.{names.get(layer, layer)}.{kind}"
        place -= count
    return found[0]


RENAMES: Renames = (
    (r"^_blocks\.(\d+)\._(\w+)\.(\w+)$", _numbered_block),
    (r"^_bn1\.", "bn2."),
    (r"^_bn0\.", "bn1."),
    (r"^_(conv_stem|conv_head)\.", r"\1."),
    (r"^_fc\.", "classifier."),
)

EFFICIENTNETS = {
    "efficientnet_lite0": Architecture(
        _units,
        cuts_after((f"blocks.{stage}", count) for stage, (count, *_) in enumerate(STAGES)),
        pooled_head,
        linear_names("classifier"),
        RENAMES,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        mark=("conv_head.weight", (LAST, 320, 1, 1)),
    )
}
