"""The last block of a vision transformer, as its class token sees it, and what follows it.

After the last block only the class token is read, so the patches matter through the attention that
it pays them there. In each attention head it takes sum_k e^(q k_k) v_k / sum_k e^(q k_k) over all
tokens k, its own query q being fixed: numerator and denominator are additive in the cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fgvce_jax.heads.base import AdditiveHead, Head

Pair = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Kernel [C, D] and bias [D] of a linear layer, or scale [C] and shift [C] of a norm."""

MOST_ABOVE = 60.0
"""A candidate's attention logit may lie this far above the image's own before it alone sets the
scale; e^-60 is still a normal float32."""


class KeysValues(NamedTuple):
    """What attention reads of tokens: keys and values, [..., T, heads, C / heads]."""

    keys: Float[Array, "*batch T heads d"]
    values: Float[Array, "*batch T heads d"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ClassToken(Head):
    """A transformer's last block, final norm and linear layers, for the tokens that are read.

    Cells [..., n, n, C] are the patches before the last block, context [..., S, C] the special
    tokens, of which the first R are read, each by a linear layer of its own; logits are the mean
    over them (R is 2 in a distilled DeiT, else 1).

    A mask on a cell scales its attention mass: it acts on e^(q k), numerator and denominator alike.
    On the cell itself it would do nothing, since the norm undoes a scaling. (Removing tokens from
    the attention: Jain et al., "Missingness Bias in Model Debugging", ICLR 2022; Covert et al.,
    "Learning to Estimate Shapley Values with Vision Transformers", ICLR 2023.)

    Attributes:
        norm1: Before the attention.
        qkv: Queries, keys and values in one product, [C, 3 C] and [3 C].
        projection: Of the attention's output, [C, C] and [C].
        scale1: Of the attention's branch, [C]; None where the network has no layer scale.
        norm2: Before the perceptron.
        layers: The perceptron's two layers, GELU between them.
        scale2: Of the perceptron's branch; likewise.
        norm: The final norm.
        outputs: The linear layers to logits, one for each token that is read.
        heads: Number of attention heads.
        epsilon: Added to the variance in the norms.
    """

    norm1: Pair
    qkv: Pair
    projection: Pair
    scale1: Float[Array, "C"] | None
    norm2: Pair
    layers: tuple[Pair, Pair]
    scale2: Float[Array, "C"] | None
    norm: Pair
    outputs: tuple[Pair, ...]
    heads: int = field(metadata={"static": True})
    epsilon: float = field(default=1e-6, metadata={"static": True})

    def __call__(self, cells, context, log_mask=None):
        """Logits of whole passes; `log_mask` [..., n, n] is added to the patches' logits as keys.

        log(1 - G) keeps the share 1 - G of every patch's attention mass.
        """
        patches = cells.reshape(*cells.shape[:-3], -1, cells.shape[-1])
        tokens = jnp.concatenate([context, patches], -2)
        keys, values = self.prepare(tokens)
        scores = jnp.einsum("...rhd,...thd->...rht", self.queries(context), keys)
        if log_mask is not None:
            of_patches = log_mask.reshape(*log_mask.shape[:-2], 1, 1, -1)
            scores = scores.at[..., context.shape[-2] :].add(of_patches)
        mixed = jnp.einsum("...rht,...thd->...rhd", jax.nn.softmax(scores), values)
        return self.after_attention(self.read(context), mixed)

    def prepare(self, candidates):
        _, keys, values = self._split(self.compared(candidates))
        return KeysValues(keys, values)

    def compared(self, cells):
        return _normalised(cells, self.norm1, self.epsilon)

    def bind(self, context, cells, prepared=None):
        query = self.queries(context)
        own = self.prepare(jnp.concatenate([context, cells.reshape(-1, cells.shape[-1])]))
        scores = jnp.einsum("rhd,thd->rht", query, own.keys)
        highest = scores.max(-1)
        if prepared is not None:
            of_candidates = jnp.einsum("rhd,thd->rht", query, prepared.keys).max(-1)
            highest = jnp.maximum(highest, jnp.minimum(of_candidates, highest + MOST_ABOVE))
        return BoundClassToken(self, context, query, highest)

    def queries(self, context: Float[Array, "*batch S C"]) -> Float[Array, "*batch R heads d"]:
        """Of the tokens that are read, divided by the square root of d."""
        query, _, _ = self._split(self.compared(self.read(context)))
        return query * query.shape[-1] ** -0.5

    def read(self, context: Float[Array, "*batch S C"]) -> Float[Array, "*batch R C"]:
        """The tokens that are read."""
        return context[..., : len(self.outputs), :]

    def after_attention(
        self, read: Float[Array, "#*batch R C"], mixed: Float[Array, "*batch R heads d"]
    ) -> Float[Array, "*batch K"]:
        """Logits, from the read tokens before the block and the values that they took."""
        attended = _linear(mixed.reshape(*mixed.shape[:-2], -1), self.projection)
        x = read + _scaled(attended, self.scale1)
        hidden = _linear(_normalised(x, self.norm2, self.epsilon), self.layers[0])
        branch = _linear(jax.nn.gelu(hidden, approximate=False), self.layers[1])
        x = x + _scaled(branch, self.scale2)
        x = _normalised(x, self.norm, self.epsilon)
        logits = [_linear(x[..., r, :], layer) for r, layer in enumerate(self.outputs)]
        return jnp.stack(logits).mean(0)

    def _split(self, normalised):
        """Queries, keys and values of tokens after the norm, [..., T, heads, d] each."""
        mixed = _linear(normalised, self.qkv)
        shape = (*mixed.shape[:-1], 3, self.heads, mixed.shape[-1] // (3 * self.heads))
        return jnp.moveaxis(mixed.reshape(shape), -3, 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BoundClassToken(AdditiveHead):
    """A `ClassToken` and one image's context.

    A cell's row is (e^(q k - shift) v, e^(q k - shift)) over the R tokens that are read and their
    attention heads, D = R (C + heads).

    Attributes:
        head: The layers.
        context: The special tokens before the last block, [S, C].
        query: Of the tokens that are read.
        shift: The highest attention logit in the search, subtracted before exponentiating.
    """

    head: ClassToken
    context: Float[Array, "S C"]
    query: Float[Array, "R heads d"]
    shift: Float[Array, "R heads"]

    def __call__(self, cells):
        return self.head(cells, self.context)

    def compared(self, cells):
        return self.head.compared(cells)

    def prepare(self, candidates):
        return self.head.prepare(candidates)

    def rows(self, cells):
        return self._rows(self.prepare(cells.reshape(-1, cells.shape[-1])))

    def place(self, candidates, prepared, cell):
        return self._rows(prepared)

    def finish(self, z, num_cells):
        z = z + self._rows(self.prepare(self.context)).sum(0)
        count = self.query.size
        taken = z[..., :count].reshape(*z.shape[:-1], *self.query.shape)
        mass = z[..., count:].reshape(*z.shape[:-1], *self.shift.shape)
        return self.head.after_attention(self.head.read(self.context), taken / mass[..., None])

    def _rows(self, tokens: KeysValues) -> Float[Array, "T D"]:
        scores = jnp.einsum("rhd,thd->trh", self.query, tokens.keys)
        mass = jnp.exp(scores - self.shift)
        taken = mass[..., None] * tokens.values[:, None]
        return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in (taken, mass)], -1)


def _linear(x: Float[Array, "*batch C"], layer: Pair) -> Float[Array, "*batch D"]:
    kernel, bias = layer
    return x @ kernel + bias


def _scaled(x: Float[Array, "*batch C"], scale: Float[Array, "C"] | None) -> Float[Array, "*b C"]:
    return x if scale is None else scale * x


def _normalised(x: Float[Array, "*batch C"], norm: Pair, epsilon: float) -> Float[Array, "*b C"]:
    scale, shift = norm
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / deviation * scale + shift
