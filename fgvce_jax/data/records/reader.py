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

from fgvce_jax.data import keypoints as kp
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

    Raises:
        InputError: Nothing prepared there, an unknown split, or a file that is missing.
    """

    part_names: tuple[str, ...] = ()
    builder_cls: type[RecordBuilder]

    def __init__(self, split: str, path: str | os.PathLike | None = None):
        self.split, self.path = split, path
        builder: Any = self.builder_cls.open(path)  # TFDS's annotations are those of its own use
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
        """`UnreadableImage` if it was when it was prepared, `InputError` if its shard is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index}: expected 0 to {len(self) - 1}")
        id, label = self.ids[index], int(self.labels[index])
        if id in self._unreadable:
            raise UnreadableImage(id, self._unreadable[id])
        record = self._record(index)
        image = decode(record["image"], id)
        keypoints = None
        if self.keypoint_names:
            keypoints = kp.turn_upright(
                record["keypoints"] + np.array([PIXEL_CENTRE, PIXEL_CENTRE, 0], np.float32),
                _stored_orientation(record["image"]),
                width=image.shape[1],
                height=image.shape[0],
            )
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
        return (type(self), (self.split, self.path))


def _stored_orientation(encoded: bytes) -> int:
    """The EXIF orientation of an image that `decode` can read, 1 where it has none."""
    with Image.open(io.BytesIO(encoded)) as file:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
