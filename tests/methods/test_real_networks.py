"""The methods that explain one class, on ResNet-50 and VGG-16 with 2 x 2 cells."""

import jax
import numpy as np
import pytest
from networks import resnet, some_images, vgg

from fgvce_jax.methods import METHODS
from fgvce_jax.models import ModelSpec

# What the methods take at this size; the networks' compilation is what the tests spend time on.
OPTIONS = {
    "ig": {"steps": 2},
    "rise": {"num_masks": 4, "chunk": 4},
    "ep": {"iterations": 2, "step": 9, "sigma": 9.0},
}
PIXELS = ["gbp", "ig", "rise", "ep"]
MAPS = ["gradcam", "gradcampp", "layercam", "scorecam", "fgcam"]


@pytest.fixture(scope="module", params=["resnet50", "vgg16"])
def problem(request):
    if request.param == "resnet50":
        return resnet(ModelSpec("resnet50"), size=36), *some_images(1, 36)
    return vgg(ModelSpec("vgg16", cut="conv"), size=32), *some_images(1, 32)


def run(names, arguments):
    """All of them in one program, quickly compiled."""

    def together(*arguments):
        return {name: METHODS[name](*arguments, **OPTIONS.get(name, {})) for name in names}

    fast = {"xla_backend_optimization_level": 0}
    return jax.jit(together).lower(*arguments).compile(compiler_options=fast)(*arguments)


@pytest.mark.parametrize("names", [PIXELS, MAPS], ids=["pixels", "maps"])
def test_maps_are_there_and_finite(problem, names):
    size = problem[0].image_size
    sides = dict.fromkeys(PIXELS, size) | dict.fromkeys(MAPS, 2) | {"fgcam": -(-size // 4)}
    for name, maps in run(names, problem).items():
        maps = np.asarray(maps)
        assert maps.shape == (1, sides[name], sides[name]), name
        assert np.isfinite(maps).all(), name
        assert maps.min() >= 0, name
        assert maps.max() > 0, name
        assert maps.std() > 0, name
