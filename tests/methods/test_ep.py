"""Extremal perturbations: the mask, the blur, and that the search finds what a class is made of."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import gradient
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.ep import Kernel, blur_pyramid, ep, inside, perturbed, smooth_mask
from fgvce_jax.models.classifier import mean_colour


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
    options = {"step": 4, "sigma": 6.0, "area": 0.15, "reward": "contrastive"}
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
    mask = {"start": start, "step": 4, "sigma": 6.0, "area": 0.3}
    reading = {"reward": "contrastive", "border": "none", "after_last_step": True}
    ours = METHODS["ep"](clf, image, jnp.array([1]), iterations=1, **mask, **reading)

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


# The authors' code in NumPy: zeros beyond the border of a normalised image, the gradient by
# differences, and the mask before the last step.


def code_mask(parameters, size, step, sigma):
    """(the mask on the image, the whole of it), all parameters at once."""
    reach = int(np.ceil(sigma / step)) + 1
    margin = (reach - 1) * step
    side = (len(parameters) - 1 + 2 * (reach - 1)) * step + 1
    cell = np.arange(side) // step - (reach - 1)
    votes, total = np.zeros((side, side)), np.zeros((side, side))
    for dy, dx in np.ndindex(2 * reach + 1, 2 * reach + 1):
        i, j = cell + dy - reach, cell + dx - reach
        known = (i >= 0) & (i < len(parameters)), (j >= 0) & (j < len(parameters))
        held = [np.clip(k, 0, len(parameters) - 1) for k in (i, j)]
        values = parameters[np.ix_(*held)] * known[0][:, None] * known[1]
        y, x = (np.arange(side) - margin - step * k for k in (i, j))
        distance = np.sqrt(y[:, None] ** 2 + x**2) / sigma
        values = values * np.exp(-2 * np.maximum(distance - 0.5, 0) ** 2)
        votes, total = votes + np.exp(20 * values), total + np.exp(20 * values) * values
    whole = total / votes
    return whole[margin : margin + size, margin : margin + size], whole


def code_pyramid(image):
    """Gaussians of 20, 20 * 6 / 7, ... 0 pixels, cut at 4 of them; zeros beyond the border."""
    levels, size = [], len(image)
    for blur in 20 * (1 - np.arange(8) / 7):
        width = int(np.ceil(4 * blur))
        taps = np.exp(-0.5 * (np.arange(-width, width + 1) / max(blur, 1e-9)) ** 2)
        taps /= taps.sum()
        framed = np.pad(image, ((width, width), (width, width), (0, 0)))
        framed = sum(t * framed[k : k + size] for k, t in enumerate(taps))
        levels.append(sum(t * framed[:, k : k + size] for k, t in enumerate(taps)))
    return np.stack(levels)


def code_ep(normalised, logits, c, start, area, iterations, step, sigma, contrastive):
    """The mask of one normalised image."""
    pyramid, size = code_pyramid(normalised), len(normalised)

    def energy(parameters, weight, flip):
        mask, whole = code_mask(parameters, size, step, sigma)
        level = mask * 7
        below = np.minimum(np.floor(level).astype(int), 6)
        part = (level - below)[..., None]
        place = np.indices(mask.shape)
        seen = (1 - part) * pyramid[below, *place] + part * pyramid[below + 1, *place]
        z = logits(seen[:, ::-1] if flip else seen)
        reward = z[c] - np.delete(z, c).max() if contrastive else z[c]
        wanted = np.zeros(whole.size)
        wanted[int(whole.size * (1 - area)) :] = 1
        return reward - weight * np.mean((np.sort(whole.ravel()) - wanted) ** 2)

    parameters, velocity, masks = np.float64(start), None, []
    for t in range(iterations):
        masks.append(code_mask(parameters, size, step, sigma)[0])
        weight = 300 * 1.0035**t
        slope = gradient(lambda x, w=weight, t=t: energy(x, w, t % 2 == 0), parameters)
        velocity = slope if velocity is None else 0.9 * velocity + 0.1 * slope
        parameters = np.clip(parameters + 0.01 * velocity, 0, 1)
    return masks[-1], code_mask(parameters, size, step, sigma)[0]


MEAN, STD = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Normalised:
    """Features of the image less `mean`, over STD."""

    mean: jax.Array
    own: Any

    def __call__(self, images):
        return self.own((images - self.mean) / STD)


@pytest.mark.parametrize("reward", ["simple", "contrastive"])
def test_the_masks_are_those_of_the_authors_code(reward):
    model = tiny()
    clf = replace(model.clf, features=Normalised(jnp.asarray(MEAN), model.clf.features))
    images, classes, _ = problems(model, count=2)
    start = np.random.default_rng(0).uniform(0.2, 0.9, (4, 4)).astype(np.float32)
    options = {"area": 0.3, "iterations": 4, "step": 3, "sigma": 6.0}
    ours, last = (
        METHODS["ep"](
            clf, images, classes, start=start, reward=reward, after_last_step=last, **options
        )
        for last in (False, True)
    )
    other = METHODS["ep"](clf, images, classes, start=start, border="none", **options)
    for b, (image, c) in enumerate(zip(images, classes, strict=True)):
        normalised = (np.float64(image) - MEAN) / STD
        theirs = code_ep(
            normalised,
            lambda x: model.head(model.features(x)),
            c,
            start,
            contrastive=reward == "contrastive",
            **options,
        )
        np.testing.assert_allclose(ours[b], theirs[0], atol=2e-4)
        np.testing.assert_allclose(last[b], theirs[1], atol=2e-4)
        assert np.abs(theirs[1] - theirs[0]).max() > 5e-3
    assert np.abs(np.asarray(other) - ours).max() > 5e-3


def test_features_without_a_mean_have_black_beyond_the_border():
    image = np.random.default_rng(1).uniform(size=(12, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(mean_colour(tiny().clf), np.zeros(3))
    expected = code_pyramid(np.float64(image))
    image = jnp.asarray(image)
    np.testing.assert_allclose(blur_pyramid(image, jnp.zeros(3)), expected, atol=1e-5)
    assert np.abs(blur_pyramid(image)[0] - expected[0]).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "dual"}, "reward 'dual': expected simple or contrastive"),
        ({"border": "zeros"}, "border 'zeros': expected mean or none"),
        ({"iterations": 0}, "iterations 0: expected 1 or more"),
    ],
)
def test_what_is_refused(options, message):
    model = tiny()
    images, classes, _ = problems(model, count=1)
    with pytest.raises(fg.InputError, match=message):
        METHODS["ep"](model.clf, images, classes, **options)
