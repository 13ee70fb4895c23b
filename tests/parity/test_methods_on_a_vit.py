"""Methods on a vision transformer held to torchcam, captum and torch's gradients."""

import numpy as np
import pytest
import torch
from agreement import assert_close
from captum.attr import IntegratedGradients
from networks import some_images
from safetensors.torch import save_file
from test_models import MEAN, STD, assert_same_logits
from tiny_transformers import TINY, tiny_transformers
from torch_vit import TorchViT
from torchcam.methods import LeGrad

from fgvce_jax.methods import METHODS
from fgvce_jax.models import load_classifier

SIZE = 32


@pytest.fixture
def pair(monkeypatch, tmp_path):
    """(ours, torch's, images, classes)."""
    tiny_transformers(monkeypatch)
    network = TorchViT(TINY, SIZE, 5).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            fan_in = weight[0].numel() if weight.ndim in (2, 4) else 4
            weight.copy_(1.2 * torch.randn(weight.shape, generator=generator) * fan_in**-0.5)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    clf = load_classifier("vit_s_16", tmp_path / "w.safetensors", image_size=SIZE)
    assert_same_logits(network, clf, SIZE)
    return clf, network, *some_images(size=SIZE)


def normalised(images):
    return (torch.tensor(np.asarray(images)).permute(0, 3, 1, 2) - MEAN) / STD


def test_legrad_of_torchcam(pair):
    clf, network, images, classes = pair
    with LeGrad(network, list(network.encoder.layers)) as extractor:
        scores = network(normalised(images))
        (theirs,) = extractor(classes.tolist(), scores, normalized=False)
    assert_close(METHODS["legrad"](clf, images, classes), theirs.detach())


def test_integrated_gradients_of_captum(pair):
    clf, network, images, classes = pair

    def logits(x):
        return network((x - MEAN) / STD)

    theirs = IntegratedGradients(logits).attribute(
        torch.tensor(np.asarray(images)).permute(0, 3, 1, 2),
        target=torch.tensor(classes).long(),
        n_steps=10,
        method="gausslegendre",
    )
    ours = METHODS["ig"](clf, images, classes, rule="gauss_legendre", steps=10)
    assert_close(ours, theirs.detach().abs().sum(1))


def test_class_activation_maps_of_the_tokens_before_the_last_block(pair):
    """With the tokens reshaped to cells, from gradients that torch takes."""
    clf, network, images, classes = pair
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    network.encoder.layers[-2].register_forward_hook(keep)
    scores = network(normalised(images))
    scores[range(len(classes)), classes].sum().backward()
    (tokens,) = kept
    cells, slope = (x.detach()[:, 1:].reshape(-1, 4, 4, TINY.width) for x in (tokens, tokens.grad))
    expected = {
        "gradcam": (slope.mean((1, 2), keepdim=True) * cells).sum(-1).relu(),
        "layercam": (slope.relu() * cells).sum(-1).relu(),
    }
    for name, theirs in expected.items():
        assert_close(METHODS[name](clf, images, classes), theirs)
