"""VGG-16 and VGG-19, with or without batch norm (Simonyan & Zisserman, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from fgvce_jax.models.architecture import Architecture, dense_head
from fgvce_jax.models.layers import Activation, MaxPool, batch_norm, conv

WIDTHS = (64, 128, 256, 512, 512)
# torchvision has ReLU and dropout between its linear layers.
HEAD_NAMES = {
    "kernel": "classifier.0.kernel",
    "bias": "classifier.0.bias",
    "layers/0/0": "classifier.3.kernel",
    "layers/0/1": "classifier.3.bias",
    "layers/1/0": "classifier.6.kernel",
    "layers/1/1": "classifier.6.bias",
}


def _vgg(convolutions: Sequence[int], normed: bool) -> Architecture:
    """Images [B, H, W, 3] to cells [B, H/32, W/32, 512], or before the last pool twice as fine."""

    def units(
        activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
    ) -> dict[str, nnx.Module]:
        layers: list[nnx.Module] = []
        channels = 3
        for width, count in zip(WIDTHS, convolutions, strict=True):
            for _ in range(count):
                layers.append(conv(channels, width, 3, bias=True, rngs=rngs))
                if normed:
                    layers.append(batch_norm(width, rngs=rngs))
                layers.append(Activation(activation))
                channels = width
            layers.append(MaxPool(2))
        return {f"features.{index}": layer for index, layer in enumerate(layers)}

    last = (3 if normed else 2) * sum(convolutions) + len(WIDTHS) - 1
    cuts = {"conv": f"features.{last - 1}", "pool": f"features.{last}"}
    mark = f"features.{last - (3 if normed else 2)}.weight", (512, 512, 3, 3)
    return Architecture(units, cuts, dense_head, HEAD_NAMES, mark=mark)


VGGS = {
    "vgg16": _vgg((2, 2, 3, 3, 3), normed=False),
    "vgg19": _vgg((2, 2, 4, 4, 4), normed=False),
    "vgg16_bn": _vgg((2, 2, 3, 3, 3), normed=True),
    "vgg19_bn": _vgg((2, 2, 4, 4, 4), normed=True),
}
