"""`folder`: your own images, one sub-folder per class.

birds/robin/1.jpg            birds/train/robin/1.jpg
birds/robin/2.png     or     birds/test/robin/2.png
birds/finch/3.webp           birds/test/finch/3.webp
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int

from fgvce_jax.data.decode import decode
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError, UnreadableImage

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Folder:
    """One split of a folder of images, a `Dataset`; images keep their size.

    Where the folder has a sub-folder `train`, `val` or `test`, these are the splits. Otherwise a
    hash of each file's name within the folder puts about one image in five into "test" and the
    others into "train", so that a file stays in its split when others come or go.

    Classes are the sub-folders that hold an image (at any depth), sorted by name, over all splits:
    a class has the same number in each. Ids are file names relative to `path`. Hidden files and
    folders and files of other types are ignored. Images are decoded on access only.

    Args:
        split: "train", "test" or "val".
        path: The folder.

    Raises:
        InputError: The path is not a folder, holds no images in class sub-folders, or lacks the
            split.
    """

    keypoint_names: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()

    def __init__(self, split: str, path: str | os.PathLike[str]):
        self.path = Path(path)
        if split not in SPLITS:
            raise InputError(
                f"folder: unknown split {split!r}; expected one of {', '.join(SPLITS)}"
            )
        if not self.path.is_dir():
            state = "not a folder" if self.path.exists() else "does not exist"
            raise InputError(f"folder {self.path}: {state}; expected a folder of class sub-folders")
        found = {name: _images(self.path / name) for name in SPLITS if (self.path / name).is_dir()}
        by_hash = not found
        if by_hash:
            images = _images(self.path)
            found = {
                "train": [file for file in images if not _is_test(file)],
                "test": [file for file in images if _is_test(file)],
            }
        else:
            found = {name: [f"{name}/{file}" for file in files] for name, files in found.items()}
        depth = 0 if by_hash else 1

        def class_of(file: str) -> str:
            return PurePosixPath(file).parts[depth]

        self.class_names = tuple(sorted({class_of(f) for files in found.values() for f in files}))
        if not self.class_names:
            raise InputError(
                f"folder {self.path}: no images ({', '.join(SUFFIXES)}) in class sub-folders; "
                "expected <class>/<image> or <split>/<class>/<image>"
            )
        if not found.get(split):
            held = ", ".join(f"{len(files)} in {name!r}" for name, files in found.items())
            raise InputError(f"folder {self.path}: no images for split {split!r}; found {held}")
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.ids: Sequence[str] = tuple(found[split])
        self.labels: Int[np.ndarray, " N"] = np.array(
            [numbers[class_of(file)] for file in self.ids], np.int32
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        """Decodes the image at `index`.

        Raises:
            UnreadableImage: The file is missing, empty, damaged or smaller than 2x2 pixels.
            IndexError: Outside the split.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"folder {self.path}: index {index} outside a split of {len(self)}")
        id = self.ids[index]
        try:
            encoded = (self.path / id).read_bytes()
        except OSError as error:
            raise UnreadableImage(id, f"cannot be read ({error.strerror})") from error
        return Example(decode(encoded, id), int(self.labels[index]), id)


def _images(folder: Path) -> list[str]:
    """Images below the sub-folders of `folder`, relative to it, sorted, with forward slashes."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(place) == folder:
            continue
        found += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    return sorted(found)


def _is_test(file: str) -> bool:
    return hashlib.sha256(file.encode()).digest()[0] % 5 == 0
