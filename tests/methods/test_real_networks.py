"""Every row of Table 1 on ResNet-50 and VGG-16, with 2 x 2 cells."""

from functools import cache

import jax
import numpy as np
import pytest
from networks import resnet, some_images, vgg

from fgvce_jax.bank import Bank
from fgvce_jax.config import BankConfig
from fgvce_jax.heads import CalmHead, searchable
from fgvce_jax.methods import METHODS
from fgvce_jax.models import Classifier, ModelSpec, recut

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


def contrasts(clf):
    """Images, the class of each, and the one that comes next."""
    images, _ = some_images(6, clf.image_size)
    order = np.argsort(-np.asarray(jax.jit(lambda clf, x: clf(x))(clf, images)), axis=-1)
    return images, order[:, 0], order[:, 1]


@pytest.mark.parametrize("network", [resnet50, vgg16])
def test_contrastive_maps(network):
    clf = network()
    images, classes, rivals = contrasts(clf)
    bank = reference_bank(clf, images)
    of_bank = ("cve", "cve_semantic", "fgvce_invariant", "fgvce_dominant")

    @jax.jit
    def together(clf, bank, images, classes, rivals):
        options = {"cce": {"steps": 2}} | {name: {"bank": bank} for name in of_bank}
        maps = {
            name: METHODS[name](clf, images, classes, rivals, **options.get(name, {}))
            for name in ("ce", "scout", "cce", *of_bank)
        }
        return maps | {"contributions": METHODS["contributions"](clf, images, classes)}

    for name, maps in together(clf, bank, images, classes, rivals).items():
        check_maps(name, maps)


def check_maps(name, maps):
    maps = np.asarray(maps)
    assert maps.shape == (6, 2, 2), name
    assert np.isfinite(maps).all(), name
    assert np.abs(maps).max() > 0, name


def reference_bank(clf, images):
    """All cells of the images, offered to every class."""
    cells = np.asarray(jax.jit(lambda clf, x: clf.features(x))(clf, images))
    cells = cells.reshape(1, -1, cells.shape[-1])
    count = cells.shape[1]
    return Bank(
        cells=cells,
        norms=np.linalg.norm(cells, axis=-1),
        prepared=jax.device_get(searchable(clf.head).prepare(cells)),
        valid=np.ones((1, count), bool),
        image=np.arange(count, dtype=np.int32)[None] // 4,
        cell=np.arange(count, dtype=np.int32)[None] % 4,
        references=np.ones(clf.num_classes, np.int32),
        group=np.zeros(clf.num_classes, np.int32),
        config=BankConfig(6, None, "all", sigma=0.8),
    )


@pytest.mark.parametrize("network", [resnet50, vgg16])
def test_calm(network):
    clf = network()
    features = clf.features
    channels = jax.eval_shape(features, some_images(1, clf.image_size)[0]).shape[-1]
    head = CalmHead.create(jax.random.key(0), channels, clf.num_classes)
    calm = Classifier(features, head, clf.num_classes, clf.image_size)
    images, classes = some_images(1, clf.image_size)
    maps = np.asarray(METHODS["calm"](calm, images, classes))
    assert maps.shape == (1, 2, 2)
    probability = jax.nn.softmax(calm(images))[0, classes[0]]
    np.testing.assert_allclose(maps.sum(), probability, rtol=1e-4)
