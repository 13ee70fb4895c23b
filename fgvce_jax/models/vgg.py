"""VGG-16 and VGG-19, with or without batch norm (Simonyan & Zisserman, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from fgvce_jax.models.layers import Activation, MaxPool, batch_norm, conv

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def vgg_units(arch: str, activation: Callable[[Any], Any], rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """VGG without its dense layers: images [B, H, W, 3] to cells [B, H/32, W/32, 512].

    Args:
        arch: "vgg16", "vgg19", "vgg16_bn" or "vgg19_bn".
        activation: ReLU or what takes its place.
        rngs: Keys for the initial weights.
    """
    base, _, normed = arch.partition("_")
    layers: list[nnx.Module] = []
    channels = 3
    for width, count in zip(WIDTHS, CONVOLUTIONS[base], strict=True):
        for _ in range(count):
            layers.append(conv(channels, width, 3, bias=True, rngs=rngs))
            if normed:
                layers.append(batch_norm(width, rngs=rngs))
            layers.append(Activation(activation))
            channels = width
        layers.append(MaxPool(2))
    return {f"features.{index}": layer for index, layer in enumerate(layers)}
