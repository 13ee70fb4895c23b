"""CE, held to its definition with gradients by differences."""

import numpy as np
import pytest
import reference
from tiny import partition_weight, problems, tiny

from fgvce_jax.methods import METHODS


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_ce_is_gradcam_of_the_cross_entropy(kind):
    model = tiny(kind=kind)
    images, predicted, contrast = problems(model)
    maps = METHODS["ce"](model.clf, images, predicted, contrast)
    sharpened = METHODS["ce"](model.clf, images, predicted, contrast, sp_sigma=0.8)
    for image, p, q, ours, ours_sharpened in zip(
        images, predicted, contrast, maps, sharpened, strict=True
    ):
        cells = model.features(image)
        slope = reference.gradient(
            lambda h, q=q: -np.log(reference.softmax(model.head(h))[q]), cells
        )
        expected = np.maximum((cells * slope.mean((0, 1))).sum(-1), 0)
        np.testing.assert_allclose(ours, expected, atol=1e-5 * max(expected.max(), 1))
        weight = partition_weight(model.head, cells, p)
        np.testing.assert_allclose(ours_sharpened, expected * weight, atol=1e-4)
    assert np.asarray(maps).max() > 0


def test_with_all_probability_on_the_contrast_class_nothing_is_left_to_explain():
    model = tiny()
    images, predicted, _ = problems(model)
    steep = model.clf.head.bias + 200 * np.eye(model.clf.num_classes, dtype=np.float32)[3]
    clf = type(model.clf)(
        model.clf.features, type(model.clf.head)(model.clf.head.kernel, steep), 5, 12
    )
    contrast = np.full_like(predicted, 3)
    np.testing.assert_array_equal(METHODS["ce"](clf, images, predicted, contrast), 0)
