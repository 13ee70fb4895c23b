"""CUB-200-2011: 11,788 photographs of 200 bird species with 15 part locations.

Wah, Branson, Welinder, Perona and Belongie, The Caltech-UCSD Birds-200-2011 Dataset, 2011.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fgvce_jax.data.archive import Files
from fgvce_jax.data.records import ListedImage, Listing, RecordBuilder, RecordDataset, url_info
from fgvce_jax.errors import InputError


class CubBuilder(RecordBuilder):
    """TFDS builder `cub_200_2011_parts`; see `RecordBuilder` for its arguments."""

    name = "cub_200_2011_parts"
    HOMEPAGE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    DESCRIPTION = (
        "CUB-200-2011 with bounding boxes, the official split and 15 part locations; "
        "11,788 images of 200 bird species, 5,994 to train and 5,794 to test."
    )
    CITATION = """@techreport{WahCUB_200_2011,
  title = {{The Caltech-UCSD Birds-200-2011 Dataset}},
  author = {Wah, C. and Branson, S. and Welinder, P. and Perona, P. and Belongie, S.},
  year = {2011},
  institution = {California Institute of Technology},
  number = {CNS-TR-2011-001},
}"""
    url_infos: ClassVar = {
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1": url_info(
            1150585339,
            "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            "CUB_200_2011.tgz",
        )
    }
    KEYPOINTS = 15
    ARCHIVES: ClassVar = {"CUB_200_2011.tgz": r"(^|/)images\.txt$"}

    def list_images(self, files: Files, keypoints: Path | None) -> Listing:
        return read_listing(files)


class Cub(RecordDataset):
    """One split of a prepared CUB-200-2011; see `RecordDataset` for its arguments."""

    builder_cls = CubBuilder

    @staticmethod
    def readable(class_name: str) -> str:
        """ "001.Black_footed_Albatross" -> "Black footed Albatross"."""
        return class_name.partition(".")[2].replace("_", " ")


def read_listing(files: Files) -> Listing:
    """Read the annotation files of the official archive.

    Raises:
        InputError: A missing file, a line of the wrong form, an image that one file lists and
            another does not, an image listed twice, a box without area, all with file and line.
    """
    found = files.matching(r"(^|/)images\.txt$")
    if not found:
        raise InputError(
            f"{files.where}: no images.txt; expected the CUB_200_2011 archive or folder"
        )
    files = files.below(found[0].removesuffix("images.txt"))
    images = _Table(files, "images.txt", "<image_id> <image_name>")
    first: dict[str, int] = {}
    for image_id, (name,) in images.items():
        number = images.numbers[image_id]
        if first.setdefault(name, number) != number:
            raise images.wrong(number, f"a name not yet on line {first[name]}")
    classes = _Table(files, "classes.txt", "<class_id> <class_name>")
    labels = _Table(files, "image_class_labels.txt", "<image_id> <class_id>")
    for image_id, (class_id,) in labels.items():
        if class_id not in classes:
            raise labels.wrong(labels.numbers[image_id], labels.form)
    training = _Table(files, "train_test_split.txt", "<image_id> <is_training_image>")
    form = "<image_id> <x> <y> <width> <height> with sides above 0"
    boxes = _Table(files, "bounding_boxes.txt", form)
    listed = {i: f"image {i} (images.txt, line {number})" for i, number in images.numbers.items()}
    for table in (labels, training, boxes):
        table.check_ids(listed, "an image_id of images.txt")
    parts, locations = _read_parts(files, images)

    class_ids, part_ids = sorted(classes), sorted(parts)
    splits: dict[str, list[ListedImage]] = {"train": [], "test": []}
    for image_id, (name,) in images.items():
        (is_training,), (class_id,) = training[image_id], labels[image_id]
        splits["train" if is_training else "test"].append(
            ListedImage(
                id=name,
                file=files.stored.get(f"images/{name}"),
                where=images.where(image_id),
                label=class_ids.index(class_id),
                boxes=np.array([boxes[image_id]], np.float32),
                keypoints=np.array([locations[image_id, p] for p in part_ids], np.float32),
                keypoints_where=lambda p, i=image_id: locations.where((i, part_ids[p])),
            )
        )
    return Listing([classes[i][0] for i in class_ids], [parts[i][0] for i in part_ids], splits)


def _read_parts(files: Files, images: _Table) -> tuple[_Table, _Table]:
    """The parts' names; and by (image_id, part_id) x, y and visible, for each of both."""
    parts = _Table(files, "parts/parts.txt", "<part_id> <part_name>")
    if len(parts) != CubBuilder.KEYPOINTS:
        raise InputError(f"{parts.shown}: {len(parts)} parts, expected {CubBuilder.KEYPOINTS}")
    form = "<image_id> <part_id> <x> <y> <visible>"
    locations = _Table(files, "parts/part_locs.txt", form, ids=2)
    wanted = {(i, p): f"the {name} of image {i}" for i in images for p, (name,) in parts.items()}
    locations.check_ids(wanted, "an image_id of images.txt, a part_id of parts.txt")
    return parts, locations


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _above_0(text: str) -> float:
    if (value := _finite(text)) <= 0:
        raise ValueError
    return value


# By column; each raises ValueError for a field that is wrong.
_PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("image_id", "class_id", "part_id"), int),
    **dict.fromkeys(("image_name", "class_name", "part_name"), str),
    **dict.fromkeys(("is_training_image", "visible"), ("0", "1").index),
    **dict.fromkeys(("x", "y"), _finite),
    **dict.fromkeys(("width", "height"), _above_0),
}


class _Table(dict[Any, list[Any]]):
    """The values of a file's lines by id, or by the first `ids` columns.

    Attributes:
        form: The columns, with parsers above; the last one runs to the line's end.
        numbers: The lines' numbers, by the same keys.
    """

    def __init__(self, files: Files, name: str, form: str, ids: int = 1):
        if name not in files.stored:
            raise InputError(f"{files.where}: no {name}; expected lines {form}")
        self.shown, self.form, self.numbers = files.shown(name), form, dict[Any, int]()
        self._lines = files.stored[name].read().decode("utf-8", errors="replace").splitlines()
        parsers = [_PARSERS[column] for column in re.findall(r"<(\w+)>", form)]
        for number, line in enumerate(self._lines, start=1):
            if not line.strip():
                continue
            fields = line.split(maxsplit=len(parsers) - 1)
            try:
                values = [parse(field) for parse, field in zip(parsers, fields, strict=True)]
            except ValueError:
                raise self.wrong(number, form) from None
            key = values[0] if ids == 1 else tuple(values[:ids])
            if key in self:
                first = f"an id not yet on line {self.numbers[key]}"
                raise self.wrong(number, first if ids == 1 else "each part of an image once")
            self[key], self.numbers[key] = values[ids:], number
        if not self:
            raise InputError(f"{self.shown}: empty; expected lines {form}")

    def where(self, key: Any) -> str:
        return f"{self.shown}, line {self.numbers[key]}"

    def wrong(self, number: int, expected: str) -> InputError:
        text = self._lines[number - 1]
        return InputError(f"{self.shown}, line {number}: expected {expected}, got {text!r}")

    def check_ids(self, wanted: Mapping[Any, str], expected: str) -> None:
        """`InputError` for an id that is not `wanted`, or for one that is, by name, but absent."""
        for key, number in self.numbers.items():
            if key not in wanted:
                raise self.wrong(number, expected)
        for key, name in wanted.items():
            if key not in self:
                raise InputError(f"{self.shown}: no line for {name}; expected {self.form}")
