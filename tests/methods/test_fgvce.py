"""FG-VCE as methods: the pipeline's maps, its ablations, and other attributions as weight."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.config import SearchConfig
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cams import gradcam
from fgvce_jax.methods.fgvce import EditedFeatures, fgvce, weighted_maps


@pytest.fixture(scope="module")
def case():
    model = tiny()
    images, predicted, _ = problems(model, count=60)
    bank = fg.build_bank(
        model.clf, images[12:], predicted[12:], fg.BankConfig(per_class=3, top_m=4)
    )
    usable = np.array([k for k in range(5) if k not in bank.missing()], np.int32)
    contrast = np.array([usable[usable != p][i % 2] for i, p in enumerate(predicted[:12])])
    return model, images[:12], predicted[:12], np.int32(contrast), bank


def by_hand(case, sigma=0.8):
    """Per sample (cells before, cells after) of the float64 reference."""
    model, images, _, contrast, bank = case
    for image, q in zip(images, contrast, strict=True):
        before = np.float64(np.float32(model.features(image)))
        candidates = np.asarray(bank.cells[bank.group[q]])[np.asarray(bank.valid[bank.group[q]])]
        after, edits, *_ = reference.counterfactual(model.head, before, q, candidates, sigma)
        yield before, after, edits


def share(a, b):
    d = np.maximum(a - b, 0).sum(-1)
    return d / d.sum() if d.sum() > 0 else d


def gradcam_by_hand(model, cells, c):
    return np.maximum(cells @ np.float64(model.clf.head.kernel)[:, c] / cells[..., 0].size, 0)


def test_the_maps_are_those_of_the_pipeline(case):
    model, images, predicted, contrast, bank = case
    out = fg.explain(model.clf, bank, images, contrast)
    assert int(out.num_edits.max()) > 1
    for name in ("invariant", "dominant"):
        maps = METHODS[f"fgvce_{name}"](model.clf, images, predicted, contrast, bank=bank)
        np.testing.assert_allclose(maps, getattr(out, name), atol=1e-6)
        assert np.abs(maps).max() > 0


@pytest.mark.parametrize("sigma", [0.8, 0.0])
def test_the_maps_are_those_of_the_definition_with_and_without_sp(case, sigma):
    model, images, predicted, contrast, bank = case
    # The reference searches the same candidates, so the bank's own sigma is not at issue here.
    bank = replace(bank, config=replace(bank.config, sigma=sigma))
    invariant, dominant = fgvce(
        model.clf, images, predicted, contrast, bank=bank, config=SearchConfig(sigma=sigma)
    )
    for b, (before, after, edits) in enumerate(by_hand(case, sigma)):
        assert edits
        expected = reference.contrastive_maps(
            model.head, before, after, predicted[b], contrast[b], sigma
        )
        np.testing.assert_allclose(invariant[b], expected[0], atol=1e-5)
        np.testing.assert_allclose(dominant[b], expected[1], atol=1e-5)


@pytest.mark.parametrize("times", [False, True])
def test_an_attribution_can_be_the_weight(case, times):
    model, images, predicted, contrast, bank = case
    invariant, dominant = fgvce(
        model.clf,
        images,
        predicted,
        contrast,
        bank=bank,
        weight=gradcam,
        times_contributions=times,
    )
    for b, (before, after, _) in enumerate(by_hand(case)):
        p, q = predicted[b], contrast[b]
        weights = gradcam_by_hand(model, before, p), gradcam_by_hand(model, after, q)
        if times:
            weights = (
                weights[0] * reference.contributions(model.head, before, p, 0.8),
                weights[1] * reference.contributions(model.head, after, q, 0.8),
            )
        np.testing.assert_allclose(invariant[b], weights[0] * share(before, after), atol=1e-5)
        np.testing.assert_allclose(dominant[b], weights[1] * share(after, before), atol=1e-5)


def test_a_weight_that_looks_at_other_images_sees_them_edited(case):
    """Edited cells stay, whatever the image; the others are the image's own."""
    model, images, *_ = case
    replaced = np.zeros((4, 4), bool)
    replaced[1, 2] = True
    other = np.full((4, 4, 8), 7, np.float32)
    edited = EditedFeatures(model.clf.features, jnp.asarray(replaced), jnp.asarray(other))
    cells = np.asarray(edited(images).cells)
    own = np.asarray(model.clf.features(images))
    np.testing.assert_array_equal(cells[:, replaced], 7)
    np.testing.assert_array_equal(cells[:, ~replaced], own[:, ~replaced])


def test_contributions_are_those_of_the_definition(case):
    model, images, predicted, *_ = case
    maps = METHODS["contributions"](model.clf, images, predicted, sigma=0.5)
    for image, p, ours in zip(images, predicted, maps, strict=True):
        expected = reference.contributions(model.head, model.features(image), p, 0.5)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_classifier_is_an_argument_of_the_compiled_program(case):
    """Other weights of the same shapes are not compiled again."""
    model, images, predicted, contrast, bank = case
    first = fgvce(model.clf, images, predicted, contrast, bank=bank)[0]
    compiled = weighted_maps._cache_size()
    other = jax.tree.map(lambda leaf: leaf * 0.9, model.clf)
    second = fgvce(other, images, predicted, contrast, bank=bank)[0]
    assert weighted_maps._cache_size() == compiled
    assert np.abs(first - second).max() > 0
