"""Which pictures serve a setting, and classifiers that number the birds otherwise."""

import numpy as np
import pytest

from fgvce_jax import Classifier
from fgvce_jax.data.birds import CLASS_NAMES, siblings
from fgvce_jax.errors import InputError
from fgvce_jax.key.samples import class_numbers, of_chunk, viewed, viewed_masks

NEAR, OTHER = siblings(0)[:2]
FAR = next(k for k in range(1, 50) if k not in siblings(0))


def seeing(size, resize_to=None, names=CLASS_NAMES):
    """A classifier of which only its view and its classes matter."""
    return Classifier(lambda x: x, lambda h: h, 50, size, names, resize_to)


def logits(**values):
    """Of a bird of class 0; all that is not named is -9."""
    out = np.full(50, -9.0, np.float32)
    out[[{"own": 0, "near": NEAR, "other": OTHER, "far": FAR}[name] for name in values]] = list(
        values.values()
    )
    return out


@pytest.mark.parametrize(
    ("values", "settings", "predicted", "target"),
    [
        ({"own": 0.0, "near": 1.0}, (True, False, False), NEAR, 0),
        ({"own": 0.0, "far": 1.0}, (False, False, False), FAR, 0),  # differs in more than a part
        ({"own": 1.0, "near": 0.5, "other": 0.4}, (False, True, False), 0, NEAR),
        ({"own": 1.0, "near": 0.4, "other": 0.5, "far": 0.9}, (False, True, False), 0, OTHER),
        # p = 1 / (1 + e^-2.19) = 0.8993, and 0.9002 for 2.2; the other 48 classes have 1e-4 each
        ({"own": 2.15, "near": 0.0}, (False, True, False), 0, NEAR),
        ({"own": 2.40, "near": 0.0}, (False, True, True), 0, NEAR),
    ],
)
def test_the_setting_of_a_picture(values, settings, predicted, target):
    index, labels = np.array([7]), np.array([0])
    found = of_chunk(index, labels, logits(**values)[None])
    assert tuple(found.settings[0].tolist()) == settings
    assert (found.predicted[0], found.target[0], found.truth[0]) == (predicted, target, 0)


def test_a_mask_moves_with_its_image():
    """Resized to 8 and cut to the middle 4: a mask of the left half keeps two of four columns."""
    clf = seeing(4, 8)
    masks = np.zeros((1, 1, 16, 16), bool)
    masks[..., :8] = True
    np.testing.assert_array_equal(viewed_masks(masks, clf)[0, 0], [[True, True, False, False]] * 4)
    images = np.repeat(masks[0, 0, ..., None] * np.uint8(200), 3, axis=-1)[None]
    assert viewed(images, clf).shape == (1, 4, 4, 3)
    same = seeing(16)
    np.testing.assert_array_equal(viewed_masks(masks, same), masks)


def test_classes_are_found_by_their_names():
    backwards = seeing(4, names=CLASS_NAMES[::-1])
    np.testing.assert_array_equal(class_numbers(backwards), np.arange(50)[::-1])
    other = seeing(4, names=(*CLASS_NAMES[1:], "Owl"))
    with pytest.raises(
        InputError,
        match=r"^model: expected the 50 classes of the birds, got 50, "
        rf"without '{CLASS_NAMES[0]}'$",
    ):
        class_numbers(other)
