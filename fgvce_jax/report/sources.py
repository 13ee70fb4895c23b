"""The images of a run, read again for its report: each once, or the reason why it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fgvce_jax.data.example import Dataset, Example
from fgvce_jax.data.pipeline import move_keypoints, preprocess
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.pictures import data_uri

LARGEST = 224
"""The side of the pictures in a report, in pixels; larger ones are scaled down."""


@dataclass(frozen=True)
class View:
    """From an image to what the classifier received of it.

    Attributes:
        image_size, resize_to: Of the classifier, as for `data.pipeline.preprocess`.
    """

    image_size: int
    resize_to: int | None = None

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        return preprocess(image, self.image_size, self.resize_to)

    def keypoints(self, example: Example) -> Float[np.ndarray, "P 3"]:
        """The keypoints of an example that has some, in what the classifier received."""
        assert example.keypoints is not None
        height, width = example.image.shape[:2]
        return move_keypoints(example.keypoints, height, width, self.image_size, self.resize_to)


class Seen(NamedTuple):
    """An image of a run.

    Attributes:
        example: As the dataset has it; None where it is gone.
        image: As the classifier received it; None where it is gone.
        gone: Why.
    """

    example: Example | None
    image: UInt8[np.ndarray, "S S 3"] | None
    gone: str | None

    @property
    def picture(self) -> str | None:
        """The image as a data URI."""
        return None if self.image is None else thumbnail(self.image)


class Source:
    """A split whose images a run names by index and id."""

    def __init__(self, dataset: Dataset | None, view: View):
        """`dataset` is None where the split cannot be opened any more."""
        self._dataset, self._view = dataset, view
        self._found = self._gone = 0

    def __call__(self, index: int, id: str) -> Seen:
        """An image of the run, at its index or wherever the split has its id now."""
        if self._dataset is None:
            return Seen(None, None, "the data that this run read are gone")
        try:
            example = self._read(self._dataset, index, id)
        except UnreadableImage as error:
            self._gone += 1
            return Seen(None, None, f"this image cannot be read any more: {error.why}")
        if example is None:
            self._gone += 1
            return Seen(None, None, "this image is gone from the data")
        self._found += 1
        return Seen(example, self._view(example.image), None)

    def _read(self, dataset: Dataset, index: int, id: str) -> Example | None:
        if index < len(dataset) and dataset.ids[index] == id:
            return dataset[index]
        places = self.__dict__.setdefault("_places", {i: k for k, i in enumerate(dataset.ids)})
        return dataset[places[id]] if id in places else None

    def check(self, where: str) -> None:
        """InputError where the data have none of the images asked for: they are others."""
        if self._dataset is not None and self._gone and not self._found:
            raise InputError(f"{where}: expected the images of the run, the data have none of them")


def thumbnail(image: UInt8[np.ndarray, "S S 3"]) -> str:
    """An image as a data URI, at most `LARGEST` pixels wide."""
    picture = Image.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
    return data_uri(picture)
