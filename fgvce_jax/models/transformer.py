"""What vision transformers are made of, and how one is cut.

Behind a cut, a mask G on the cells takes a share of the attention that each patch receives: log(1 -
G) is added to its logit as a key, in every block (SPEC: a norm would undo a scaling of the cell).
So every unit behind a cut takes the mask along, and gives it on as the next unit sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.heads import Head, SearchHead
from fgvce_jax.heads.tokens import BoundTokens
from fgvce_jax.models.layers import Chain, gelu

DEVIATION = 0.02  # of the initial linear layers
LAYER_SCALE = 1e-5  # of the initial branches

LogMask = Float[Array, "*batch n n"] | None


def layer_norm(channels: int, epsilon: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A layer norm; the variance is taken of centred values."""
    return nnx.LayerNorm(channels, epsilon=epsilon, use_fast_variance=False, rngs=rngs)


def linear(inputs: int, outputs: int, rngs: nnx.Rngs, *, bias: bool = True) -> nnx.Linear:
    """A linear layer, drawn from a normal distribution."""
    kernel = nnx.initializers.normal(DEVIATION)
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=kernel, rngs=rngs)


class LayerScale(nnx.Module):
    """A factor for each channel of a branch (Touvron et al., "Going deeper with image
    transformers", ICCV 2021)."""

    def __init__(self, channels: int):
        self.gamma = nnx.Param(jnp.full(channels, LAYER_SCALE))

    def __call__(self, x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
        return x * self.gamma[...]


class Perceptron(nnx.Module):
    """Two linear layers with GELU between them, by timm's names."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.fc1 = linear(channels, 4 * channels, rngs)
        self.fc2 = linear(4 * channels, channels, rngs)

    def __call__(self, x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
        return self.fc2(gelu(self.fc1(x)))


def attention(
    qkv: Float[Array, "*batch T D"],
    heads: int,
    added: Float[Array, "*#batch #heads #T T"] | None = None,
) -> tuple[Float[Array, "*batch heads T T"], Float[Array, "*batch heads T d"]]:
    """Weights and values of multi-head attention.

    Args:
        qkv: Queries, keys and values of tokens side by side, D = 3 C.
        heads: Number of attention heads.
        added: To the logits before the softmax, which is taken in float32.
    """
    split = qkv.reshape(*qkv.shape[:-1], 3, heads, qkv.shape[-1] // (3 * heads))
    query, key, value = (jnp.moveaxis(split[..., i, :, :], -2, -3) for i in range(3))
    scores = (query * query.shape[-1] ** -0.5) @ key.swapaxes(-1, -2)
    scores = scores.astype(jnp.float32)
    weights = jax.nn.softmax(scores if added is None else scores + added)
    return weights.astype(qkv.dtype), value


def mixed(
    weights: Float[Array, "*batch heads T T"], value: Float[Array, "*batch heads T d"]
) -> Float[Array, "*batch T C"]:
    """The values that each token takes, its heads side by side."""
    taken = jnp.moveaxis(weights @ value, -3, -2)
    return taken.reshape(*taken.shape[:-2], -1)


class TokenUnit(nnx.Module):
    """A layer of a transformer behind its patch embedding.

    x are cells [B, n, n, C], or a pair of cells and special tokens [B, S, C].
    """

    def masked(self, x: Any, log_mask: LogMask) -> tuple[Any, LogMask]:
        """The layer with a mask on its cells, and the mask on its result."""
        raise NotImplementedError

    def compared(self, cells: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """Cells before this layer as their similarity sees them: behind the norm that follows."""
        return cells

    def __call__(self, x: Any) -> Any:
        return self.masked(x, None)[0]


class FinalNorm(TokenUnit):
    """The norm behind the last block of a network that is pooled; it ends a mask by scaling."""

    def __init__(self, channels: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.epsilon = epsilon

    def masked(self, x: Any, log_mask: LogMask) -> tuple[Any, LogMask]:
        x = jax.tree.map(self.compared, x)
        if log_mask is None:
            return x, None
        share = jnp.exp(log_mask)[..., None]  # of each cell in the mean that follows
        return (share * x[0], *x[1:]) if isinstance(x, tuple) else share * x, None

    def compared(self, cells: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        centred = cells - cells.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + self.epsilon) * self.scale[...] + self.bias[...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LaterUnits(Head):
    """The rest of a transformer that was cut early, by whole passes with masks on the attention.

    Attributes:
        params: The remaining layers' weights, an `nnx.State`.
        head: The head behind them; a mask that no norm has ended is its last argument.
        graphdef: The layers' static structure, of a `Chain` of `TokenUnit`s.
    """

    params: nnx.State
    head: Callable[..., Any]
    graphdef: nnx.GraphDef = field(metadata={"static": True})

    @classmethod
    def from_chain(cls, chain: Chain, head: Callable[..., Any]) -> LaterUnits:
        """Split the layers' weights from their structure."""
        graphdef, params = nnx.split(chain)
        return cls(params, head, graphdef)

    def units(self) -> list[Any]:
        """The remaining layers again, holding these weights, first to last."""
        chain = nnx.merge(self.graphdef, self.params)
        return [chain.units[name] for name in chain.order]

    def __call__(self, cells, context=None, log_mask=None):
        units, batch = self.units(), cells.shape[:-3]
        if log_mask is not None:
            batch = jnp.broadcast_shapes(batch, log_mask.shape[:-2])

        def flat(leaf, own):
            shape = leaf.shape[-own:]
            return jnp.broadcast_to(leaf, (*batch, *shape)).reshape(math.prod(batch), *shape)

        x = flat(cells, 3) if context is None else (flat(cells, 3), flat(context, 2))
        mask = None if log_mask is None else flat(log_mask, 2)
        for unit in units:
            x, mask = unit.masked(x, mask)
        rest = (*(x if isinstance(x, tuple) else (x,)), *(() if mask is None else (mask,)))
        logits = self.head(*rest)
        return logits.reshape(*batch, logits.shape[-1])

    def prepare(self, candidates):
        return None

    def compared(self, cells):
        return self.units()[0].compared(cells)

    def bind(self, context, cells, prepared=None) -> SearchHead:
        return BoundTokens(self, context, jax.tree_util.Partial(LaterUnits.compared, self))
