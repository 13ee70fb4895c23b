"""Other methods' maps beside a run's own."""

import numpy as np
import pytest
from networks import resnet, some_images
from tiny import N, problems, tiny

import fgvce_jax as fg
from fgvce_jax.gallery import check_methods, gallery
from fgvce_jax.methods import METHODS, cve


def test_no_map_is_asked_for_twice():
    names = ["gradcam", "fgvce_dominant", "cve", "gradcam", "ce"]
    assert check_methods(names, tiny().clf) == ("gradcam", "fgvce_dominant", "cve", "ce")


def test_what_the_classifier_lacks_is_said_before_anything_is_computed():
    model = tiny()
    with pytest.raises(fg.InputError, match=r"calm: .*fgvce train --head calm_em"):
        check_methods(["gradcam", "calm"], resnet())
    with pytest.raises(fg.InputError, match="fgcam: needs the layers"):
        check_methods(["fgcam"], model.clf)
    with pytest.raises(fg.InputError, match="'gradcan': expected one of"):
        check_methods(["gradcam", "gradcan"], model.clf)


@pytest.fixture(scope="module")
def case():
    model = tiny()
    images, predicted, _ = problems(model, count=60)
    bank = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=None))
    targets = np.int32([k for k in range(5) if k not in bank.missing()])
    contrast = np.int32([targets[targets != p][0] for p in predicted[:6]])
    return model, images, predicted, contrast, bank


def test_maps_are_the_methods_own_at_the_size_of_the_cells(case):
    model, images, predicted, contrast, bank = case
    names = ("gradcam", "ig", "scout", "cve")
    maps = gallery(names, model.clf, bank, bank, images[:6], predicted[:6], contrast, N)
    assert tuple(maps) == names
    assert {values.shape for values in maps.values()} == {(6, N, N)}
    arguments = model.clf, images[:6], predicted[:6]
    pixels = np.asarray(METHODS["ig"](*arguments))
    cells = pixels.reshape(6, N, 3, N, 3).mean((2, 4))
    np.testing.assert_allclose(maps["ig"], cells, rtol=1e-4, atol=1e-6)
    expected = METHODS["scout"](*arguments, contrast)
    np.testing.assert_allclose(maps["scout"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["cve", "cve_semantic"])
def test_exhaustive_methods_search_all_cells_of_the_references(case, name):
    model, images, predicted, contrast, bank = case
    arguments = images[:6], predicted[:6], contrast, N
    maps = gallery([name], model.clf, None, bank, *arguments)
    search = getattr(cve, f"{name}_counterfactuals")
    found = search(model.clf, images[:6], contrast, bank=bank)
    for b in range(6):
        made = np.asarray(found.edit_cell[b])
        gains = np.diff(found.p_target[b])[made >= 0]
        np.testing.assert_allclose(maps[name][b].ravel()[made[made >= 0]], gains, atol=1e-6)
    best = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=3))
    for missing in (best, None):
        with pytest.raises(fg.InputError, match=f"{name}: expected a bank of all cells"):
            gallery([name], model.clf, bank, missing, *arguments)


def test_the_trace_is_of_one_image_of_the_classifiers_size():
    clf = resnet(size=32)
    images, classes = some_images(2, 32)
    names = check_methods(["gradcam", "fgcam", "gbp"], clf)
    maps = gallery(names, clf, None, None, images, classes, classes, 4)
    assert {values.shape for values in maps.values()} == {(2, 4, 4)}
