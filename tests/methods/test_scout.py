"""SCOUT, held to its definition with gradients by differences."""

import numpy as np
import pytest
import reference
from networks import some_images, vgg
from tiny import partition_weight, problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.models import ModelSpec


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_the_papers_reading_is_the_product_of_its_three_attributions(kind):
    model = tiny(kind=kind)
    images, predicted, contrast = problems(model)
    of_paper = {"reading": "paper"}
    maps = METHODS["scout"](model.clf, images, predicted, contrast, **of_paper)
    sharpened = METHODS["scout"](model.clf, images, predicted, contrast, **of_paper, sp_sigma=0.8)
    for image, p, q, ours, ours_sharpened in zip(
        images, predicted, contrast, maps, sharpened, strict=True
    ):
        cells = model.features(image)

        def attribution(score, cells=cells):
            return np.maximum((cells * reference.gradient(score, cells)).sum(-1), 0)

        for_p = attribution(lambda h, p=p: model.head(h)[p])
        for_q = attribution(lambda h, q=q: model.head(h)[q])
        sure = attribution(lambda h: reference.softmax(model.head(h)).max())
        expected = for_p * (for_q.max() - for_q) * sure
        scale = max(expected.max(), 1e-6)
        np.testing.assert_allclose(ours / scale, expected / scale, atol=1e-4)
        weight = partition_weight(model.head, cells, p)
        np.testing.assert_allclose(ours_sharpened / scale, expected * weight / scale, atol=1e-4)
    assert np.asarray(maps).max() > 0


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_by_default_it_is_that_of_the_authors_code(kind):
    """The confidence by the positive part of its gradient; negatives of P and Q are 1e-7."""
    model = tiny(kind=kind)
    images, predicted, contrast = problems(model)
    maps = METHODS["scout"](model.clf, images, predicted, contrast)
    of_paper = METHODS["scout"](model.clf, images, predicted, contrast, reading="paper")
    floors = 0
    for image, p, q, ours in zip(images, predicted, contrast, maps, strict=True):
        cells = model.features(image)
        for_p, for_q = (
            (cells * reference.gradient(lambda h, c=c: model.head(h)[c], cells)).sum(-1)
            for c in (p, q)
        )
        floors += (for_p < 0).sum()
        for_p, for_q = np.where(for_p < 0, 1e-7, for_p), np.where(for_q < 0, 1e-7, for_q)
        slope = reference.gradient(lambda h: reference.softmax(model.head(h)).max(), cells)
        sure = (cells * np.maximum(slope, 0)).sum(-1)
        expected = for_p * (for_q.max() - for_q) * sure
        scale = max(expected.max(), 1e-6)
        np.testing.assert_allclose(ours / scale, expected / scale, atol=1e-4)
        # Where P has nothing the order of the cells is that of the other two.
        low, small = expected[for_p == 1e-7], np.asarray(ours)[for_p == 1e-7]
        np.testing.assert_allclose(small, low, rtol=1e-2, atol=1e-12)
    assert floors > 0
    assert np.abs(np.asarray(of_paper) - maps).max() > 0.01 * np.asarray(maps).max()


def test_a_vgg_is_cut_at_its_last_relu_by_its_description():
    clf = vgg(ModelSpec("vgg16", cut="conv"), last_conv="features.28")
    images, classes = some_images(count=1)
    maps = METHODS["scout"](clf, images, classes, (classes + 1) % 5)
    assert maps.shape == (1, 2, 2)  # a sixteenth of 32 pixels; after the pool it is one cell
    assert np.asarray(maps).max() > 0


def test_another_reading_is_refused():
    model = tiny()
    with pytest.raises(fg.InputError, match="reading 'authors': expected code or paper"):
        METHODS["scout"](model.clf, *problems(model, count=1), reading="authors")


def test_a_class_against_itself_leaves_nothing_at_its_own_peak():
    model = tiny()
    images, predicted, _ = problems(model)
    maps = np.asarray(METHODS["scout"](model.clf, images, predicted, predicted))
    assert maps.max() > 0
    for image, p, ours in zip(images, predicted, maps, strict=True):
        cells = model.features(image)
        slope = np.float64(model.clf.head.kernel)[:, p]  # the same in every cell
        assert ours.reshape(-1)[np.argmax(cells @ slope)] == 0
