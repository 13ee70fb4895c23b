"""CUB-200-2011: 11,788 photographs of 200 bird species with 15 part locations.

Wah, Branson, Welinder, Perona and Belongie, The Caltech-UCSD Birds-200-2011 Dataset, 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    files = _official_folder(files)
    images = _image_names(files)
    classes = _by_id(files, "classes.txt", "<class_id> <class_name>", (int, str))
    label_of = {class_id: label for label, class_id in enumerate(sorted(classes))}
    labels = _by_image(
        files,
        images,
        "image_class_labels.txt",
        "<image_id> <class_id>",
        (int, int),
        lambda class_id: class_id in label_of,
    )
    training = _by_image(
        files,
        images,
        "train_test_split.txt",
        "<image_id> <is_training_image>",
        (int, int),
        lambda is_training: is_training in (0, 1),
    )
    boxes = _by_image(
        files,
        images,
        "bounding_boxes.txt",
        "<image_id> <x> <y> <width> <height> with sides above 0",
        (int, float, float, float, float),
        lambda *box: bool(np.isfinite(box).all()) and min(box[2:]) > 0,
    )
    part_names, parts, part_lines = _read_parts(files, images)

    splits: dict[str, list[ListedImage]] = {"train": [], "test": []}
    for image_id, line in images.items():
        (image_name,) = line.values
        file = f"images/{image_name}"
        splits["train" if training[image_id].values[0] else "test"].append(
            ListedImage(
                id=image_name,
                file=files.open(file) if file in files.stored else None,
                where=f"{files.shown('images.txt')}, line {line.number}",
                label=label_of[labels[image_id].values[0]],
                boxes=np.array([boxes[image_id].values], np.float32),
                keypoints=parts[image_id],
                keypoints_where=lambda p, lines=part_lines[image_id]: (
                    f"{files.shown('parts/part_locs.txt')}, line {lines[p]}"
                ),
            )
        )
    class_names = [classes[class_id].values[0] for class_id in sorted(classes)]
    return Listing(class_names, part_names, splits)


class _Line:
    """A parsed line: its number, its text, and the values after the id."""

    __slots__ = ("number", "text", "values")

    def __init__(self, number: int, text: str, values: tuple):
        self.number, self.text, self.values = number, text, values


def _wrong(files: Files, name: str, line: _Line, expected: str) -> InputError:
    return InputError(
        f"{files.shown(name)}, line {line.number}: expected {expected}, got {line.text!r}"
    )


def _lines(
    files: Files, name: str, form: str, types: tuple, check: Callable[..., bool]
) -> Iterator[tuple[int, _Line]]:
    """The id and the rest of every line of a table of `types`, the last one to the line's end."""
    if name not in files.stored:
        raise InputError(f"{files.where}: no {name}; expected lines {form}")
    text = files.read(name).decode("utf-8", errors="replace")
    for number, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        fields = content.split(maxsplit=len(types) - 1)
        try:
            id, *values = (kind(value) for kind, value in zip(types, fields, strict=True))
            if not check(*values):
                raise ValueError
        except ValueError:
            raise _wrong(files, name, _Line(number, content, ()), form) from None
        yield id, _Line(number, content, tuple(values))


def _by_id(
    files: Files,
    name: str,
    form: str,
    types: tuple,
    check: Callable[..., bool] = lambda *_: True,
) -> dict[int, _Line]:
    table: dict[int, _Line] = {}
    for id, line in _lines(files, name, form, types, check):
        if id in table:
            raise _wrong(files, name, line, f"an id not yet on line {table[id].number}")
        table[id] = line
    if not table:
        raise InputError(f"{files.shown(name)}: empty; expected lines {form}")
    return table


def _official_folder(files: Files) -> Files:
    """The files below the folder that holds images.txt."""
    found = files.matching(r"(^|/)images\.txt$")
    if not found:
        raise InputError(
            f"{files.where}: no images.txt; expected the CUB_200_2011 archive or folder"
        )
    return files.below(found[0].removesuffix("images.txt"))


def _image_names(files: Files) -> dict[int, _Line]:
    """The lines of images.txt by image_id, no name twice."""
    images = _by_id(files, "images.txt", "<image_id> <image_name>", (int, str))
    first: dict[str, int] = {}
    for line in images.values():
        (image_name,) = line.values
        if image_name in first:
            raise _wrong(files, "images.txt", line, f"a name not yet on line {first[image_name]}")
        first[image_name] = line.number
    return images


def _by_image(
    files: Files,
    images: dict[int, _Line],
    name: str,
    form: str,
    types: tuple,
    check: Callable[..., bool],
) -> dict[int, _Line]:
    """The lines of a table that has one for each of `images`."""
    lines = _by_id(files, name, form, types, check)
    for image_id, line in images.items():
        if image_id not in lines:
            raise InputError(
                f"{files.shown(name)}: no line for image {image_id} (images.txt, line "
                f"{line.number}); expected {form}"
            )
    for image_id, line in lines.items():
        if image_id not in images:
            raise _wrong(files, name, line, "an image_id of images.txt")
    return lines


def _read_parts(
    files: Files, images: dict[int, Any]
) -> tuple[list[str], dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Part names; and for every image_id, its [15, 3] locations and the lines they stand on."""
    names = _by_id(files, "parts/parts.txt", "<part_id> <part_name>", (int, str))
    if len(names) != CubBuilder.KEYPOINTS:
        raise InputError(
            f"{files.shown('parts/parts.txt')}: {len(names)} parts, expected {CubBuilder.KEYPOINTS}"
        )
    place = {part_id: p for p, part_id in enumerate(sorted(names))}
    locations = {i: np.zeros((len(names), 3), np.float32) for i in images}
    lines = {i: np.zeros(len(names), np.int64) for i in images}
    form = "<image_id> <part_id> <x> <y> <visible>"
    types = (int, int, float, float, int)
    name = "parts/part_locs.txt"
    for image_id, line in _lines(
        files, name, form, types, lambda _, x, y, v: np.isfinite(x + y) and v in (0, 1)
    ):
        part_id, x, y, visible = line.values
        if image_id not in images or part_id not in place:
            raise _wrong(files, name, line, "an image_id of images.txt, a part_id of parts.txt")
        if lines[image_id][place[part_id]]:
            raise _wrong(files, name, line, "each part of an image once")
        locations[image_id][place[part_id]] = x, y, visible
        lines[image_id][place[part_id]] = line.number
    for image_id, numbers in lines.items():
        if not numbers.all():
            part = names[sorted(names)[int(np.argmin(numbers))]].values[0]
            raise InputError(
                f"{files.shown(name)}: no line for the {part} of image {image_id}; expected {form}"
            )
    return [names[part_id].values[0] for part_id in sorted(names)], locations, lines
