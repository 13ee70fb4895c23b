"""CCE and its attack, held to a plain loop with gradients written out by hand."""

import inspect

import jax
import numpy as np
import pytest
import reference
from tiny import PATCH, N, partition_weight, problems, tiny

from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cams import layercam
from fgvce_jax.methods.cce import cce, pgd


def image_gradient(model, image, q):
    """d J(logits, q) / d image for the pooled head."""
    cells = model.features(image)
    slope = reference.softmax(model.head(cells))
    slope[q] -= 1
    per_cell = np.float64(model.clf.head.kernel) @ slope / (N * N)
    out = np.zeros(image.shape)
    for i in range(N):
        for j in range(N):
            back = model.kernel @ (per_cell * (cells[i, j] > 0))
            out[i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH] = back.reshape(
                PATCH, PATCH, 3
            )
    return out


def attack(model, image, q, noise, eps, step, steps):
    def project(x):
        return np.clip(np.clip(x, image - eps, image + eps), 0, 1)

    image = np.float64(image)
    x, count = project(image + noise), 0
    while np.argmax(model.head(model.features(x))) != q and count < steps:
        x = project(x - step * np.sign(image_gradient(model, x, q)))
        count += 1
    return x, np.argmax(model.head(model.features(x))) == q, count


def gradcam(model, image, c):
    cells = model.features(image)
    weights = np.float64(model.clf.head.kernel)[:, c] / (N * N)
    return np.maximum(cells @ weights, 0)


@pytest.fixture(scope="module")
def case():
    model = tiny()
    images, predicted, contrast = problems(model, count=8)
    noise = np.random.default_rng(3).uniform(-0.1, 0.1, images.shape).astype(np.float32)
    options = {"eps": 0.1, "step": 0.03, "steps": 5, "noise": noise}
    attacked = [
        attack(model, image, q, start, 0.1, 0.03, 5)
        for image, q, start in zip(images, contrast, noise, strict=True)
    ]
    return model, images, predicted, contrast, options, attacked


def test_the_attack_takes_the_steps_of_a_plain_loop(case):
    model, images, _, contrast, options, attacked = case
    out = pgd(model.clf, images, contrast, **options)
    for ours, flipped, count, expected in zip(
        out.images, out.flipped, out.num_steps, attacked, strict=True
    ):
        np.testing.assert_allclose(ours, expected[0], atol=1e-6)
        assert bool(flipped) == expected[1]
        assert int(count) == expected[2]
    counts = [count for _, _, count in attacked]
    assert len(set(counts)) > 2  # some end early, some never
    assert not all(flipped for _, flipped, _ in attacked)
    assert np.abs(out.images - images).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("sp_sigma", [None, 0.8])
@pytest.mark.parametrize("region", ["invariant", "dominant"])
def test_cce_is_the_positive_difference_of_maps(case, region, sp_sigma):
    model, images, predicted, contrast, options, attacked = case
    maps = METHODS["cce"](
        model.clf, images, predicted, contrast, region=region, sp_sigma=sp_sigma, **options
    )
    for image, p, q, (after, *_), ours in zip(
        images, predicted, contrast, attacked, maps, strict=True
    ):
        c, with_it, without = (p, image, after) if region == "invariant" else (q, after, image)
        expected = gradcam(model, with_it, c) - gradcam(model, without, c)
        expected = np.maximum(expected, 0)
        if sp_sigma is not None:
            expected = expected * partition_weight(model.head, model.features(with_it), c, sp_sigma)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.asarray(maps).max() > 0


def test_the_saliency_can_be_another_attribution(case):
    model, images, predicted, contrast, options, _ = case
    after = pgd(model.clf, images, contrast, **options).images
    expected = jax.nn.relu(
        layercam(model.clf, images, predicted) - layercam(model.clf, after, predicted)
    )
    ours = METHODS["cce"](model.clf, images, predicted, contrast, attribution=layercam, **options)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_an_image_already_of_the_target_is_not_attacked(case):
    model, images, predicted, *_ = case
    out = pgd(model.clf, images, predicted)
    np.testing.assert_array_equal(out.num_steps, 0)
    np.testing.assert_array_equal(out.images, images)
    assert bool(out.flipped.all())


def test_the_default_attack_has_the_documented_size(case):
    """At most 20 steps of 0.05, within 0.1 of the image, and no noise before the first."""
    model, images, _, contrast, *_ = case
    out = pgd(model.clf, images, contrast)
    expected = [
        attack(model, image, q, 0, 0.1, 0.05, 20) for image, q in zip(images, contrast, strict=True)
    ]
    for ours, count, (image, _, steps) in zip(out.images, out.num_steps, expected, strict=True):
        np.testing.assert_allclose(ours, image, atol=1e-6)
        assert count == steps
    counts = [steps for *_, steps in expected]
    assert max(counts) == 20  # an attack that fails
    assert len(set(counts)) > 2


def test_cce_attacks_as_pgd_does_by_default(case):
    model, images, predicted, contrast, *_ = case
    after = pgd(model.clf, images, contrast).images
    expected = np.stack(
        [
            np.maximum(gradcam(model, image, p) - gradcam(model, attacked, p), 0)
            for image, attacked, p in zip(images, np.asarray(after), predicted, strict=True)
        ]
    )
    ours = METHODS["cce"](model.clf, images, predicted, contrast)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    # Whatever a further step would change: the defaults of the two signatures are one.
    for name in ("eps", "step", "steps", "noise"):
        both = [inspect.signature(f).parameters[name].default for f in (cce, pgd)]
        assert both[0] == both[1]
