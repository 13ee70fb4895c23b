"""Swin-T (Liu et al., "Swin Transformer", ICCV 2021), by torchvision's names.

Attention runs within windows of 7 x 7 cells, which every other block shifts by half a window;
between stages, each 2 x 2 cells become one. Maps that are no multiple of the window are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from fgvce_jax.heads import PooledLinear
from fgvce_jax.models.architecture import Architecture, Renames, cuts_after, linear_names
from fgvce_jax.models.layers import conv, gelu
from fgvce_jax.models.transformer import (
    DEVIATION,
    FinalNorm,
    LaterUnits,
    LogMask,
    TokenUnit,
    attention,
    layer_norm,
    linear,
    mixed,
)

EPSILON = 1e-5
APART = -100.0  # added to the attention logits of cells that only the shift brings together


def _windows(
    x: Float[Array, "*batch H W C"], window: int, shift: int
) -> Float[Array, "*batch m T C"]:
    """The cells of each window, of a map that was shifted and is a multiple of the window."""
    x = jnp.roll(x, (-shift, -shift), (-3, -2)) if shift else x
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // window, window, width // window, window, channels)
    return x.swapaxes(-4, -3).reshape(*batch, -1, window * window, channels)


def _map(
    windows: Float[Array, "*batch m T C"], height: int, width: int, window: int, shift: int
) -> Float[Array, "*batch H W C"]:
    """The inverse of `_windows`."""
    *batch, _, _, channels = windows.shape
    x = windows.reshape(*batch, height // window, width // window, window, window, channels)
    x = x.swapaxes(-4, -3).reshape(*batch, height, width, channels)
    return jnp.roll(x, (shift, shift), (-3, -2)) if shift else x


def _padded(x: Float[Array, "B H W C"], multiple: int) -> Float[Array, "B P Q C"]:
    """Zeros to the right and below."""
    rows, columns = (-side % multiple for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0))) if rows or columns else x


def _relative(window: int) -> Int[np.ndarray, "T T"]:
    """For two cells of a window, the row of the bias table that their distance has."""
    rows, columns = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows + window - 1
    across = columns[:, None] - columns + window - 1
    return down * (2 * window - 1) + across


def _apart(height: int, width: int, window: int, shift: int) -> Float[np.ndarray, "m 1 T T"]:
    """What keeps cells apart that lie in one window because the map was shifted around its edge."""

    def region(side: int) -> np.ndarray:
        place = np.arange(side)
        return (place >= side - window).astype(int) + (place >= side - shift)

    regions = 3 * region(height)[:, None] + region(width)
    split = regions.reshape(height // window, window, width // window, window)
    split = split.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(split[:, :, None] == split[:, None], 0, APART).astype(np.float32)[:, None]


class WindowAttention(nnx.Module):
    """The projections of the attention in a window, and a bias for each distance and head."""

    def __init__(self, width: int, heads: int, window: int, rngs: nnx.Rngs):
        self.qkv = linear(width, 3 * width, rngs)
        self.proj = linear(width, width, rngs)
        table = DEVIATION * jax.random.normal(rngs.params(), ((2 * window - 1) ** 2, heads))
        self.relative_position_bias_table = nnx.Param(table)


class Block(TokenUnit):
    """Attention in windows and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, window: int, shift: int, rngs: nnx.Rngs):
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1 = layer_norm(width, EPSILON, rngs)
        self.attn = WindowAttention(width, heads, window, rngs)
        self.norm2 = layer_norm(width, EPSILON, rngs)
        self.mlp = nnx.Dict(
            {"0": linear(width, 4 * width, rngs), "3": linear(4 * width, width, rngs)}
        )

    def masked(
        self, x: Float[Array, "B H W C"], log_mask: LogMask
    ) -> tuple[Float[Array, "B H W C"], LogMask]:
        x = x + self._attended(self.norm1(x), log_mask)
        return x + self.mlp["3"](gelu(self.mlp["0"](self.norm2(x)))), log_mask

    def compared(self, cells: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        return self.norm1(cells)

    def _attended(self, x: Float[Array, "B H W C"], log_mask: LogMask) -> Float[Array, "B H W C"]:
        rows, columns = x.shape[1:3]
        x = _padded(x, self.window)
        height, width = x.shape[1:3]
        shift = 0 if self.window >= min(height, width) else self.shift
        table = self.attn.relative_position_bias_table[...]
        added = jnp.moveaxis(table[_relative(self.window)], -1, 0)
        if shift:
            added = added + _apart(height, width, self.window, shift)
        if log_mask is not None:
            keys = _windows(_padded(log_mask[..., None], self.window), self.window, shift)
            added = added + keys[..., None, None, :, 0]
        qkv = self.attn.qkv(_windows(x, self.window, shift))
        taken = self.attn.proj(mixed(*attention(qkv, self.heads, added)))
        return _map(taken, height, width, self.window, shift)[:, :rows, :columns]


class Merging(TokenUnit):
    """Each 2 x 2 cells become one of twice their channels; its mask is the mean of theirs."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norm = layer_norm(4 * width, EPSILON, rngs)
        self.reduction = linear(4 * width, 2 * width, rngs, bias=False)

    def masked(
        self, x: Float[Array, "B H W C"], log_mask: LogMask
    ) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w"] | None]:
        x = _padded(x, 2)
        corners = [x[:, i::2, j::2] for j in range(2) for i in range(2)]
        x = self.reduction(self.norm(jnp.concatenate(corners, -1)))
        if log_mask is None:
            return x, None
        share = jnp.exp(log_mask)
        odd = share.shape[-1] % 2
        share = jnp.pad(share, ((0, 0), (0, odd), (0, odd)), mode="edge")
        parts = [share[:, i::2, j::2] for j in range(2) for i in range(2)]
        return x, jnp.log(jnp.stack(parts).mean(0))


RENAMES: Renames = (
    (r"^.*\.relative_position_index$", ""),
    # Hugging Face
    (r"^embeddings\.patch_embeddings\.projection\.", "features.0.0."),
    (r"^embeddings\.norm\.", "features.0.2."),
    (r"^encoder\.layers\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 2}."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.(self\.query|q_proj)\.(\w+)$", r".attn.qkv.\2#0"),
    (r"\.attention\.(self\.key|k_proj)\.(\w+)$", r".attn.qkv.\2#1"),
    (r"\.attention\.(self\.value|v_proj)\.(\w+)$", r".attn.qkv.\2#2"),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(self|relative_position_bias)\.relative", ".attn.relative"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.0."),
    (r"\.output\.dense\.", ".mlp.3."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    # timm
    (r"^patch_embed\.proj\.", "features.0.0."),
    (r"^patch_embed\.norm\.", "features.0.2."),
    (r"^layers\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1])}."),
    (r"^layers\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.fc\.", "head."),
)


def _head(
    cells: tuple[int, ...], num_classes: int, activation: Callable[[Any], Any], rngs: nnx.Rngs
) -> PooledLinear:
    kernel = DEVIATION * jax.random.normal(rngs.params(), (cells[-1], num_classes))
    return PooledLinear(kernel, jnp.zeros(num_classes))


def swin(width: int, blocks: Sequence[int], heads: Sequence[int], window: int) -> Architecture:
    """Images [B, H, W, 3] to cells [B, H/32, W/32, 8 * width], for four stages; after the norm.

    Args:
        width: Channels of the first stage; each later one has twice as many.
        blocks: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of the windows.
    """

    def units(
        activation: Callable[[Any], Any], rngs: nnx.Rngs, image_size: int
    ) -> dict[str, nnx.Module]:
        layers: dict[str, nnx.Module] = {
            "features.0.0": conv(3, width, 4, 4, padding=0, bias=True, rngs=rngs),
            "features.0.2": layer_norm(width, EPSILON, rngs),
        }
        channels = width
        for stage, (count, number) in enumerate(zip(blocks, heads, strict=True)):
            if stage > 0:
                layers[f"features.{2 * stage}"] = Merging(channels, rngs)
                channels *= 2
            for index in range(count):
                shift = window // 2 if index % 2 else 0
                layers[f"features.{2 * stage + 1}.{index}"] = Block(
                    channels, number, window, shift, rngs
                )
        return layers | {"norm": FinalNorm(channels, EPSILON)}

    cuts = cuts_after((f"features.{2 * stage + 1}", count) for stage, count in enumerate(blocks))
    last = width * 2 ** (len(blocks) - 1)
    return Architecture(
        units,
        {**cuts, "norm": "norm"},
        _head,
        linear_names("head"),
        RENAMES,
        mark=(f"features.{2 * len(blocks) - 1}.0.mlp.0.weight", (4 * last, last)),
        rest=LaterUnits.from_chain,
        multiple=4,
        heads=tuple(heads),
        evaluated=(224, 232),
    )


SWINS = {"swin_t": swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7)}
