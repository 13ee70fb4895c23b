"""RISE: the mean of random masks, weighted by the class score of the masked image (Petsiuk et al.,
BMVC 2018)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fgvce_jax.checks import check_chunk
from fgvce_jax.models.classifier import Classifier


def shifted_upsampling(
    size: int, grid: int, shift: int | Int[Array, ""]
) -> Float[Array, "size grid"]:
    """Bilinear upsampling of `grid` values as a matrix, cropped to `size` pixels after `shift`.

    The values are stretched over grid + 1 cells of ceil(size / grid) pixels, so every shift
    smaller than a cell leaves `size` of them.
    """
    stretched = (grid + 1) * -(-size // grid)
    place = (jnp.arange(size) + shift + 0.5) * grid / stretched - 0.5
    place = jnp.clip(place, 0, grid - 1)
    return jax.nn.relu(1 - jnp.abs(place[:, None] - jnp.arange(grid)))


def random_mask(
    key: Key[Array, ""], size: tuple[int, int], grid: int, p: float | Float[Array, ""]
) -> Float[Array, "H W"]:
    """A binary grid, each cell 1 with probability p, upsampled and shifted at random; in [0, 1]."""
    bits, *shifts = jax.random.split(key, 3)
    rows, columns = (
        shifted_upsampling(side, grid, jax.random.randint(shift, (), 0, -(-side // grid)))
        for side, shift in zip(size, shifts, strict=True)
    )
    return rows @ jax.random.bernoulli(bits, p, (grid, grid)).astype(rows.dtype) @ columns.T


@partial(jax.jit, static_argnames=("num_masks", "grid", "chunk"))
def rise(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    masks: Float[Array, "N H W"] | None = None,
    key: Key[Array, ""] | None = None,
    num_masks: int = 8000,
    grid: int = 7,
    p: float | Float[Array, ""] = 0.5,
    chunk: int = 64,
) -> Float[Array, "B H W"]:
    """sum_m p_c(image * mask_m) mask_m / (N p), the same N masks for every image.

    Args:
        masks: N masks in [0, 1]; by default they are drawn, a chunk at a time.
        key: The key to draw them with; `jax.random.key(0)` by default.
        num_masks: N, when they are drawn. The paper has 8000 for ResNet-50, 4000 for VGG-16.
        grid: Cells per side of a mask.
        p: Share of the cells that are kept.
        chunk: Masked images in one forward pass, at most.

    Raises:
        InputError: A chunk below 1.
    """
    check_chunk(chunk)
    key = jax.random.key(0) if key is None else key
    count = num_masks if masks is None else len(masks)
    size = (images.shape[1], images.shape[2])

    def mask(index: Int[Array, ""]) -> Float[Array, "H W"]:
        if masks is not None:
            return masks[index]
        return random_mask(jax.random.fold_in(key, index), size, grid, p)

    def add(total, indices):
        some = jax.vmap(mask)(indices)

        def scores(sample):
            image, class_index = sample
            return jax.nn.softmax(clf(image * some[..., None]))[:, class_index]

        weights = jax.lax.map(scores, (images, classes)) * (indices < count)
        return total + jnp.einsum("bm,mhw->bhw", weights, some), None

    passes = -(-count // chunk)
    each = -(-count // passes)  # equal passes, so that few of the images are past N and wasted
    indices = jnp.arange(passes * each).reshape(passes, each)  # those past N weigh 0
    total, _ = jax.lax.scan(add, jnp.zeros(images.shape[:3]), indices)
    return total / (count * p)
