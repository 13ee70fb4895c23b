"""Stanford Dogs: 20,580 photographs of 120 breeds; with StanfordExtra, 24 keypoints.

Khosla, Jayadevaprakash, Yao and Fei-Fei, Novel Dataset for Fine-Grained Image Categorization,
FGVC workshop at CVPR 2011. Keypoints: Biggs, Boyne, Charles, Fitzgibbon and Cipolla, Who Left the
Dogs Out?, ECCV 2020; their file comes from the authors, on request.
"""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from fgvce_jax.data.archive import Files
from fgvce_jax.data.records import ListedImage, Listing, RecordBuilder, RecordDataset, url_info
from fgvce_jax.errors import InputError

_ADDRESS = "http://vision.stanford.edu/aditya86/ImageNetDogs/"

KEYPOINT_NAMES = (
    *(
        f"{side} {end} {joint}"
        for side in ("left", "right")
        for end in ("front", "rear")
        for joint in ("paw", "middle joint", "leg top")
    ),
    "tail start",
    "tail end",
    "left ear base",
    "right ear base",
    "nose",
    "chin",
    "left ear tip",
    "right ear tip",
    "left eye",
    "right eye",
    "withers",
    "throat",
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
        _ADDRESS + name: url_info(size, checksum, name)
        for name, size, checksum in (
            (
                "images.tar",
                793579520,
                "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            ),
            (
                "annotation.tar",
                21852160,
                "662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
            ),
            (
                "lists.tar",
                481280,
                "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            ),
        )
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

    Args:
        files: Of images.tar, annotation.tar and lists.tar.
        keypoints: StanfordExtra_v12.json; None for a listing without keypoints.

    Raises:
        InputError: A list that is missing or of the wrong form, no annotation at all or one that
            cannot be read, a keypoint file of another version or of other images.
    """
    image_of = {_last_two(name): name for name in files.matching(r"\.jpg$")}
    boxes_of = {_last_two(name): name for name in files.matching(r"(^|/)Annotation/[^/]+/[^/]+$")}
    if not boxes_of:
        raise InputError(
            f"{files.where}: no annotation; expected Annotation/<class>/<image> there, or "
            "annotation.tar"
        )
    points_of = {} if keypoints is None else read_keypoints(keypoints)
    unknown = np.tile(np.array([np.nan, np.nan, 0], np.float32), (len(KEYPOINT_NAMES), 1))

    notes: list[str] = []
    splits: dict[str, list[ListedImage]] = {}
    class_of: dict[int, str] = {}
    for split in ("train", "test"):
        list_name, entries = _read_list(files, f"{split}_list.mat")
        splits[split] = []
        for number, (image_name, label) in enumerate(entries, start=1):
            where = f"{list_name}, entry {number}"
            class_name = image_name.partition("/")[0]
            if class_of.setdefault(label, class_name) != class_name:
                raise InputError(
                    f"{where}: label {label + 1} of {class_name}, expected of {class_of[label]}"
                )
            annotation = boxes_of.get(image_name.removesuffix(".jpg"))
            entry, points = points_of.get(image_name, (0, unknown))
            splits[split].append(
                ListedImage(
                    id=image_name,
                    file=files.open(image_of[image_name]) if image_name in image_of else None,
                    where=where,
                    label=label,
                    boxes=_boxes(files, annotation, image_name, where, notes),
                    keypoints=points.astype(np.float32),
                    keypoints_where=lambda p, entry=entry: f"{keypoints}, entry {entry}, joint {p}",
                )
            )
    if sorted(class_of) != list(range(len(class_of))):
        raise InputError(f"{files.where}: labels {sorted(class_of)}, expected 1 to {len(class_of)}")
    names = [class_of[label] for label in sorted(class_of)]
    if keypoints is None:
        return Listing(names, (), splits, notes)
    listing = Listing(names, KEYPOINT_NAMES, splits, notes)
    notes += _check_annotated(keypoints, points_of, listing)
    return listing


def _boxes(
    files: Files, annotation: str | None, image_name: str, where: str, notes: list[str]
) -> Float[np.ndarray, "N 4"]:
    """An image's boxes; none, and one more of the notes, where its annotation has none."""
    if annotation is None:
        notes.append(
            f"{where}: image {image_name} has no annotation; expected Annotation/"
            f"{image_name.removesuffix('.jpg')}; taken without boxes"
        )
        return np.zeros((0, 4), np.float32)
    boxes = _read_boxes(files, annotation)
    if not len(boxes):
        notes.append(
            f"{files.shown(annotation)}: no bndbox element, expected one for each dog; "
            f"image {image_name} is taken without boxes"
        )
    return boxes


def _check_annotated(path: Path, points_of: Mapping[str, object], listing: Listing) -> list[str]:
    """A note if the keypoint file has only some of the listed images; `InputError` if none."""
    listed = [image.id for image in listing.images]
    annotated = len(points_of.keys() & listed)
    if not annotated:
        raise InputError(
            f"{path}: none of its {len(points_of)} entries is of a listed image; expected "
            f"{DogsBuilder.KEYPOINT_FILE}, with img_path such as {listed[0]}"
        )
    if annotated < len(listed):
        return [f"{path}: keypoints of {annotated:,} of the {len(listed):,} images"]
    return []


def _last_two(name: str) -> str:
    return "/".join(name.split("/")[-2:])


def _read_list(files: Files, name: str) -> tuple[str, list[tuple[str, int]]]:
    """The list as messages show it, and its (image name, label from 0) in order."""
    import scipy.io

    found = files.matching(rf"(^|/){name.replace('.', '[.]')}$")
    if not found:
        raise InputError(f"{files.where}: no {name}; expected it there or in lists.tar")
    try:
        content = scipy.io.loadmat(io.BytesIO(files.read(found[0])), squeeze_me=True)
        names = [str(name) for name in np.atleast_1d(content["file_list"])]
        labels = [int(label) - 1 for label in np.atleast_1d(content["labels"])]
        if len(names) != len(labels):
            raise ValueError(f"{len(names)} names and {len(labels)} labels")
    # SciPy raises errors of many kinds for a file that is no .mat file.
    except Exception as error:
        raise InputError(
            f"{files.shown(found[0])}: {error}; expected a .mat file with file_list and labels"
        ) from error
    return files.shown(found[0]), list(zip(names, labels, strict=True))


def _read_boxes(files: Files, name: str) -> Float[np.ndarray, "N 4"]:
    """The objects' boxes as x, y, width, height."""
    try:
        root = ET.fromstring(files.read(name))
        corners = np.array(
            [
                [float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
                for box in root.iter("bndbox")
            ],
            np.float32,
        ).reshape(-1, 4)
    except (ET.ParseError, ValueError) as error:
        raise InputError(
            f"{files.shown(name)}: {error}; expected an annotation with bndbox elements"
        ) from error
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def read_keypoints(path: Path) -> dict[str, tuple[int, Float[np.ndarray, "24 3"]]]:
    """StanfordExtra: image name -> (place in the file, joints as x, y, visible).

    Raises:
        InputError: Not JSON, or not of version 12, which has 24 joints an image.
    """
    expected = f"expected {DogsBuilder.KEYPOINT_FILE}"
    try:
        entries = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {expected}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {error}; {expected}") from error
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
