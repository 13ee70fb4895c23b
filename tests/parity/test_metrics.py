"""Insertion and deletion held to a transcription in torch of RISE's definition."""

import jax
import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from networks import resnet, some_images, vgg
from torch_networks import Network, to_torch

from fgvce_jax.blur import blurred
from fgvce_jax.metrics import at_pixels, faithfulness, score

SIZE, STEP = 32, 32  # RISE's area has equal steps: the pixels are a multiple of the step


def area(curve):
    """The trapezoid rule on equal steps from 0 to 1."""
    return (sum(curve) - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)


def rise_kernel():
    """A unit filtered by a Gaussian of 5 pixels in an array of 11 x 11, as SciPy does it."""
    unit = np.zeros((11, 11))
    unit[5, 5] = 1
    return torch.tensor(scipy.ndimage.gaussian_filter(unit, 5), dtype=torch.float32)


@torch.no_grad()
def causal_metric(network, image, substrate, saliency, label):
    """(insertion, deletion) of one image [1, 3, H, W], a step at a time."""
    order = np.argsort(-saliency.reshape(-1), kind="stable")
    scores = []
    for start, end in ((substrate, image), (image, substrate)):
        current, curve = start.clone(), []
        for i in range(SIZE * SIZE // STEP + 1):
            curve.append(float(torch.softmax(network(current), 1)[0, label]))
            chosen = order[i * STEP : (i + 1) * STEP].copy()
            current.reshape(1, 3, -1)[0, :, chosen] = end.reshape(1, 3, -1)[0, :, chosen]
        scores.append(100 * area(curve))
    return scores


@pytest.mark.parametrize("clf", [resnet(), vgg()], ids=["resnet", "vgg"])
def test_insertion_and_deletion(clf):
    images, classes = some_images()
    maps = np.random.default_rng(0).normal(size=(len(images), 4, 4)).astype(np.float32)
    options = {"share": STEP / SIZE**2, "chunk": 50, "ties": "in_order"}
    curves = faithfulness(clf, images, maps, classes, sigma=3.0, **options)
    of_rise = faithfulness(clf, images, maps, classes, substrate="rise", **options)
    ours = np.stack([score(curves.fraction, c) for c in (curves.insertion, curves.deletion)], 1)
    of_rise = score(of_rise.fraction, of_rise.insertion), score(of_rise.fraction, of_rise.deletion)
    network = Network(clf)
    for b, (image, label) in enumerate(zip(images, classes, strict=True)):
        saliency = np.asarray(jax.image.resize(maps[b], (SIZE, SIZE), "bilinear"))
        substrate = to_torch(np.asarray(blurred(image, 3.0))[None])
        theirs = causal_metric(network, to_torch(image[None]), substrate, saliency, label)
        np.testing.assert_allclose(ours[b], theirs, rtol=1e-4)
        # RISE's substrates are made of the normalised image, its blur by zeros around it.
        normalised = (to_torch(image[None]) - network.mean) / network.std
        blurry = F.conv2d(normalised, rise_kernel().expand(3, 1, 11, 11), padding=5, groups=3)
        for curve, substrate in enumerate((blurry, torch.zeros_like(normalised))):
            substrate = substrate * network.std + network.mean
            theirs = causal_metric(network, to_torch(image[None]), substrate, saliency, label)
            np.testing.assert_allclose(of_rise[curve][b], theirs[curve], rtol=1e-4)


def test_upsampling_is_that_of_torch():
    values = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(values)[None, None], (56, 40), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(at_pixels(values, (56, 40)), theirs, atol=1e-5)
