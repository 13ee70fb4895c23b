"""One network as a description: its layers, its cuts, its head and the names of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from fgvce_jax.heads import Dense, PooledLinear
from fgvce_jax.models.chain_head import ChainHead
from fgvce_jax.models.positions import Positions

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FC_WIDTH = 4096

Activation = Callable[[Any], Any]
Units = dict[str, nnx.Module]
Renames = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Architecture:
    """A network under the names that its weights are published with.

    Attributes:
        units: From the activation, the keys and the side of the images to every layer up to the
            head proper, by name, first to last: images [B, H, W, 3] to cells [B, n, n, C], or to
            cells and context.
        cuts: The values that `ModelSpec.cut` may take, first to last, each with the unit after
            which features end. A stage's name stands for its last unit.
        head: From the cells' shape (n, n, C), the number of classes, the activation and the keys
            to a fresh head.
        head_names: The head's arrays by their place in it, as `kernel` or `layers/0/1`, with the
            name of each; the last is the logits' bias.
        renames: Other libraries' names: patterns and replacements for `re.sub`, in order. What is
            renamed to nothing is left out, and `name#0`, `name#1`, ... are joined as `name`.
        mean: Per-channel mean that published weights were trained with, in units of [0, 1].
        std: Per-channel standard deviation; likewise.
        mark: The name and shape in torch of a tensor that few other networks have, by which an
            unknown file's network is looked for.
        rest: From the layers behind an early cut, as a `Chain`, and the head to one head.
        multiple: The side of an image is a multiple of it.
        positions: Of the embeddings called `fgvce_jax.models.positions.NAME`, if there are any.
        heads: Attention heads: a number, or one for each stage.
        evaluated: The side of the images that published weights are evaluated on, and of what they
            are cut out of, in pixels (None: of the whole image).
        design: The numbers of a vision transformer whose blocks let all tokens see each other.
        with_epsilon: The same network with another constant in its norms, where that varies.
    """

    units: Callable[[Activation, nnx.Rngs, int], Units]
    cuts: Mapping[str, str]
    head: Callable[[tuple[int, ...], int, Activation, nnx.Rngs], Any]
    head_names: Mapping[str, str] = field(default_factory=lambda: linear_names("fc"))
    renames: Renames = ()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    mark: tuple[str, tuple[int, ...]] = ("", ())
    rest: Callable[[Any, Any], Any] = ChainHead.from_chain
    multiple: int = 1
    positions: Positions | None = None
    heads: int | tuple[int, ...] | None = None
    evaluated: tuple[int, int | None] = (224, 256)
    design: Any = None
    with_epsilon: Callable[[float], Architecture] | None = None


def linear_names(layer: str) -> Mapping[str, str]:
    """The names of a pooled linear head's arrays, of a layer called `layer`."""
    return MappingProxyType({"kernel": f"{layer}.kernel", "bias": f"{layer}.bias"})


def cuts_after(stages: Iterable[tuple[str, int]]) -> Mapping[str, str]:
    """A cut after every block and every stage, of stages given as (name, number of blocks)."""
    return {
        name: name
        for stage, count in stages
        for name in (*(f"{stage}.{index}" for index in range(count)), stage)
    }


def pooled_head(
    cells: tuple[int, ...], num_classes: int, activation: Activation, rngs: nnx.Rngs
) -> PooledLinear:
    """Average pooling and a linear layer, drawn as torch draws one."""
    bound = cells[-1] ** -0.5
    kernel = jax.random.uniform(
        rngs.params(), (cells[-1], num_classes), minval=-bound, maxval=bound
    )
    return PooledLinear(kernel, jnp.zeros(num_classes))


def dense_head(
    cells: tuple[int, ...], num_classes: int, activation: Activation, rngs: nnx.Rngs
) -> Dense:
    """VGG's three linear layers on the flattened cells."""

    def layer(*shape: int) -> tuple[Array, Array]:
        return 0.01 * jax.random.normal(rngs.params(), shape), jnp.zeros(shape[-1])

    kernel, bias = layer(*cells, FC_WIDTH)
    layers = (layer(FC_WIDTH, FC_WIDTH), layer(FC_WIDTH, num_classes))
    return Dense(kernel, bias, layers, activation)
