"""ConvNeXt, tiny to base, by torchvision's names.

Liu et al., "A ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.heads import PoolNormLinear
from fgvce_jax.models.architecture import Architecture, Renames, cuts_after
from fgvce_jax.models.layers import conv, gelu

HEAD_NAMES = {
    "scale": "classifier.0.scale",
    "shift": "classifier.0.bias",
    "kernel": "classifier.2.kernel",
    "bias": "classifier.2.bias",
}
DEVIATION = 0.02  # of the initial linear layers
LAYER_SCALE = 1e-6  # of the initial branches


def layer_norm(channels: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A layer norm with the paper's constant; the variance is taken of centred values."""
    return nnx.LayerNorm(channels, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(DEVIATION), rngs=rngs)


class Block(nnx.Module):
    """A depthwise 7x7, a norm and a two-layer perceptron per cell, scaled, beside a shortcut."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.block = nnx.Dict(
            {
                "0": conv(channels, channels, 7, groups=channels, bias=True, rngs=rngs),
                "2": layer_norm(channels, rngs),
                "3": _linear(channels, 4 * channels, rngs),
                "5": _linear(4 * channels, channels, rngs),
            }
        )
        self.layer_scale = nnx.Param(jnp.full(channels, LAYER_SCALE))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        y = self.block["3"](self.block["2"](self.block["0"](x)))
        y = self.block["5"](gelu(y))
        return x + self.layer_scale[...] * y


def _head(
    cells: tuple[int, ...], num_classes: int, activation: Callable[[Any], Any], rngs: nnx.Rngs
) -> PoolNormLinear:
    channels = cells[-1]
    kernel = DEVIATION * jax.random.normal(rngs.params(), (channels, num_classes))
    return PoolNormLinear(jnp.ones(channels), jnp.zeros(channels), kernel, jnp.zeros(num_classes))


def _stage(found: re.Match[str]) -> str:
    return f"features.{2 * int(found[1]) + 1}.{found[2]}."


def _between(found: re.Match[str]) -> str:
    return f"features.{2 * int(found[1])}.{found[2]}."


RENAMES: Renames = (
    # Hugging Face
    (r"^embeddings\.patch_embeddings\.", "features.0.0."),
    (r"^embeddings\.layernorm\.", "features.0.1."),
    (r"^encoder\.stages\.(\d+)\.downsampling_layer\.(\d)\.", _between),
    (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", _stage),
    (r"\.layernorm\.", ".block.2."),
    (r"\.pwconv1\.", ".block.3."),
    (r"\.pwconv2\.", ".block.5."),
    (r"\.layer_scale_parameter$", ".layer_scale"),
    (r"\.dwconv\.", ".block.0."),
    (r"^layernorm\.", "classifier.0."),
    (r"^classifier\.(weight|bias)$", r"classifier.2.\1"),
    # timm
    (r"^stem\.(\d)\.", r"features.0.\1."),
    (r"^stages\.(\d+)\.downsample\.(\d)\.", _between),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", _stage),
    (r"\.conv_dw\.", ".block.0."),
    (r"(features\..*)\.norm\.", r"\1.block.2."),
    (r"\.mlp\.fc1\.", ".block.3."),
    (r"\.mlp\.fc2\.", ".block.5."),
    (r"\.gamma$", ".layer_scale"),
    (r"^head\.norm\.", "classifier.0."),
    (r"^head\.fc\.", "classifier.2."),
)


def _convnext(blocks: Sequence[int], widths: Sequence[int], resize_to: int) -> Architecture:
    """Images [B, H, W, 3] to cells [B, H/32, W/32, widths[-1]].

    `resize_to` is the side out of which torchvision cuts the images that it evaluates on.
    """

    def units(
        activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
    ) -> dict[str, nnx.Module]:
        layers: dict[str, nnx.Module] = {
            "features.0.0": conv(3, widths[0], 4, 4, padding=0, bias=True, rngs=rngs),
            "features.0.1": layer_norm(widths[0], rngs),
        }
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            if stage > 0:
                before = widths[stage - 1]
                layers[f"features.{2 * stage}.0"] = layer_norm(before, rngs)
                layers[f"features.{2 * stage}.1"] = conv(
                    before, width, 2, 2, padding=0, bias=True, rngs=rngs
                )
            for index in range(count):
                layers[f"features.{2 * stage + 1}.{index}"] = Block(width, rngs)
        return layers

    cuts = cuts_after((f"features.{2 * stage + 1}", count) for stage, count in enumerate(blocks))
    mark = f"features.5.{blocks[2] - 1}.block.3.weight", (4 * widths[2], widths[2])
    return Architecture(
        units, cuts, _head, HEAD_NAMES, RENAMES, mark=mark, evaluated=(224, resize_to)
    )


CONVNEXTS = {
    "convnext_tiny": _convnext((3, 3, 9, 3), (96, 192, 384, 768), 236),
    "convnext_small": _convnext((3, 3, 27, 3), (96, 192, 384, 768), 230),
    "convnext_base": _convnext((3, 3, 27, 3), (128, 256, 512, 1024), 232),
}
