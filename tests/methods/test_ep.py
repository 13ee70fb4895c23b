"""Extremal perturbations: the mask, the blur, and that the search finds what a class is made of."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.ep import Kernel, blur_pyramid, ep, inside, perturbed, smooth_mask


def naive_mask(parameters, size, step, sigma):
    """Smooth maximum over all parameters and a frame of zeros, pixel by pixel."""
    reach = int(np.ceil(sigma / step)) + 1
    mask = np.zeros((size, size))
    for pixel in np.ndindex(size, size):
        values = []
        for offset in np.ndindex(2 * reach + 1, 2 * reach + 1):
            i, j = (p // step + o - reach for p, o in zip(pixel, offset, strict=True))
            known = 0 <= i < len(parameters) and 0 <= j < len(parameters)
            z = np.hypot(pixel[0] - step * i, pixel[1] - step * j) / sigma
            weight = np.exp(-2 * max(z - 0.5, 0) ** 2)
            values.append(weight * (parameters[i, j] if known else 0))
        values = np.array(values)
        votes = np.exp(20 * values)
        mask[pixel] = votes @ values / votes.sum()
    return mask


@pytest.mark.parametrize(("step", "sigma"), [(3, 6.0), (4, 5.0)])
def test_a_mask_is_the_smooth_maximum_of_parameters_around(step, sigma):
    side = -(-11 // step)
    parameters = np.random.default_rng(0).uniform(size=(side, side)).astype(np.float32)
    kernel = Kernel(step, sigma)
    whole = smooth_mask(jnp.asarray(parameters), kernel)
    assert whole.shape == ((side - 1 + 2 * kernel.margin) * step + 1,) * 2
    expected = naive_mask(parameters, 11, step, sigma)
    np.testing.assert_allclose(inside(whole, (11, 11), kernel), expected, rtol=1e-4, atol=1e-6)


def test_the_pyramid_goes_from_blurred_to_sharp():
    image = np.random.default_rng(0).uniform(size=(9, 12, 3)).astype(np.float32)
    pyramid = np.asarray(blur_pyramid(jnp.asarray(image)))
    np.testing.assert_array_equal(pyramid[-1], image)
    variation = pyramid.std((1, 2)).mean(-1)
    assert (np.diff(variation) > 0).all()
    # Level 6 of 0..7 is a Gaussian of 20 / 7 pixels, over what there is of the image.
    distance = np.arange(12)[:, None] - np.arange(12)
    weights = np.exp(-0.5 * (distance * 7 / 20) ** 2)
    rows = weights[:9, :9] / weights[:9, :9].sum(1, keepdims=True)
    columns = weights / weights.sum(1, keepdims=True)
    expected = np.einsum("ih,hwc,jw->ijc", rows, image, columns)
    np.testing.assert_allclose(pyramid[-2], expected, rtol=1e-4)


def test_a_mask_picks_a_level_of_the_pyramid_at_each_pixel():
    pyramid = jnp.arange(8.0)[:, None, None, None] * jnp.ones((8, 1, 4, 3))
    mask = jnp.array([[0.0, 0.5, 0.9, 1.0]])
    np.testing.assert_allclose(perturbed(pyramid, mask)[0, :, 0], [0, 3.5, 6.3, 7], rtol=1e-6)


def contrast(x):
    """Two classes: how sharp the stripes are in the upper half and in the lower half."""
    steps = jnp.abs(x[:, :, 1:] - x[:, :, :-1]).sum(-1)
    return 0.05 * jnp.stack([steps[:, :16].sum((1, 2)), steps[:, 16:].sum((1, 2))], -1)


def test_the_search_keeps_what_speaks_for_the_class():
    stripes = np.zeros((2, 32, 32, 3), np.float32)
    stripes[:, :, ::2] = 1
    clf = fg.Classifier(lambda x: x, contrast, 2, 32)
    options = {"step": 4, "sigma": 6.0, "area": 0.15}
    masks = np.asarray(METHODS["ep"](clf, stripes, jnp.array([0, 1]), chunk=1, **options))
    assert masks.min() >= 0
    assert masks.max() <= 1
    upper, lower = masks[:, :16].mean((1, 2)), masks[:, 16:].mean((1, 2))
    assert upper[0] > 4 * lower[0]
    assert lower[1] > 4 * upper[1]
    # The wanted area is a share of the mask with its margins, here 45 x 45 pixels.
    area = (masks > 0.5).mean((1, 2)) * 32**2 / 45**2
    assert (area > 0.1).all()
    assert (area < 0.2).all()


def test_the_first_step_follows_the_gradient_and_stays_in_range():
    clf = fg.Classifier(lambda x: x, contrast, 2, 16)
    image = np.random.default_rng(0).uniform(size=(1, 16, 16, 3)).astype(np.float32)
    start = jnp.full((4, 4), 0.5)
    kernel = Kernel(4, 6.0)
    ours = METHODS["ep"](
        clf, image, jnp.array([1]), start=start, iterations=1, step=4, sigma=6.0, area=0.3
    )

    def energy(parameters):
        whole = smooth_mask(jnp.asarray(parameters), kernel)
        seen = perturbed(blur_pyramid(jnp.asarray(image[0])), inside(whole, (16, 16), kernel))
        upper, lower = contrast(seen[None, :, ::-1])[0]
        wanted = np.zeros(whole.size)
        wanted[int(whole.size * 0.7) :] = 1
        return lower - upper - 300 * jnp.mean((jnp.sort(whole.ravel()) - wanted) ** 2)

    moved = np.clip(start + 0.01 * jax.jit(jax.grad(energy))(start), 0, 1)
    expected = inside(smooth_mask(jnp.asarray(moved), kernel), (16, 16), kernel)
    np.testing.assert_allclose(ours[0], expected, rtol=1e-4)
    assert np.abs(moved - start).max() > 1e-3


def test_the_defaults_are_the_papers():
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(ep).parameters.items()
    }
    assert (defaults["area"], defaults["iterations"]) == (0.1, 800)
    assert (defaults["step"], defaults["sigma"]) == (7, 21)
