"""SCOUT, held to its definition with gradients by differences."""

import numpy as np
import pytest
import reference
from tiny import gradient, partition_weight, problems, tiny

from fgvce_jax.methods import METHODS


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_scout_is_the_product_of_its_three_attributions(kind):
    model = tiny(kind=kind)
    images, predicted, contrast = problems(model)
    maps = METHODS["scout"](model.clf, images, predicted, contrast)
    sharpened = METHODS["scout"](model.clf, images, predicted, contrast, sp_sigma=0.8)
    for image, p, q, ours, ours_sharpened in zip(
        images, predicted, contrast, maps, sharpened, strict=True
    ):
        cells = model.features(image)

        def attribution(score, cells=cells):
            return np.maximum((cells * gradient(score, cells)).sum(-1), 0)

        for_p = attribution(lambda h, p=p: model.head(h)[p])
        for_q = attribution(lambda h, q=q: model.head(h)[q])
        sure = attribution(lambda h: reference.softmax(model.head(h)).max())
        expected = for_p * (for_q.max() - for_q) * sure
        scale = max(expected.max(), 1e-6)
        np.testing.assert_allclose(ours / scale, expected / scale, atol=1e-4)
        weight = partition_weight(model.head, cells, p)
        np.testing.assert_allclose(ours_sharpened / scale, expected * weight / scale, atol=1e-4)
    assert np.asarray(maps).max() > 0


def test_a_class_against_itself_leaves_nothing_at_its_own_peak():
    model = tiny()
    images, predicted, _ = problems(model)
    maps = np.asarray(METHODS["scout"](model.clf, images, predicted, predicted))
    for image, p, ours in zip(images, predicted, maps, strict=True):
        cells = model.features(image)
        slope = np.float64(model.clf.head.kernel)[:, p]  # the same in every cell
        assert ours.reshape(-1)[np.argmax(cells @ slope)] == 0
