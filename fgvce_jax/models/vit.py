"""Vision transformers with a class token (Dosovitskiy et al., ICLR 2021), with a distillation token
(DeiT; Touvron et al., ICML 2021), and DINOv2 (Oquab et al., TMLR 2024), with registers too (Darcet
et al., ICLR 2024), whose linear layer reads the class token and the patches' mean; and a small
configurable one behind a convolutional stem (Xiao et al., "Early convolutions help transformers see
better", NeurIPS 2021).

Names are timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fgvce_jax.errors import InputError
from fgvce_jax.heads import ClassToken, PooledTokens
from fgvce_jax.models.architecture import Architecture, Renames, linear_names
from fgvce_jax.models.layers import conv
from fgvce_jax.models.positions import Positions
from fgvce_jax.models.resnet import small_resnet
from fgvce_jax.models.transformer import (
    DEVIATION,
    LAYER_SCALE,
    FinalNorm,
    LaterUnits,
    LayerScale,
    LogMask,
    Perceptron,
    TokenUnit,
    attention,
    layer_norm,
    linear,
    mixed,
)

HEAD_WIDTH = 32  # channels of an attention head of a `small_vit`

Tokens = tuple[Float[Array, "B n n C"], Float[Array, "B S C"]]
"""Patches and special tokens."""


@dataclass(frozen=True)
class Design:
    """A vision transformer's numbers.

    Attributes:
        width: Channels C.
        blocks: Number of blocks.
        heads: Attention heads in a block.
        patch: Side of a patch in pixels.
        distilled: Whether there is a distillation token beside the class token.
        read: Special tokens that are read, each by a linear layer, for the mean of their logits;
            0 for one layer on the class token and the patches' mean.
        registers: Tokens that are neither read nor have positions.
        scaled: Whether branches have a layer scale.
        antialias: Of position embeddings, see `Positions`.
        epsilon: Added to the variance in the norms.
        inputs: Channels of what patches are cut out of: an image's, or a stem's.
        stride: Of the stem before the patches, in pixels.
    """

    width: int
    blocks: int
    heads: int
    patch: int
    distilled: bool = False
    read: int = 1
    registers: int = 0
    scaled: bool = False
    antialias: bool = False
    epsilon: float = 1e-6
    inputs: int = 3
    stride: int = 1


class PatchEmbed(nnx.Module):
    """Images, or a stem's result, to patches and special tokens, with their positions."""

    def __init__(self, design: Design, image_size: int, rngs: nnx.Rngs):
        width, special, side = design.width, 1 + design.distilled, image_size // design.patch
        size = design.patch // design.stride
        self.proj = conv(design.inputs, width, size, size, padding=0, bias=True, rngs=rngs)

        def token(count: int) -> nnx.Param:
            return nnx.Param(DEVIATION * jax.random.normal(rngs.params(), (1, count, width)))

        self.pos_embed = token(special + side * side)
        self.cls_token = token(1)
        self.dist_token = nnx.data(token(1) if design.distilled else None)
        self.reg_token = nnx.data(token(design.registers) if design.registers else None)

    def __call__(self, images: Float[Array, "B H W I"]) -> Tokens:
        cells = self.proj(images)
        special = [self.cls_token, *([] if self.dist_token is None else [self.dist_token])]
        count = len(special)
        positions = self.pos_embed[...]
        context = jnp.concatenate([token[...] for token in special], 1) + positions[:, :count]
        if self.reg_token is not None:
            context = jnp.concatenate([context, self.reg_token[...]], 1)
        cells = cells + positions[:, count:].reshape(1, *cells.shape[1:])
        return cells, jnp.broadcast_to(context, (len(cells), *context.shape[1:]))


class Attention(nnx.Module):
    """The projections of a multi-head attention over all tokens."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.qkv = linear(width, 3 * width, rngs)
        self.proj = linear(width, width, rngs)


class Block(TokenUnit):
    """Attention and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, design: Design, rngs: nnx.Rngs):
        width, epsilon = design.width, design.epsilon
        self.heads = design.heads
        self.norm1 = layer_norm(width, epsilon, rngs)
        self.attn = Attention(width, rngs)
        self.ls1 = nnx.data(LayerScale(width) if design.scaled else None)
        self.norm2 = layer_norm(width, epsilon, rngs)
        self.mlp = Perceptron(width, rngs)
        self.ls2 = nnx.data(LayerScale(width) if design.scaled else None)

    def masked(self, x: Tokens, log_mask: LogMask) -> tuple[Tokens, LogMask]:
        cells, context = x
        count, patches = context.shape[-2], cells.reshape(len(cells), -1, cells.shape[-1])
        tokens = jnp.concatenate([context, patches], 1)
        added = None
        if log_mask is not None:
            of_patches = log_mask.reshape(len(log_mask), 1, 1, -1)
            added = jnp.pad(of_patches, ((0, 0), (0, 0), (0, 0), (count, 0)))
        tokens = self.behind(
            tokens, *attention(self.attn.qkv(self.norm1(tokens)), self.heads, added)
        )
        return (tokens[:, count:].reshape(cells.shape), tokens[:, :count]), log_mask

    def behind(
        self,
        tokens: Float[Array, "B T C"],
        weights: Float[Array, "B heads T T"],
        values: Float[Array, "B heads T d"],
    ) -> Float[Array, "B T C"]:
        """The block's result from its tokens and what its attention gives them."""
        attended = self.attn.proj(mixed(weights, values))
        tokens = tokens + (attended if self.ls1 is None else self.ls1(attended))
        refined = self.mlp(self.norm2(tokens))
        return tokens + (refined if self.ls2 is None else self.ls2(refined))

    def compared(self, cells: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        return self.norm1(cells)


def _class_token(
    design: Design,
    cells: tuple[int, ...],
    num_classes: int,
    activation: Callable[[Any], Any],
    rngs: nnx.Rngs,
) -> ClassToken:
    width = design.width

    def layer(inputs: int, outputs: int) -> tuple[Array, Array]:
        kernel = DEVIATION * jax.random.normal(rngs.params(), (inputs, outputs))
        return kernel, jnp.zeros(outputs)

    norm = jnp.ones(width), jnp.zeros(width)
    scale = jnp.full(width, LAYER_SCALE) if design.scaled else None
    return ClassToken(
        norm1=norm,
        qkv=layer(width, 3 * width),
        projection=layer(width, width),
        scale1=scale,
        norm2=norm,
        layers=(layer(width, 4 * width), layer(4 * width, width)),
        scale2=scale,
        norm=norm,
        outputs=tuple(layer(width, num_classes) for _ in range(design.read)),
        heads=design.heads,
        epsilon=design.epsilon,
    )


def _pooled(
    cells: tuple[int, ...], num_classes: int, activation: Callable[[Any], Any], rngs: nnx.Rngs
) -> PooledTokens:
    kernel = DEVIATION * jax.random.normal(rngs.params(), (2 * cells[-1], num_classes))
    return PooledTokens(kernel, jnp.zeros(num_classes))


def _class_token_names(last: str, read: int) -> dict[str, str]:
    pairs = {
        "norm1": f"{last}.norm1",
        "qkv": f"{last}.attn.qkv",
        "projection": f"{last}.attn.proj",
        "norm2": f"{last}.norm2",
        "layers/0": f"{last}.mlp.fc1",
        "layers/1": f"{last}.mlp.fc2",
        "norm": "norm",
    }
    outputs = {f"outputs/{i}": name for i, name in enumerate(("head", "head_dist")[:read])}
    names = {"scale1": f"{last}.ls1.gamma", "scale2": f"{last}.ls2.gamma"}
    for place, layer in (pairs | dict(reversed(outputs.items()))).items():
        names[f"{place}/0"] = f"{layer}.{'scale' if 'norm' in place else 'kernel'}"
        names[f"{place}/1"] = f"{layer}.bias"
    return names


RENAMES: Renames = (
    # Of the pretraining, and of other tasks.
    (r"^(embeddings\.)?mask_token$", ""),
    (r"^pooler\..*", ""),
    # torchvision
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    # Hugging Face
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(attention\.query|q_proj)\.(\w+)$", r".attn.qkv.\2#0"),
    (r"\.attention\.(attention\.key|k_proj)\.(\w+)$", r".attn.qkv.\2#1"),
    (r"\.attention\.(attention\.value|v_proj)\.(\w+)$", r".attn.qkv.\2#2"),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^(cls_classifier|classifier|linear_head)\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    # All: tokens and positions belong to the first layer.
    (r"^((cls|dist|reg)_token|pos_embed)$", r"patch_embed.\1"),
)


def _no_stem(activation: Any, rngs: nnx.Rngs, image_size: int) -> dict[str, nnx.Module]:
    return {}


def vit(
    design: Design, stem: Callable[..., dict[str, nnx.Module]] = _no_stem, **options: Any
) -> Architecture:
    """Images [B, H, W, 3] to cells [B, H/patch, W/patch, width] and special tokens.

    Cut before the last block, or behind the final norm where the patches are pooled. `stem` gives
    the layers before the patch embedding, and `options` are the description's.
    """
    inner = design.blocks - (design.read > 0)  # the last block belongs to the class token's head

    def units(
        activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
    ) -> dict[str, nnx.Module]:
        layers = stem(activation, rngs, image_size)
        layers["patch_embed"] = PatchEmbed(design, image_size, rngs)
        layers |= {f"blocks.{i}": Block(design, rngs) for i in range(inner)}
        if not design.read:
            layers["norm"] = FinalNorm(design.width, design.epsilon)
        return layers

    size = design.patch // design.stride
    cuts = {name: name for name in (*(f"blocks.{i}" for i in range(inner)), "norm")}
    if design.read:
        del cuts["norm"]
        head = partial(_class_token, design)
        head_names = _class_token_names(f"blocks.{inner}", design.read)
    else:
        head, head_names = _pooled, linear_names("head")
    return Architecture(
        units,
        cuts,
        head,
        head_names,
        RENAMES,
        mark=("patch_embed.proj.weight", (design.width, design.inputs, size, size)),
        rest=LaterUnits.from_chain,
        multiple=design.patch,
        positions=Positions(design.patch, 1 + design.distilled, design.antialias, not design.read),
        heads=design.heads,
        design=design,
        with_epsilon=lambda epsilon: vit(replace(design, epsilon=epsilon), stem, **options),
        **options,
    )


def small_vit(widths: Sequence[int], blocks: Sequence[int], stem_stride: int) -> Architecture:
    """A `small_resnet` whose last stage is a transformer with a class token.

    Its patches are 2 x 2 cells of the stage before, so the cells are as many as the ResNet's, and
    its attention heads have 32 channels.

    Args:
        widths: Channels of each stage; at least two stages, the last a multiple of 32.
        blocks: Blocks of each stage.
        stem_stride: 1, 2 or 4.

    Raises:
        InputError: Stages that are not so.
    """
    *before, width = widths
    if not before or width % HEAD_WIDTH:
        raise InputError(
            f"widths {list(widths)}: expected for small_vit at least two stages, the last a "
            f"multiple of {HEAD_WIDTH}"
        )
    stem = small_resnet(before, blocks[:-1], stem_stride)
    stride = stem_stride * 2 ** (len(before) - 1)
    design = Design(
        width, blocks[-1], width // HEAD_WIDTH, 2 * stride, inputs=before[-1], stride=stride
    )
    return vit(design, stem.units, evaluated=stem.evaluated)


_SIZES = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
_DINO = {"patch": 14, "read": 0, "scaled": True}

VITS = {
    **{f"vit_{size}_16": vit(Design(*_SIZES[size], 16)) for size in _SIZES},
    **{f"vit_{size}_32": vit(Design(*_SIZES[size], 32)) for size in ("s", "b")},
    **{
        f"deit_{size}_16_distilled": vit(Design(*_SIZES[size], 16, distilled=True, read=2))
        for size in _SIZES
    },
    # Of a distilled DeiT, the class token alone (Hugging Face's DeiTForImageClassification).
    **{
        f"deit_{size}_16_distilled_cls": vit(Design(*_SIZES[size], 16, distilled=True))
        for size in _SIZES
    },
    **{f"dinov2_{size}_14": vit(Design(*_SIZES[size], **_DINO)) for size in ("s", "b")},
    **{
        f"dinov2_{size}_14_reg": vit(Design(*_SIZES[size], **_DINO, registers=4, antialias=True))
        for size in ("s", "b")
    },
}
