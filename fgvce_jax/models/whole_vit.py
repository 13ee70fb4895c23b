"""A vision transformer in one piece: every block, wherever its classifier is cut.

The head of a class token holds the last block in another shape, so the blocks' attention maps are
read from this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.errors import InputError
from fgvce_jax.models.classifier import Backbone, Classifier
from fgvce_jax.models.layers import Chain
from fgvce_jax.models.named import named
from fgvce_jax.models.spec import require_spec
from fgvce_jax.models.transformer import FinalNorm, attention
from fgvce_jax.models.vit import Block, Design

Tokens = Float[Array, "B T C"]
Maps = Float[Array, "B heads T T"]


class Step(NamedTuple):
    """A block at work.

    Attributes:
        attention: What each token (row) takes of each other, a distribution.
        output: The block's result as a function of that attention, the rest of it held.
        tokens: The result.
    """

    attention: Maps
    output: Callable[[Maps], Tokens]
    tokens: Tokens


class WholeViT(NamedTuple):
    """A vision transformer's layers and the tokens of some images.

    Attributes:
        design: Its numbers.
        blocks: All blocks, first to last.
        norm: The final norm.
        outputs: Kernel and bias of each linear layer to logits.
        tokens: Special tokens, then patches, before the first block.
        side: Patches along a side.
    """

    design: Design
    blocks: tuple[Block, ...]
    norm: FinalNorm
    outputs: tuple[tuple[Array, Array], ...]
    tokens: Tokens
    side: int

    @property
    def special(self) -> int:
        """Tokens before the patches."""
        return self.tokens.shape[1] - self.side**2

    def steps(self) -> list[Step]:
        """The blocks at work, first to last."""
        steps, tokens = [], self.tokens
        for block in self.blocks:
            weights, values = attention(block.attn.qkv(block.norm1(tokens)), block.heads)

            def output(weights: Maps, block=block, tokens=tokens, values=values) -> Tokens:
                return block.behind(tokens, weights, values)

            tokens = output(weights)
            steps.append(Step(weights, output, tokens))
        return steps

    def of_patches(self, of_tokens: Float[Array, "B T"]) -> Float[Array, "B n n"]:
        """The patches' part of values of the tokens."""
        return of_tokens[:, self.special :].reshape(-1, self.side, self.side)


def whole_vit(clf: Classifier, images: Float[Array, "B H W 3"], method: str) -> WholeViT:
    """The transformer of a classifier, on some images.

    InputError, in the name of the `method` that asks, for any network without attention of every
    token to every other: the user's own functions, a ResNet, a Swin.
    """
    spec = require_spec(clf)
    design = spec.architecture.design
    if design is None or not isinstance(clf.features, Backbone):
        raise InputError(
            f"{method}: needs a vision transformer's attention between all patches, {spec.arch} "
            "has none"
        )

    def layers() -> Chain:
        rngs = nnx.Rngs(0)
        first = spec.architecture.units(jax.nn.relu, rngs, clf.image_size)
        last = {f"blocks.{design.blocks - 1}": Block(design, rngs)}
        return Chain({**first, **last, "norm": FinalNorm(design.width, design.epsilon)})

    weights = named(clf)
    graphdef, state = nnx.split(nnx.eval_shape(layers))
    filled = [weights[_name(path)] for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    chain: Any = nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(state), filled))
    x = (images - clf.features.mean) / clf.features.std
    for name in chain.order[: chain.order.index("patch_embed") + 1]:
        x = chain.units[name](x)
    cells, context = x
    units = chain.units
    outputs = tuple(
        (weights[f"{name}.kernel"], weights[f"{name}.bias"])
        for name in ("head", "head_dist")[: max(design.read, 1)]
    )
    return WholeViT(
        design,
        tuple(units[f"blocks.{i}"] for i in range(design.blocks)),
        units["norm"],
        outputs,
        jnp.concatenate([context, cells.reshape(len(cells), -1, cells.shape[-1])], 1),
        cells.shape[1],
    )


def _name(path: Any) -> str:
    _, *parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return ".".join(parts[:-1] if parts[-1] == "value" else parts)
