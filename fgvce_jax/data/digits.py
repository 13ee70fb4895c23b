"""`digits`: scikit-learn's handwritten digits, real data that needs no download.

1,797 digits of 8x8 pixels with 17 grey levels, from the test part of the UCI Optical Recognition of
Handwritten Digits data (Alpaydin and Kaynak, 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Int
from PIL import Image

from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError, MissingPackage


class Digits:
    """One split of the digits, a `Dataset`; white ink on black.

    Of every class each fifth example, in scikit-learn's order, belongs to "test". Ids name an
    example's place in that order.

    Args:
        split: "train" (1,442) or "test" (355).
        size: Side of the images in pixels; the 8x8 originals are enlarged bicubically.

    Raises:
        InputError: Unknown split, a size below 8, or scikit-learn is not installed.
    """

    class_names: tuple[str, ...] = tuple("0123456789")
    keypoint_names: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()

    def __init__(self, split: str, size: int = 32):
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingPackage("dataset digits", "scikit-learn", "digits") from error

        if split not in ("train", "test"):
            raise InputError(f"digits: unknown split {split!r}; expected one of train, test")
        if size < 8:
            raise InputError(f"digits: size {size}; expected at least 8 pixels")
        self.size = size
        digits = cast(Any, load_digits())  # a Bunch, unless asked for a tuple
        places = [np.flatnonzero(digits.target == digit) for digit in range(10)]
        is_test = np.isin(np.arange(len(digits.target)), np.concatenate([p[4::5] for p in places]))
        kept = np.flatnonzero(is_test == (split == "test"))
        self.labels: Int[np.ndarray, " N"] = digits.target[kept].astype(np.int32)
        self.ids: Sequence[str] = tuple(f"digit-{i:04d}" for i in kept)
        self._grey = np.round(digits.images[kept] * (255 / 16)).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; raises IndexError outside the split."""
        if not 0 <= index < len(self):
            raise IndexError(f"digits: index {index} outside a split of {len(self)}")
        small = Image.fromarray(self._grey[index])
        grey = np.asarray(small.resize((self.size, self.size), Image.Resampling.BICUBIC))
        image = np.repeat(grey[..., None], 3, axis=-1)
        return Example(image, int(self.labels[index]), self.ids[index])
