"""Insertion and deletion held to a transcription in torch of RISE's definition."""

import jax
import numpy as np
import pytest
import torch
from networks import resnet, some_images, vgg
from torch_networks import Network, to_torch

from fgvce_jax.blur import blurred
from fgvce_jax.metrics import at_pixels, faithfulness, score

SIZE, STEP = 32, 32  # RISE's area has equal steps: the pixels are a multiple of the step


def area(curve):
    """The trapezoid rule on equal steps from 0 to 1."""
    return (sum(curve) - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)


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
    curves = faithfulness(clf, images, maps, classes, share=STEP / SIZE**2, sigma=3.0, chunk=50)
    ours = np.stack([score(curves.fraction, c) for c in (curves.insertion, curves.deletion)], 1)
    network = Network(clf)
    for b, (image, label) in enumerate(zip(images, classes, strict=True)):
        saliency = np.asarray(jax.image.resize(maps[b], (SIZE, SIZE), "bilinear"))
        substrate = to_torch(np.asarray(blurred(image, 3.0))[None])
        theirs = causal_metric(network, to_torch(image[None]), substrate, saliency, label)
        np.testing.assert_allclose(ours[b], theirs, rtol=1e-4)


def test_upsampling_is_that_of_torch():
    values = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(values)[None, None], (56, 40), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(at_pixels(values, (56, 40)), theirs, atol=1e-5)
