"""The methods that explain one class, on ResNet-50 and VGG-16 with 2 x 2 cells."""

from functools import cache

import jax
import numpy as np
import pytest
from networks import resnet, some_images, vgg

from fgvce_jax.methods import METHODS
from fgvce_jax.models import ModelSpec, recut

# What the methods take at this size; the networks' compilation is what the tests spend time on.
OPTIONS = {
    "ig": {"steps": 2},
    "rise": {"num_masks": 4, "chunk": 4},
    "ep": {"iterations": 2, "step": 9, "sigma": 9.0},
}


@cache
def resnet50():
    return resnet(ModelSpec("resnet50"), size=36)


@cache
def vgg16():
    return vgg(ModelSpec("vgg16", cut="conv"), last_conv="features.28")


def check(names, clf, sides):
    """All of them in one program, which is compiled faster than many."""
    images, classes = some_images(1, clf.image_size)

    @jax.jit
    def together(*arguments):
        return [METHODS[name](*arguments, **OPTIONS.get(name, {})) for name in names]

    for name, maps, side in zip(names, together(clf, images, classes), sides, strict=True):
        maps = np.asarray(maps)
        assert maps.shape == (1, side, side), name
        assert np.isfinite(maps).all(), name
        assert maps.min() >= 0, name
        assert maps.max() > 0, name
        assert maps.std() > 0, name


@pytest.mark.parametrize("name", ["gbp", "ig", "rise", "ep"])
@pytest.mark.parametrize("network", [resnet50, vgg16])
def test_maps_of_pixels(network, name):
    clf = network()
    check([name], clf, [clf.image_size])


@pytest.mark.parametrize("network", [resnet50, vgg16])
def test_maps_of_cells(network):
    clf = network()
    fine = -(-clf.image_size // 4)
    check(["gradcam", "gradcampp", "layercam", "fgcam"], clf, [2, 2, 2, fine])


def test_scorecam_of_vgg16():
    check(["scorecam"], vgg16(), [2])


def test_scorecam_of_resnet50():
    # 256 forward passes after the first stage instead of 2048 after the last.
    clf = resnet(ModelSpec("resnet50"), size=20)
    check(["scorecam"], recut(clf, "layer1"), [5])
