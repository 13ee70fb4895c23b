"""Images of a dataset, kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fgvce_jax.data.example import Example


class CachedDataset:
    """A dataset that draws its images, drawn once and kept in memory; a `Dataset`.

    For training, which meets every image in every epoch. Images are uint8, so 20,000 of 112 x 112
    pixels take 750 MB. Part masks and keypoints are not kept. The dataset has `images(indices)`,
    uint8 [b, S, S, 3]; `advance` is called with the number of images drawn, chunk by chunk.
    """

    in_memory = True
    _CHUNK = 100

    def __init__(self, dataset: Any, advance: Callable[[int], None]):
        self.class_names = dataset.class_names
        self.keypoint_names = self.part_names = ()
        self.labels, self.ids = dataset.labels, dataset.ids
        self._images = np.empty((len(dataset), *dataset[0].image.shape), np.uint8)
        for start in range(0, len(dataset), self._CHUNK):
            chunk = range(start, min(start + self._CHUNK, len(dataset)))
            self._images[start : start + len(chunk)] = dataset.images(chunk)
            advance(len(chunk))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        return Example(self._images[index], int(self.labels[index]), self.ids[index])
