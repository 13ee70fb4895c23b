"""GradCAM, GradCAM++, LayerCAM and ScoreCAM against NumPy, gradients by differences."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import gradient
from tiny import problems, tiny

from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cams import gradcampp_weights


def gradcam(h, g):
    return g.mean((0, 1)) * h


def gradcampp(h, g):
    divisor = 2 * g**2 + (h * g**3).sum((0, 1))
    alpha = np.divide(g**2, divisor, out=np.zeros_like(g), where=divisor != 0)
    return (alpha * np.maximum(g, 0)).sum((0, 1)) * h


def layercam(h, g):
    return np.maximum(g, 0) * h


@pytest.mark.parametrize("kind", ["pooled", "dense"])
@pytest.mark.parametrize("terms", [gradcam, gradcampp, layercam])
def test_maps_weighted_by_gradients(kind, terms):
    model = tiny(kind=kind)
    images, classes, _ = problems(model)
    maps = METHODS[terms.__name__](model.clf, images, classes)
    for image, c, ours in zip(images, classes, maps, strict=True):
        cells = model.features(image)
        slope = gradient(lambda h, c=c: model.head(h)[c], cells)
        expected = np.maximum(terms(cells, slope).sum(-1), 0)
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-4 * expected.max())
    assert np.asarray(maps).max() > 0


def test_gradcampp_of_a_channel_without_gradient_is_zero():
    gradient = jnp.zeros((2, 2, 3)).at[:, :, 1].set(0.5)
    weights = gradcampp_weights(jnp.ones((2, 2, 3)), gradient)
    # alpha = 0.25 / (2 * 0.25 + 4 * 0.125) = 0.25, four cells of 0.25 * 0.5
    np.testing.assert_allclose(weights, [0, 0.5, 0], rtol=1e-6)


def bilinear(values, size):
    """Upsampling by corners, a value at the centre of each cell, the border repeated."""
    n = len(values)
    out = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        y, x = (np.clip((k + 0.5) * n / size - 0.5, 0, n - 1) for k in (i, j))
        a, b = int(min(y, n - 2)), int(min(x, n - 2))
        dy, dx = y - a, x - b
        corners = values[a : a + 2, b : b + 2]
        out[i, j] = np.array([1 - dy, dy]) @ corners @ np.array([1 - dx, dx])
    return out


@pytest.mark.parametrize("chunk", [3, 64])
def test_scorecam(chunk):
    model = tiny(sharpness=3.0)
    images, classes, _ = problems(model, count=3)
    maps = METHODS["scorecam"](model.clf, images, classes, chunk=chunk)
    for image, c, ours in zip(images, classes, maps, strict=True):
        cells = model.features(image)
        logits = []
        for channel in np.moveaxis(cells, -1, 0):
            scaled = channel - channel.min()
            mask = bilinear(scaled / (scaled.max() + 1e-8), len(image))
            logits.append(model.head(model.features(image * mask[..., None]))[c])
        weights = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(ours, np.maximum(cells @ weights, 0), rtol=1e-4, atol=1e-6)
