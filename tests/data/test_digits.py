"""The handwritten digits: real pixels, a fixed split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fgvce_jax.data import open_dataset
from fgvce_jax.data.digits import Digits
from fgvce_jax.errors import InputError


@pytest.fixture(scope="module")
def splits():
    return {split: open_dataset("digits", split) for split in ("train", "test")}


def test_splits_cover_the_data_once_with_its_labels(splits):
    ids = [*splits["train"].ids, *splits["test"].ids]
    labels = np.concatenate([splits["train"].labels, splits["test"].labels])
    order = np.argsort(ids)
    assert [ids[i] for i in order] == [f"digit-{i:04d}" for i in range(1797)]
    assert np.array_equal(labels[order], load_digits().target)


def test_split_is_stratified_and_fixed(splits):
    share = np.bincount(splits["test"].labels) / np.bincount(load_digits().target)
    assert np.all(np.abs(share - 0.2) < 0.01)
    # The fifth zero of scikit-learn's order is the first zero of the test split.
    fifth = np.flatnonzero(load_digits().target == 0)[4]
    first = splits["test"].ids[np.flatnonzero(splits["test"].labels == 0)[0]]
    assert first == f"digit-{fifth:04d}"
    assert Digits("test").ids == splits["test"].ids


def test_images_are_the_originals_enlarged(splits):
    example = splits["train"][100]
    original = load_digits().images[int(example.id.removeprefix("digit-"))]
    assert example.image.shape == (32, 32, 3)
    assert example.image.dtype == np.uint8
    assert np.all(example.image == example.image[..., :1])
    # Bicubic enlargement overshoots at edges, but its averages stay close to the original.
    blocks = example.image[..., 0].reshape(8, 4, 8, 4).mean((1, 3))
    assert np.abs(blocks - original * 255 / 16).max() < 60
    assert np.corrcoef(blocks.ravel(), original.ravel())[0, 1] > 0.98


def test_original_size_is_exact():
    digits = Digits("train", size=8)
    number = int(digits.ids[3].removeprefix("digit-"))
    expected = np.round(load_digits().images[number] * 255 / 16)
    assert np.array_equal(digits[3].image[..., 0], expected)
    assert digits[3].label == load_digits().target[number]


def test_wrong_arguments_are_named(splits):
    with pytest.raises(InputError, match="unknown split 'val'; expected one of train, test"):
        Digits("val")
    with pytest.raises(InputError, match="size 4"):
        Digits("test", size=4)
    with pytest.raises(IndexError, match="index 355"):
        splits["test"][355]
