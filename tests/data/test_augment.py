from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgvce_jax.data.augment import AugmentConfig, augment
from fgvce_jax.errors import InputError


def ramp(side=32):
    """Red grows to the right, green downwards, by one unit a pixel."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return jnp.stack([x, y, np.full_like(x, 7)], -1)


def variants(config, image, count=32):
    keys = jax.random.split(jax.random.key(0), count)
    one = partial(augment, config)
    return np.asarray(jax.jit(jax.vmap(one, (0, None)))(keys, image))


def test_no_augmentation_is_none():
    image = ramp()
    assert (variants(AugmentConfig(flip=False), image, 2) == np.asarray(image)).all()


def test_flip_gives_both_ways_alike():
    image = np.asarray(ramp())
    out = variants(AugmentConfig(flip=True), image)
    flipped = (out == image[:, ::-1]).all((1, 2, 3))
    same = (out == image).all((1, 2, 3))
    assert np.logical_xor(flipped, same).all()
    assert 8 <= sum(flipped) <= 24


def test_padded_crop_is_a_shift_that_repeats_the_edge():
    out = variants(AugmentConfig(flip=False, crop_padding=3), ramp())
    shifts = out[:, 15, 15, :2] - 15
    x = np.clip(np.arange(32) + shifts[:, :1], 0, 31)
    np.testing.assert_array_equal(out[:, 15, :, 0], x)
    assert set(shifts.ravel()) == {-3, -2, -1, 0, 1, 2, 3}


def test_colour_jitter_stays_in_range_and_moves_colours_alone():
    image = (ramp() / 32).at[:8].set(0.5)
    out = variants(AugmentConfig(flip=False, colour_jitter=0.3), image)
    assert out.min() >= 0
    assert out.max() <= 1
    assert np.std(out.mean((1, 2, 3))) > 0.03
    assert np.ptp(out[:, :8], axis=(1, 2)).max() < 1e-6


@pytest.mark.parametrize(
    "wrong", [{"crop_padding": -1}, {"crop_scale": 0.0}, {"colour_jitter": 1.0}]
)
def test_augmentation_refuses(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        AugmentConfig(**wrong)
