"""The few layers that networks are made of.

They carry the names that weights are published with, so weights move by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.models.convolution import convolve
from fgvce_jax.models.pooling import max_pool

he_fan_out = jax.nn.initializers.he_normal(in_axis=-1, out_axis=-2)


def conv(
    inputs: int,
    outputs: int,
    size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    padding: int | str | None = None,
    bias: bool = False,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution with a square kernel.

    Args:
        inputs: Channels of its input.
        outputs: Channels of its output.
        size: Side of the kernel.
        stride: Cells from one window to the next.
        groups: Parts of the channels that do not see each other.
        padding: Zeros on each side, or "SAME" as TensorFlow has it; half the kernel by default.
        bias: Whether it has one.
        rngs: Keys for the initial weights.
    """
    zeros = size // 2 if padding is None else padding
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=(stride, stride),
        padding=zeros if isinstance(zeros, str) else ((zeros, zeros),) * 2,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=he_fan_out,
        conv_general_dilated=convolve,
        rngs=rngs,
    )


def batch_norm(
    channels: int, *, zero: bool = False, epsilon: float = 1e-5, rngs: nnx.Rngs
) -> nnx.BatchNorm:
    """BatchNorm with torch's constants; `zero` starts its scale at 0 (last one of a block)."""
    start = nnx.initializers.zeros_init() if zero else nnx.initializers.ones_init()
    return nnx.BatchNorm(
        channels,
        use_running_average=True,
        momentum=0.9,
        epsilon=epsilon,
        scale_init=start,
        rngs=rngs,
    )


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x times the normal distribution function, by erf; JAX has it by erfc, half as long again."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


class Activation(nnx.Module):
    """An elementwise function as a layer.

    Attributes:
        function: ReLU, or what takes its place (guided backpropagation).
        highest: Values above it become it, as in ReLU6.
    """

    def __init__(self, function: Callable[[Any], Any], highest: float | None = None):
        self.function = function
        self.highest = highest

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        y = self.function(x)
        return y if self.highest is None else jnp.minimum(y, self.highest)


class MaxPool(nnx.Module):
    """Maximum over windows, -inf beyond the border.

    Attributes:
        size: Window side.
        padding: Rows and columns added on each side; the stride is 2.
    """

    def __init__(self, size: int, padding: int = 0):
        self.size = size
        self.padding = padding

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        return max_pool(x, self.size, self.padding)


class Chain(nnx.Module):
    """Layers in a row: images to cells, or, of a transformer, to a pair of cells and context.

    Attributes:
        order: The layers' names (torchvision's), first to last.
        units: The layers by name.
    """

    def __init__(self, units: dict[str, nnx.Module]):
        self.order = tuple(units)
        self.units = nnx.Dict(units)

    def __call__(self, x: Any) -> Any:
        for name in self.order:
            x = self.units[name](x)
        return x


class ResidualBlock(nnx.Module):
    """Convolutions in a row, each normalised, beside a shortcut.

    A subclass sets the layers that `steps` names, `downsample` (the layers of the shortcut, or
    None) and `activation`.
    """

    downsample: nnx.List | None
    activation: Callable[[Any], Any]

    def steps(self) -> tuple[tuple[nnx.Conv, nnx.BatchNorm], ...]:
        """The convolutions and the norm behind each; the activation follows all but the last."""
        raise NotImplementedError

    def shortcut(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """What is added to the last step."""
        for layer in self.downsample or ():
            x = layer(x)
        return x

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        *first, (conv, norm) = self.steps()
        y = x
        for convolution, normalisation in first:
            y = self.activation(normalisation(convolution(y)))
        return self.activation(norm(conv(y)) + self.shortcut(x))
