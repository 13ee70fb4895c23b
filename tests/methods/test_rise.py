from dataclasses import replace

import jax
import numpy as np
import pytest
import reference
from tiny import problems, tiny

from fgvce_jax.methods import METHODS
from fgvce_jax.methods.rise import random_mask, shifted_upsampling


@pytest.mark.parametrize("chunk", [4, 64])
def test_rise_is_the_mean_of_masks_weighted_by_probability(chunk):
    model = tiny(sharpness=2.0)
    images, classes, _ = problems(model, count=3)
    masks = np.random.default_rng(3).uniform(size=(10, 12, 12)).astype(np.float32)
    maps = METHODS["rise"](model.clf, images, classes, masks=masks, p=0.4, chunk=chunk)
    for image, c, ours in zip(images, classes, maps, strict=True):
        p = [reference.softmax(model.head(model.features(image * m[..., None])))[c] for m in masks]
        np.testing.assert_allclose(ours, np.tensordot(p, masks, 1) / (10 * 0.4), rtol=1e-4)


def test_drawn_masks_are_those_of_the_key_whatever_the_chunk():
    model = tiny(sharpness=2.0)
    images, classes, _ = problems(model, count=2)
    key = jax.random.key(5)
    draw = jax.jit(jax.vmap(lambda i: random_mask(jax.random.fold_in(key, i), (12, 12), 3, 0.3)))
    masks = draw(np.arange(9))
    expected = METHODS["rise"](model.clf, images, classes, masks=masks, p=0.3)

    def drawn(key):
        options = {"num_masks": 9, "grid": 3, "p": 0.3, "chunk": 4}
        return METHODS["rise"](model.clf, images, classes, key=key, **options)

    np.testing.assert_allclose(drawn(key), expected, rtol=1e-5)
    assert np.abs(drawn(jax.random.key(6)) - expected).max() > 1e-3


@pytest.mark.parametrize(("count", "chunk", "size"), [(4, 64, 4), (9, 4, 3), (65, 64, 33)])
def test_hardly_a_forward_pass_is_wasted(count, chunk, size):
    model, seen = tiny(), []

    def features(images):
        seen.append(len(images))
        return model.clf.features(images)

    images, classes, _ = problems(model, count=1)
    clf = replace(model.clf, features=jax.tree_util.Partial(features))
    METHODS["rise"](clf, images, classes, num_masks=count, chunk=chunk)
    assert set(seen) == {size}


def test_masks_keep_their_share_and_are_shifted():
    keys = jax.random.split(jax.random.key(0), 400)
    draw = jax.jit(jax.vmap(lambda key: random_mask(key, (28, 21), 7, 0.5)))
    masks = np.asarray(draw(keys))
    assert masks.shape == (400, 28, 21)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    np.testing.assert_allclose(masks.mean(), 0.5, atol=0.02)
    np.testing.assert_allclose(masks.mean(0), 0.5, atol=0.12)  # no pixel is favoured
    assert masks.std() > 0.3  # and they are not grey


def test_upsampling_is_bilinear_between_the_centres_of_cells():
    # Two values over three cells of 2 pixels: centres at 1 and 4 (from 0 to 6 pixels).
    ours = np.asarray(shifted_upsampling(4, 2, 0) @ np.array([0.0, 6.0]))
    np.testing.assert_allclose(ours, [0, 0, 2, 4], atol=1e-6)
    ours = np.asarray(shifted_upsampling(4, 2, 1) @ np.array([0.0, 6.0]))
    np.testing.assert_allclose(ours, [0, 2, 4, 6], atol=1e-6)


@pytest.mark.parametrize(("size", "grid", "shift"), [(12, 3, 3), (13, 3, 4), (5, 2, 2), (7, 3, 0)])
def test_upsampling_is_constant_beyond_the_last_centres(size, grid, shift):
    values = np.random.default_rng(0).uniform(size=grid)
    cell = int(np.ceil(size / grid))
    centres = (np.arange(grid) + 0.5) * (grid + 1) * cell / grid
    expected = np.interp(np.arange(size) + shift + 0.5, centres, values)
    ours = np.asarray(shifted_upsampling(size, grid, shift)) @ values
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_the_defaults_are_the_papers():
    """8000 masks of 7 x 7 cells, half of them kept."""
    model = tiny(sharpness=2.0)
    images, classes, _ = problems(model, count=1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(8000))
    masks = jax.jit(jax.vmap(lambda key: random_mask(key, (12, 12), 7, 0.5)))(keys)
    expected = METHODS["rise"](model.clf, images, classes, masks=masks, p=0.5)
    np.testing.assert_allclose(METHODS["rise"](model.clf, images, classes), expected, rtol=1e-5)
