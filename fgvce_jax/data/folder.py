"""`folder`: your own images, one sub-folder per class.

birds/robin/1.jpg            birds/train/robin/1.jpg
birds/robin/2.png     or     birds/test/robin/2.png
birds/finch/3.webp           birds/test/finch/3.webp
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Int

from fgvce_jax.config import DataConfig
from fgvce_jax.data.decode import read_image
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError

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

    Raises:
        InputError: The path is not a folder, holds no images in class sub-folders, or lacks the
            split.
    """

    keypoint_names: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()

    def __init__(
        self,
        split: str,
        path: str | os.PathLike[str],
        max_pixels: int = DataConfig.max_pixels,
    ):
        self.path, self.max_pixels = Path(path), max_pixels
        if split not in SPLITS:
            raise InputError(
                f"folder: unknown split {split!r}; expected one of {', '.join(SPLITS)}"
            )
        if not self.path.is_dir():
            state = "not a folder" if self.path.exists() else "does not exist"
            raise InputError(f"folder {self.path}: {state}; expected a folder of class sub-folders")
        folders = {name: self.path / name for name in SPLITS if (self.path / name).is_dir()}
        found = {name: _images(folder, name) for name, folder in folders.items()}
        if not folders:
            images = _images(self.path)
            found = {
                "train": [file for file in images if not _is_test(file)],
                "test": [file for file in images if _is_test(file)],
            }
        depth = 1 if folders else 0
        classes = {file.split("/")[depth] for files in found.values() for file in files}
        self.class_names = tuple(sorted(classes))
        if not self.class_names:
            raise InputError(
                f"folder {self.path}: no images ({', '.join(SUFFIXES)}) in class sub-folders; "
                "expected <class>/<image> or <split>/<class>/<image>"
            )
        if not found.get(split):
            held = ", ".join(f"{len(files)} in {name!r}" for name, files in found.items())
            raise InputError(f"folder {self.path}: no images for split {split!r}; found {held}")
        self.ids: Sequence[str] = tuple(found[split])
        named = [id.split("/")[depth] for id in self.ids]
        self.labels: Int[np.ndarray, " N"] = np.searchsorted(self.class_names, named).astype("i4")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        """Decoded now; `UnreadableImage` if it is missing, damaged, too small or too large."""
        if not 0 <= index < len(self):
            raise IndexError(f"folder {self.path}: index {index} outside a split of {len(self)}")
        id = self.ids[index]
        image = read_image(self.path / id, id, self.max_pixels)
        return Example(image, int(self.labels[index]), id)


def _images(folder: Path, prefix: str = "") -> list[str]:
    """Images below the sub-folders of `folder`, sorted, as `prefix`/name there."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = PurePath(prefix, PurePath(place).relative_to(folder))
        found += [
            (below / name).as_posix()
            for name in files
            if Path(place) != folder
            and not name.startswith(".")
            and name.lower().endswith(SUFFIXES)
        ]
    return sorted(found)


def _is_test(file: str) -> bool:
    return hashlib.sha256(file.encode()).digest()[0] % 5 == 0
