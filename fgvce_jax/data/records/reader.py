"""One split of prepared records, read in any order."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float
from PIL import ExifTags, Image

from fgvce_jax.config import DataConfig
from fgvce_jax.data.decode import decode
from fgvce_jax.data.example import Example
from fgvce_jax.data.records.builder import PREPARE_AGAIN, RecordBuilder
from fgvce_jax.errors import InputError, UnreadableImage

PIXEL_CENTRE = 0.5  # annotators click on whole pixels; an `Example` measures from the corner


class RecordDataset:
    """One split of a prepared dataset, a `Dataset`.

    Attributes:
        notes: Faults of single images of either split that were found when they were prepared.

    Args:
        split: "train" or "test".
        path: The folder it was prepared in; by default TFDS's own.
        max_pixels: Of an image; a larger one is not decoded.

    Raises:
        InputError: Nothing prepared there, an unknown split, or a file that is missing.
    """

    part_names: tuple[str, ...] = ()
    builder_cls: type[RecordBuilder]

    def __init__(
        self,
        split: str,
        path: str | os.PathLike | None = None,
        max_pixels: int = DataConfig.max_pixels,
    ):
        self.split, self.path, self.max_pixels = split, path, max_pixels
        builder: Any = self.builder_cls(data_dir=None if path is None else os.path.expanduser(path))
        if not builder.data_path.exists():
            raise InputError(
                f"{builder.data_dir}: no {builder.name} is prepared there; expected the files that "
                "`fgvce prepare` writes"
            )
        metadata = builder.metadata
        if split not in metadata["splits"]:
            known = ", ".join(metadata["splits"])
            raise InputError(f"{builder.name}: unknown split {split!r}; expected one of {known}")
        listed = metadata["splits"][split]
        self.labels = np.array(listed["labels"], np.int32)
        self.ids: Sequence[str] = tuple(listed["ids"])
        self.keypoint_names: tuple[str, ...] = tuple(metadata["keypoint_names"])
        self.class_names: tuple[str, ...] = tuple(map(self.readable, builder.label_feature.names))
        self.notes = tuple(metadata["notes"])
        self._unreadable = metadata["unreadable"]
        info = builder.info.splits[split]
        self._shards = [Path(path) for path in info.filepaths]
        self._ends = np.cumsum(info.shard_lengths)
        for shard in self._shards:
            if not shard.exists():
                raise InputError(f"{shard}: missing; {PREPARE_AGAIN}")
        self._records = builder.as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )

    @staticmethod
    def readable(class_name: str) -> str:
        """An official class name as people read it."""
        return class_name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        """`UnreadableImage` if it was so when prepared, `InputError` if its shard is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index}: expected 0 to {len(self) - 1}")
        id, label = self.ids[index], int(self.labels[index])
        if id in self._unreadable:
            raise UnreadableImage(id, self._unreadable[id])
        record = self._record(index)
        image = decode(record["image"], id, self.max_pixels)
        if not self.keypoint_names:
            return Example(image, label, id)
        keypoints = record["keypoints"] + np.array([PIXEL_CENTRE, PIXEL_CENTRE, 0], np.float32)
        with Image.open(io.BytesIO(record["image"])) as file:
            orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        keypoints = _turn_upright(keypoints, orientation, image.shape[1], image.shape[0])
        return Example(image, label, id, keypoints)

    def boxes(self, index: int) -> Float[np.ndarray, "N 4"]:
        """The example's bounding boxes, float32 [N, 4]: x, y, width, height in stored pixels."""
        return self._record(index)["boxes"]

    def _record(self, index: int) -> dict[str, Any]:
        try:
            record = self._records[index]
            why = "holds other records"
        # The record reader has no error class of its own, nor have the parsers behind it.
        except Exception as error:
            record, why = None, " ".join(str(error).split())
        # A file that is cut short may give empty records, and no error.
        if record is None or (record["id"] or b"").decode() != self.ids[index]:
            shard = self._shards[np.searchsorted(self._ends, index, side="right")]
            raise InputError(f"{shard}: damaged ({why}); {PREPARE_AGAIN}")
        return record

    def __reduce__(self):  # readers of open files do not travel to worker processes
        return (type(self), (self.split, self.path, self.max_pixels))


def _turn_upright(
    keypoints: Float[np.ndarray, "P 3"], orientation: int, width: int, height: int
) -> Float[np.ndarray, "P 3"]:
    """Keypoints of an image as stored, with that EXIF orientation, moved to where they are upright.

    The width and height are the upright image's.
    """
    x, y, visible = np.asarray(keypoints, np.float32).T
    if orientation in (5, 6, 7, 8):  # stored lying on a side
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return np.column_stack([x, y, visible])
