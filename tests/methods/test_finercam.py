"""Finer-CAM against NumPy, gradients by differences."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import gradient, softmax
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.finercam import nearest_classes


def finer_target(logits, c, references, strength, even):
    """The score that the authors' code takes the gradient of, or the paper's."""
    gaps = np.array([logits[c] - strength * logits[r] for r in references])
    if even:
        return gaps.mean()
    p = softmax(logits)[references]
    return (p * gaps).sum() / (p.sum() + 1e-9)


@pytest.mark.parametrize("kind", ["pooled", "dense"])
@pytest.mark.parametrize("even", [False, True], ids=["code", "paper"])
def test_it_is_a_cam_of_the_class_less_its_references(kind, even):
    model = tiny(kind=kind, sharpness=3.0)
    images, classes, contrast = problems(model)
    options = {"weights": "even", "strength": 0.6} if even else {}
    maps = METHODS["finercam"](model.clf, images, classes, **options)
    fine = METHODS["finercam"](
        model.clf, images, classes, references=contrast[:, None], base="layercam", **options
    )
    for image, c, q, ours, ours_fine in zip(images, classes, contrast, maps, fine, strict=True):
        cells = model.features(image)
        logits = model.head(cells)
        others = [k for k in range(5) if k != c]
        references = sorted(others, key=lambda k, z=logits, c=c: abs(z[k] - z[c]))[:3]

        def slope(held, cells=cells, c=c):
            strength = 0.6 if even else 1.0
            score = lambda h: finer_target(model.head(h), c, held, strength, even)  # noqa: E731
            return gradient(score, cells)

        expected = np.maximum((slope(references).mean((0, 1)) * cells).sum(-1), 0)
        np.testing.assert_allclose(ours, expected, rtol=5e-4, atol=2e-4 * expected.max() + 1e-6)
        expected = (np.maximum(slope([q]), 0) * cells).sum(-1)
        np.testing.assert_allclose(ours_fine, expected, rtol=5e-4, atol=2e-4 * expected.max())
    assert np.asarray(maps).max() > 0
    assert np.asarray(fine).max() > 0


def test_references_are_the_classes_with_the_nearest_logits():
    logits = jnp.float32([[5, 1, 4, 7, 6.5], [0, 0, 0, 0, 9]])
    found = nearest_classes(logits, jnp.int32([0, 4]), 3)
    np.testing.assert_array_equal(found, [[2, 4, 3], [0, 1, 2]])


def test_there_are_no_more_references_than_other_classes():
    model = tiny(sharpness=3.0)
    images, classes, _ = problems(model, count=2)
    four, nine = (METHODS["finercam"](model.clf, images, classes, num_references=n) for n in (4, 9))
    np.testing.assert_array_equal(four, nine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "equal"}, "weights 'equal': expected probability or even"),
        ({"base": "ig"}, "base 'ig': expected gradcam, gradcampp or layercam"),
        ({"num_references": 0}, "num_references 0: expected 1 or more"),
    ],
)
def test_what_is_refused(options, message):
    model = tiny()
    images, classes, _ = problems(model, count=1)
    with pytest.raises(fg.InputError, match=message):
        METHODS["finercam"](model.clf, images, classes, **options)
