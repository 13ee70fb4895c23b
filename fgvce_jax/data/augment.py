"""Random changes to a training image that leave its class alone.

All but the random resized crop are made inside the jitted step. The image functions are dm-pix's;
each is for one image and is `vmap`ped over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fgvce_jax.config import LARGEST_SIDE, at_most
from fgvce_jax.errors import InputError


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied.

    Attributes:
        flip: Mirror left and right, every other time.
        crop_padding: Pixels by which the edges are repeated before a crop of the image's own size
            is taken at random; 0 for none.
        crop_scale: Smallest share of the area that a random resized crop keeps, in (0, 1]; 1 for
            no such crop. The input pipeline cuts it, from the image as it lies on disk.
        colour_jitter: Strength of random brightness (added), contrast and saturation (factors
            around 1), in [0, 1); 0 for none.
    """

    flip: bool = True
    crop_padding: int = 0
    crop_scale: float = 1.0
    colour_jitter: float = 0.0

    def __post_init__(self):
        if self.crop_padding < 0:
            raise InputError(f"augment.crop_padding: expected 0 or more, got {self.crop_padding}")
        at_most(self, LARGEST_SIDE, "crop_padding")
        if not 0 < self.crop_scale <= 1:
            raise InputError(f"augment.crop_scale: expected in (0, 1], got {self.crop_scale}")
        if not 0 <= self.colour_jitter < 1:
            raise InputError(f"augment.colour_jitter: expected in [0, 1), got {self.colour_jitter}")


def augment(
    config: AugmentConfig, key: Key[Array, ""], image: Float[Array, "H W 3"]
) -> Float[Array, "H W 3"]:
    """A random variant of `image`, values in [0, 1] before and after."""
    if not (config.flip or config.crop_padding or config.colour_jitter):
        return image
    import dm_pix as pix  # here, so that training without augmentation needs no more than jax

    flip_key, shift_key, colour_key = jax.random.split(key, 3)
    if config.flip:
        image = jnp.asarray(pix.random_flip_left_right(flip_key, image))
    if config.crop_padding:
        pad = (config.crop_padding, config.crop_padding)
        padded = jnp.pad(image, (pad, pad, (0, 0)), mode="edge")
        image = jnp.asarray(pix.random_crop(shift_key, padded, image.shape))
    if config.colour_jitter:
        image = _colour_jitter(colour_key, image, config.colour_jitter)
    return image


def _colour_jitter(
    key: Key[Array, ""], image: Float[Array, "H W 3"], strength: float
) -> Float[Array, "H W 3"]:
    import dm_pix as pix

    low, high = 1 - strength, 1 + strength
    changes = (
        partial(pix.random_brightness, max_delta=strength),
        partial(pix.random_contrast, lower=low, upper=high),
        partial(pix.random_saturation, lower=low, upper=high),
    )
    for change, change_key in zip(changes, jax.random.split(key, len(changes)), strict=True):
        image = jnp.clip(change(change_key, image), 0, 1)
    return image
