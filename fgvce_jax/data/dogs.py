"""Stanford Dogs: 20,580 photographs of 120 breeds; with StanfordExtra, 24 keypoints.

Khosla, Jayadevaprakash, Yao and Fei-Fei, Novel Dataset for Fine-Grained Image Categorization,
FGVC workshop at CVPR 2011. Keypoints: Biggs, Boyne, Charles, Fitzgibbon and Cipolla, Who Left the
Dogs Out?, ECCV 2020; their file comes from the authors, on request.
"""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from fgvce_jax.data.archive import Files
from fgvce_jax.data.records import ListedImage, Listing, RecordBuilder, RecordDataset, url_info
from fgvce_jax.errors import InputError, MissingPackage

_ADDRESS = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
_ARCHIVES = """
a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58 793579520 images.tar
662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd 21852160 annotation.tar
34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c 481280 lists.tar
"""  # SHA-256, bytes and name

KEYPOINT_NAMES = (
    *(
        f"{side} {end} {joint}"
        for side in ("left", "right")
        for end in ("front", "rear")
        for joint in ("paw", "middle joint", "leg top")
    ),
    *("tail start", "tail end", "left ear base", "right ear base", "nose", "chin"),
    *("left ear tip", "right ear tip", "left eye", "right eye", "withers", "throat"),
)


class DogsBuilder(RecordBuilder):
    """TFDS builder `stanford_dogs_keypoints`; see `RecordBuilder` for its arguments."""

    name = "stanford_dogs_keypoints"
    HOMEPAGE = _ADDRESS + "main.html"
    DESCRIPTION = (
        "Stanford Dogs with bounding boxes and the official split, and StanfordExtra's 24 "
        "keypoints where its file was given; 20,580 images of 120 breeds, 12,000 to train and "
        "8,580 to test."
    )
    CITATION = """@inproceedings{KhoslaYaoJayadevaprakashFeiFei_FGVC2011,
  title = {Novel Dataset for Fine-Grained Image Categorization},
  author = {Aditya Khosla and Nityananda Jayadevaprakash and Bangpeng Yao and Li Fei-Fei},
  booktitle = {First Workshop on Fine-Grained Visual Categorization, CVPR},
  year = {2011},
}
@inproceedings{biggs2020wldo,
  title = {{W}ho left the dogs out? {3D} animal reconstruction with expectation maximization},
  author = {Biggs, Benjamin and Boyne, Ollie and Charles, James and Fitzgibbon, Andrew and
    Cipolla, Roberto},
  booktitle = {ECCV},
  year = {2020},
}"""
    url_infos: ClassVar = {
        _ADDRESS + name: url_info(int(size), checksum, name)
        for checksum, size, name in map(str.split, _ARCHIVES.strip().splitlines())
    }
    KEYPOINTS = len(KEYPOINT_NAMES)
    KEYPOINT_FILE = "StanfordExtra_v12.json"
    ARCHIVES: ClassVar = {
        "images.tar": r"\.jpg$",
        "annotation.tar": r"(^|/)Annotation/",
        "lists.tar": r"(^|/)train_list\.mat$",
    }

    def list_images(self, files: Files, keypoints: Path | None) -> Listing:
        return read_listing(files, keypoints)


class Dogs(RecordDataset):
    """One split of prepared Stanford Dogs; see `RecordDataset` for its arguments."""

    builder_cls = DogsBuilder

    @staticmethod
    def readable(class_name: str) -> str:
        """ "n02085620-Chihuahua" -> "Chihuahua"."""
        return class_name.partition("-")[2].replace("_", " ")


def read_listing(files: Files, keypoints: Path | None = None) -> Listing:
    """Read the official lists, the annotations' boxes and StanfordExtra.

    `files` are those of images.tar, annotation.tar and lists.tar; without `keypoints`, which is
    StanfordExtra_v12.json, the listing has none.

    Raises:
        InputError: A list that is missing or of the wrong form, no annotation at all or one that
            cannot be read, a keypoint file of another version or of other images.
    """
    image_of = {_last_two(name): files.stored[name] for name in files.matching(r"\.jpg$")}
    boxes_of = {_last_two(name): name for name in files.matching(r"(^|/)Annotation/[^/]+/[^/]+$")}
    if not boxes_of:
        raise InputError(
            f"{files.where}: no annotation; expected Annotation/<class>/<image> there, or "
            "annotation.tar"
        )
    points_of = {} if keypoints is None else read_keypoints(keypoints)
    unknown = np.tile(np.array([np.nan, np.nan, 0], np.float32), (len(KEYPOINT_NAMES), 1))

    notes: list[str] = []
    splits: dict[str, list[ListedImage]] = {"train": [], "test": []}
    class_of: dict[int, str] = {}
    for split, images in splits.items():
        for image_name, label, where in _read_list(files, f"{split}_list.mat"):
            class_name = image_name.partition("/")[0]
            if class_of.setdefault(label, class_name) != class_name:
                raise InputError(
                    f"{where}: label {label + 1} of {class_name}, expected of {class_of[label]}"
                )
            boxes, note = _boxes(files, boxes_of, image_name, where)
            notes += note
            entry, points = points_of.get(image_name, (0, unknown))
            images.append(
                ListedImage(
                    id=image_name,
                    file=image_of.get(image_name),
                    where=where,
                    label=label,
                    boxes=boxes,
                    keypoints=points.astype(np.float32),
                    keypoints_where=lambda p, entry=entry: f"{keypoints}, entry {entry}, joint {p}",
                )
            )
    if sorted(class_of) != list(range(len(class_of))):
        raise InputError(f"{files.where}: labels {sorted(class_of)}, expected 1 to {len(class_of)}")
    if keypoints is not None:
        listed = [image.id for images in splits.values() for image in images]
        notes += _check_annotated(keypoints, points_of, listed)
    names = [class_of[label] for label in sorted(class_of)]
    return Listing(names, () if keypoints is None else KEYPOINT_NAMES, splits, notes)


def _check_annotated(
    path: Path, points_of: Mapping[str, object], listed: Sequence[str]
) -> list[str]:
    """A note if the keypoint file has only some of the listed images; `InputError` if none."""
    annotated = len(points_of.keys() & listed)
    if not annotated:
        raise InputError(
            f"{path}: none of its {len(points_of)} entries is of a listed image; expected "
            f"{DogsBuilder.KEYPOINT_FILE}, with img_path such as {listed[0]}"
        )
    some = annotated < len(listed)
    return [f"{path}: keypoints of {annotated:,} of the {len(listed):,} images"] * some


def _last_two(name: str) -> str:
    return "/".join(name.split("/")[-2:])


def _read_list(files: Files, name: str) -> list[tuple[str, int, str]]:
    """In order, an image's name, its label from 0 and where it is listed, for messages."""
    try:
        import scipy.io
    except ImportError as error:
        raise MissingPackage("dataset dogs", "scipy", "dogs") from error

    found = files.matching(rf"(^|/){re.escape(name)}$")
    if not found:
        raise InputError(f"{files.where}: no {name}; expected it there or in lists.tar")
    shown = files.shown(found[0])
    try:
        content = scipy.io.loadmat(io.BytesIO(files.stored[found[0]].read()), squeeze_me=True)
        names, labels = (np.atleast_1d(content[key]) for key in ("file_list", "labels"))
        if len(names) != len(labels):
            raise ValueError(f"{len(names)} names and {len(labels)} labels")
        return [
            (str(image_name), int(label) - 1, f"{shown}, entry {number}")
            for number, (image_name, label) in enumerate(zip(names, labels, strict=True), start=1)
        ]
    # SciPy raises errors of many kinds for a file that is no .mat file.
    except Exception as error:
        raise InputError(
            f"{shown}: {error}; expected a .mat file with file_list and labels"
        ) from error


def _boxes(
    files: Files, annotations: Mapping[str, str], image_name: str, where: str
) -> tuple[Float[np.ndarray, "N 4"], list[str]]:
    """An image's boxes as x, y, width, height; and a note if its annotation has none."""
    none, name = np.zeros((0, 4), np.float32), image_name.removesuffix(".jpg")
    if name not in annotations:
        absent = f"image {image_name} has no annotation; expected Annotation/{name}"
        return none, [f"{where}: {absent}; taken without boxes"]
    shown = files.shown(annotations[name])
    try:
        root = ET.fromstring(files.stored[annotations[name]].read())
        corners = [
            [float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iter("bndbox")
        ]
    except (ET.ParseError, ValueError) as error:
        raise InputError(
            f"{shown}: {error}; expected an annotation with bndbox elements"
        ) from error
    if not corners:
        empty = "no bndbox element, expected one for each dog"
        return none, [f"{shown}: {empty}; image {image_name} is taken without boxes"]
    low, high = np.split(np.array(corners, np.float32), 2, axis=1)
    return np.concatenate([low, high - low], axis=1), []


def read_keypoints(path: Path) -> dict[str, tuple[int, Float[np.ndarray, "24 3"]]]:
    """StanfordExtra: image name -> (place in the file, joints as x, y, visible).

    `InputError` if it is not JSON, or not of version 12, which has 24 joints an image.
    """
    expected = f"expected {DogsBuilder.KEYPOINT_FILE}"
    try:
        entries = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; {expected}") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", error)
        raise InputError(f"{path}: {why}; {expected}") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: a {type(entries).__name__}; {expected}, a list of images")
    points = {}
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("img_path"), str):
            raise InputError(f"{where}: no img_path; {expected}")
        try:
            joints = np.array(entry.get("joints"), np.float64)
        except (TypeError, ValueError):
            joints = np.empty(0)
        if joints.shape != (len(KEYPOINT_NAMES), 3) or not np.isfinite(joints).all():
            raise InputError(
                f"{where} ({entry['img_path']}): joints of shape {list(joints.shape)}; {expected} "
                f"with {len(KEYPOINT_NAMES)} joints (x, y, visible) an image"
            )
        joints[:, 2] = joints[:, 2] > 0
        points[_last_two(entry["img_path"])] = (number, joints)
    return points
