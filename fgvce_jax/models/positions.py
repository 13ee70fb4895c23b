"""Position embeddings of a vision transformer, brought to another number of patches.

The two cubic kernels are those of PyTorch's `interpolate`, with which published weights were
resized: Keys' with a = -0.75, and with a = -0.5 where the result is antialiased.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fgvce_jax.errors import InputError

NAME = "patch_embed.pos_embed"


@dataclass(frozen=True)
class Positions:
    """How a network's position embeddings are laid out.

    Attributes:
        patch: Side of a patch in pixels.
        special: Tokens before the patches that have an embedding.
        antialias: Whether they are smoothed when there are fewer patches than they were made for.
        interpolated: Whether published weights are evaluated at another size than they were made
            for (DINOv2).
    """

    patch: int
    special: int
    antialias: bool = False
    interpolated: bool = False

    def side(self, tokens: int) -> int:
        """Patches along a side of the square that so many tokens form; InputError if none."""
        for special in (self.special, 0):  # timm has special tokens without an embedding
            side = math.isqrt(max(tokens - special, 0))
            if side > 0 and side * side == tokens - special:
                return side
        raise InputError(
            f"pos_embed: expected {self.special} and a square number of tokens, got {tokens}"
        )

    def fitted(
        self, embedding: Float[np.ndarray, "1 T C"], image_size: int
    ) -> Float[np.ndarray, "1 S C"]:
        """The embedding for images of this size.

        InputError where its tokens form no square, or the image is not a whole number of patches.
        """
        tokens = embedding.shape[1]
        old, new = self.side(tokens), image_size // self.patch
        special = np.zeros((1, self.special, embedding.shape[-1]), embedding.dtype)
        special[:, : tokens - old * old] = embedding[:, : tokens - old * old]
        patches = embedding[0, tokens - old * old :].reshape(old, old, -1)
        if new != old:
            matrix = cubic(old, new, self.antialias).astype(embedding.dtype)
            patches = np.einsum("ip,jq,pqc->ijc", matrix, matrix, patches, optimize=True)
        return np.concatenate([special, patches.reshape(1, new * new, -1)], 1)


def cubic(old: int, new: int, antialias: bool) -> Float[np.ndarray, "new old"]:
    """The matrix of a cubic interpolation from `old` to `new` values over the same length."""
    a = -0.5 if antialias else -0.75
    step = old / new
    stretch = max(step, 1.0) if antialias else 1.0
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * step - 0.5
        reach = 2 * stretch
        for place in range(math.floor(centre - reach), math.ceil(centre + reach) + 1):
            weight = _keys(abs(place - centre) / stretch, a)
            if not antialias:  # the border is repeated
                matrix[row, min(max(place, 0), old - 1)] += weight
            elif 0 <= place < old:
                matrix[row, place] += weight
    return matrix / matrix.sum(1, keepdims=True)


def _keys(x: float, a: float) -> float:
    """Keys' cubic convolution kernel at a distance x (IEEE TASSP 29, 1981)."""
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return ((x - 5) * x + 8) * x * a - 4 * a
    return 0.0
