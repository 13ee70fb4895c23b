"""`folder`: your own images, one sub-folder per class.

birds/robin/1.jpg            birds/train/robin/1.jpg
birds/robin/2.png     or     birds/test/robin/2.png
birds/finch/3.webp           birds/test/finch/3.webp
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Int

from fgvce_jax.config import DataConfig
from fgvce_jax.data.decode import read_image
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")


class Folder:
    """One split of a folder of images, a `Dataset`; images keep their size.

    Where the folder has a sub-folder `train`, `val` or `test`, these are the splits. Otherwise a
    hash of each file's name within the folder puts about `test_share` of the images into "test" and
    the others into "train", so that a file stays in its split when others come or go.

    Classes are the sub-folders that hold an image (at any depth), sorted by name, over all splits:
    a class has the same number in each. Ids are file names relative to `path`. Images are decoded
    on access only.

    Attributes:
        ignored: How many files were found and are no images of the dataset, by the reason: hidden,
            of another type, in no class sub-folder.
        notes: Lines for the user on how the folder was read.

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
        test_share: float = DataConfig.test_share,
    ):
        self.path, self.max_pixels = Path(path), max_pixels
        if split not in SPLITS:
            raise InputError(
                f"folder: unknown split {split!r}; expected one of {', '.join(SPLITS)}"
            )
        if not self.path.is_dir():
            state = "not a folder" if self.path.exists() else "does not exist"
            raise InputError(f"folder {self.path}: {state}; expected a folder of class sub-folders")
        self.ignored: Counter[str] = Counter()
        folders = {name: self.path / name for name in SPLITS if (self.path / name).is_dir()}
        found = {name: _images(folder, self.ignored, name) for name, folder in folders.items()}
        if not folders:
            images = _images(self.path, self.ignored)
            found: dict[str, list[str]] = {"train": [], "test": []}
            for file in images:
                found["test" if _hashed(file) < test_share else "train"].append(file)
        self.notes = tuple(_notes(self.path, found, None if folders else test_share, self.ignored))
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
            other = max(found, key=lambda name: len(found[name]))
            raise InputError(
                f"folder {self.path}: no images for split {split!r}; found {held} (--split {other})"
            )
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


def _images(folder: Path, ignored: Counter[str], prefix: str = "") -> list[str]:
    """Images below the sub-folders of `folder`, sorted, as `prefix`/name there; others counted."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = [name for name in folders if name not in hidden]
        ignored.update("hidden folder" for _ in hidden)
        below = PurePath(prefix, PurePath(place).relative_to(folder))
        for name in files:
            if name.startswith("."):
                ignored["hidden"] += 1
            elif not name.lower().endswith(SUFFIXES):
                ignored[PurePath(name).suffix.lower() or "no suffix"] += 1
            elif Path(place) == folder:
                ignored["in no class folder"] += 1
            else:
                found.append((below / name).as_posix())
    return sorted(found)


def _notes(
    path: Path, found: dict[str, list[str]], test_share: float | None, ignored: Counter[str]
) -> Iterator[str]:
    """The rule of the splits, where the folder has none, and the files that were left out."""
    if test_share is not None and 0 < test_share < 1:
        counts = " and ".join(f"{len(files)} {name}" for name, files in found.items())
        yield (
            f"{path}: no train or test folder; {counts} images, by a hash of their names "
            f"(--data.test_share {test_share:g})"
        )
    if total := sum(ignored.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in ignored.most_common())
        yield f"{path}: {total} files are no images in class folders: {reasons}"


def _hashed(file: str) -> float:
    """A number of a file's name, uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:4]) / 2**32
