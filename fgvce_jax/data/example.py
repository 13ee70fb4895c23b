"""The one example format, and the interface of every dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


@dataclass(frozen=True)
class Example:
    """One image with its label and annotations.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        label: Index into the dataset's `class_names`.
        id: Names the example within its dataset; stable across runs.
        keypoints: float32 [P, 3]: x and y in pixels from the top left corner (a pixel's centre lies
            at half integers) and 1 where the point is visible, else 0; of an image that was not
            annotated, x and y are NaN. None where the dataset has none.
        part_masks: bool [M, H, W], the visible pixels of each part; None where unknown.
    """

    image: UInt8[np.ndarray, "H W 3"]
    label: int
    id: str
    keypoints: Float[np.ndarray, "P 3"] | None = None
    part_masks: Bool[np.ndarray, "M H W"] | None = None


@runtime_checkable  # so that annotations with it can be checked
class Dataset(Protocol):
    """Random access to the examples of one split.

    Attributes:
        class_names: A name per class.
        keypoint_names: A name per keypoint, empty where the dataset has none.
        part_names: A name per part mask, empty where the dataset has none.
        labels: int32 [N], known without decoding any image.
        ids: The examples' ids.
    """

    class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    part_names: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    ids: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; raises `errors.UnreadableImage` where it cannot be decoded."""
        ...
