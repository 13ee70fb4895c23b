"""The images of a dataset as its official lists give them, and the check that they can be read."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool

import numpy as np
from jaxtyping import Float
from PIL import Image

from fgvce_jax.data.archive import OnProgress, StoredFile
from fgvce_jax.data.decode import check_bytes, decode
from fgvce_jax.errors import UnreadableImage
from fgvce_jax.files import fingerprint


@dataclass(frozen=True)
class ListedImage:
    """One image as the official lists give it.

    Attributes:
        id: Its official name.
        file: None if it is not there.
        where: The line that lists it, for messages.
        label: Index of its class.
        boxes: x, y, width, height in pixels.
        keypoints: x, y in pixels and visible, as annotated; NaN, NaN, 0 where the image is not.
        keypoints_where: Where keypoint p is annotated, for messages.
    """

    id: str
    file: StoredFile | None
    where: str
    label: int
    boxes: Float[np.ndarray, "N 4"]
    keypoints: Float[np.ndarray, "P 3"]
    keypoints_where: Callable[[int], str] = field(compare=False)


@dataclass(frozen=True)
class Listing:
    """Everything that the official files hold besides the images, which are in official order.

    Names of the classes are by label; of the keypoints there are none without a keypoint file. The
    notes are of faults of single images, as far as the lists show them.
    """

    class_names: Sequence[str]
    keypoint_names: Sequence[str]
    splits: dict[str, list[ListedImage]]
    notes: Sequence[str] = ()

    @property
    def images(self) -> list[ListedImage]:
        """Those of all splits."""
        return list(itertools.chain(*self.splits.values()))

    def fingerprint(self) -> str:
        """Changes with anything that the records depend on, short of the images' pixels."""
        files = [image.file and image.file.size for image in self.images]
        images = [(i.id, i.label, i.boxes, i.keypoints) for i in self.images]
        counts = {split: len(images) for split, images in self.splits.items()}
        return fingerprint(self.class_names, self.keypoint_names, counts, files, images)


def check_images(listing: Listing, on_progress: OnProgress) -> tuple[dict[str, str], list[str]]:
    """Decode every image once, and hide keypoints that lie outside theirs.

    Returns, by id, where an image is listed and why it cannot be read; and notes for the user, of
    these and of the keypoints.
    """
    unreadable, notes, images = {}, [], listing.images
    with ThreadPool() as pool:
        sizes = zip(images, pool.imap(_size, images), strict=True)
        for number, (image, found) in enumerate(sizes, start=1):
            on_progress("checking images", number, len(images))
            if isinstance(found, str):
                unreadable[image.id] = f"{image.where}: {found}"
                notes.append(f"{image.where}: image {image.id}: {found}")
            else:
                notes += _hide_outside(image, found, listing.keypoint_names)
    return unreadable, notes


def _size(image: ListedImage) -> tuple[int, int] | str:
    """Width and height as stored, or why the image cannot be read."""
    if image.file is None:
        return "listed but absent; expected an image file of that name"
    try:
        check_bytes(image.file.size, image.id)
        encoded = image.file.read()
        decode(encoded, image.id)
    except UnreadableImage as error:
        return error.why
    with Image.open(io.BytesIO(encoded)) as header:
        return header.size


def _hide_outside(image: ListedImage, size: tuple[int, int], names: Sequence[str]) -> list[str]:
    """Make keypoints outside the image invisible; a note for each."""
    notes = []
    points = image.keypoints
    outside = (points[:, 2] > 0) & ((points[:, :2] < 0) | (points[:, :2] >= size)).any(axis=1)
    for p in np.flatnonzero(outside).tolist():
        x, y = points[p, :2]
        notes.append(
            f"{image.keypoints_where(p)}: {names[p]} at ({x:g}, {y:g}) lies outside image "
            f"{image.id} of {size[0]} x {size[1]} pixels; taken as not visible"
        )
        points[p, 2] = 0
    return notes
