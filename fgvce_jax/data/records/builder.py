"""From the files of an official archive to TFDS records."""

from __future__ import annotations

import abc
import contextlib
import fcntl
import functools
import hashlib
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.units import Size

from fgvce_jax.data.archive import Files, OnProgress, open_files
from fgvce_jax.data.records.listing import ListedImage, Listing, check_images
from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import is_temporary

IMAGES_PER_SHARD = 500  # about 50 MB, the most that an interrupted preparation writes twice
PREPARE_AGAIN = (
    "expected the files that `fgvce prepare` writes; remove the folder and prepare again"
)


class RecordBuilder(tfds.core.ShardBasedBuilder):
    """A TFDS builder that continues where an interrupted one stopped.

    Shards are written whole, under a temporary name first, into a folder beside the dataset's, and
    linked into TFDS's own temporary folder, which an interruption removes. A dataset is a subclass
    with the constants below and `list_images`.

    Args:
        source: The official archive or the folder it was extracted to; None downloads it.
        keypoints: A keypoint file that is distributed apart from the images.
        on_progress: Called with the progress made.
        kwargs: TFDS's own, such as data_dir.

    Raises:
        InputError: A keypoint file that the dataset does not take, or damaged records there.
    """

    VERSION = tfds.core.Version("1.0.0")
    CITATION: str
    HOMEPAGE: str
    DESCRIPTION: str
    # Official addresses. TFDS would read them from a file, with a package that it does not require.
    url_infos: ClassVar[dict[str, UrlInfo]]
    KEYPOINTS: int  # P
    KEYPOINT_FILE: str | None = None  # name of the file that `keypoints` is, if there is any
    ARCHIVES: ClassVar[dict[str, str]]  # see `archive.open_files`

    def __init__(
        self,
        *,
        source: str | os.PathLike | None = None,
        keypoints: str | os.PathLike | None = None,
        on_progress: OnProgress = lambda task, done, total: None,
        **kwargs: Any,
    ):
        if keypoints is not None and self.KEYPOINT_FILE is None:
            raise InputError(f"{keypoints}: expected no keypoint file, {self.name} holds its own")
        self._source, self._on_progress = source, on_progress
        self._keypoints = None if keypoints is None else Path(keypoints).expanduser()
        try:
            super().__init__(**{"file_format": "array_record", **kwargs})
            if self.data_path.exists() and not self._is_complete():
                raise LookupError("a file of it is missing or another version's")
        # TFDS's parsers raise whatever a damaged file makes them stumble over.
        except Exception as error:
            raise InputError(
                f"{kwargs.get('data_dir') or 'the TFDS folder'}: {self.name} there is damaged "
                f"({type(error).__name__}: {error}); {PREPARE_AGAIN}"
            ) from error

    @abc.abstractmethod
    def list_images(self, files: Files, keypoints: Path | None) -> Listing:
        """Read the official lists; `InputError` names file and line of a fault."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Ids and labels of each split, notes and the like, beside TFDS's own description."""
        return cast("dict[str, Any]", self.info.metadata)

    @property
    def label_feature(self) -> tfds.features.ClassLabel:
        """Of the records; it holds the official class names."""
        return cast("dict[str, Any]", self.info.features)["label"]

    @property
    def partial_dir(self) -> Path:
        """Where an unfinished preparation keeps its whole shards."""
        return Path(self.data_dir_root) / self.name / "partial"

    def keypoint_digest(self) -> str | None:
        """SHA-256 of the keypoint file that was given."""
        if self._keypoints is None:
            return None
        try:
            return hashlib.sha256(self._keypoints.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(
                f"{self._keypoints}: {error.strerror}; expected {self.KEYPOINT_FILE}"
            ) from error

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As TFDS's; then remove the leftovers of interrupted preparations."""
        try:
            with locked(self.partial_dir):
                super().download_and_prepare(**kwargs)
                shutil.rmtree(self.partial_dir, ignore_errors=True)
                for left in self.partial_dir.parent.glob(f"incomplete.*_{self.version}"):
                    shutil.rmtree(left, ignore_errors=True)
        finally:
            root = Path(self.data_dir_root)
            for unused in ("downloads/extracted", "downloads", f"{self.name}/partial", self.name):
                with contextlib.suppress(OSError):  # in use, or not there
                    (root / unused).rmdir()

    # --- the methods through which TFDS's `download_and_prepare` calls a builder ------------------

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(doc="As distributed; empty if it was absent."),
            "label": tfds.features.ClassLabel(),
            "id": tfds.features.Text(doc="Official name."),
            "boxes": tfds.features.Tensor(
                shape=(None, 4), dtype=np.float32, doc="x, y, width, height in pixels."
            ),
            "keypoints": tfds.features.Tensor(
                shape=(self.KEYPOINTS, 3),
                dtype=np.float32,
                doc="x, y in pixels as annotated, and 1 where visible; NaN, NaN, 0 where the image "
                "is not annotated.",
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    # The abstract method of a `ShardBasedBuilder`. A `GeneratorBasedBuilder` collects a whole split
    # before it writes the first shard, so that an interruption would lose all of it.
    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        keypoint_digest = self.keypoint_digest()  # before the long download
        listing = self._read_lists(dl_manager)
        unreadable, notes = check_images(listing, self._on_progress)
        self._staging = self.partial_dir / listing.fingerprint()
        self._staging.mkdir(parents=True, exist_ok=True)
        self.label_feature.names = list(listing.class_names)
        self.metadata.update(
            keypoint_names=list(listing.keypoint_names),
            keypoint_digest=keypoint_digest,
            notes=[*listing.notes, *notes],
            splits={
                split: {"ids": [i.id for i in images], "labels": [i.label for i in images]}
                for split, images in listing.splits.items()
            },
            unreadable=unreadable,
        )
        written, total = itertools.count(1), len(listing.images)

        def records(images: list[ListedImage]) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, image in enumerate(images):
                self._on_progress("writing images", next(written), total)
                kept = {key: getattr(image, key) for key in ("label", "id", "boxes", "keypoints")}
                yield index, {"image": image.file or io.BytesIO(), **kept}

        return {
            split: [
                functools.partial(records, images[at : at + IMAGES_PER_SHARD])
                for at in range(0, len(images), IMAGES_PER_SHARD)
            ]
            for split, images in listing.splits.items()
        }

    # Where TFDS's documentation wants a writer of one's own; no public name leads there. It is
    # called before the lists are read, so that the folder is not known yet.
    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _ResumingWriter(tfds.core.FileFormat(self.info.file_format), lambda: self._staging)

    # TFDS prints sizes that it does not know, and has no option against it. Redirecting stdout
    # instead would also hide the lines that `on_progress` prints.
    def _log_download_bytes(self) -> None:
        pass

    _log_download_done = _log_download_bytes

    # --- parts of the above -----------------------------------------------------------------------

    def _is_complete(self) -> bool:
        """Whether the description of the records is there, and names every class they have."""
        splits = self.metadata.get("splits", {}).values()
        labels = [label for split in splits for label in split["labels"]]
        return bool(labels) and max(labels) < (self.label_feature.num_classes or 0)

    def _read_lists(self, dl_manager: Any) -> Listing:
        """The listing of the source that was given, or of the download."""
        paths = self._download(dl_manager) if self._source is None else [self._source]
        archives = self.ARCHIVES, self.partial_dir, self._on_progress
        parts = [open_files(path, *archives) for path in paths]
        where = os.path.commonpath([part.where for part in parts])
        files = Files(where, {name: f for part in parts for name, f in part.stored.items()})
        self._on_progress("reading lists", 0, 1)
        listing = self.list_images(files, self._keypoints)
        self._on_progress("reading lists", 1, 1)
        for split, images in listing.splits.items():
            if not any(image.file for image in images):
                raise InputError(
                    f"{files.where}: none of the {len(images)} {split} images is there, "
                    f"such as {images[0].id if images else '(none is listed)'}"
                )
        return listing

    def _download(self, dl_manager: Any) -> list[Path]:
        try:
            return [Path(path) for path in dl_manager.download(list(self.url_infos))]
        # There are as many kinds as there are layers between here and the network.
        except Exception as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{self.name}: download failed ({why}); expected {', '.join(self.url_infos)}, or a "
                "path to the files from there"
            ) from error
        finally:
            for part in Path(self.data_dir_root).glob(f"downloads/{self.name}/*.tmp.*"):
                shutil.rmtree(part, ignore_errors=True)


def url_info(size: int, checksum: str, filename: str) -> UrlInfo:
    """The bytes, SHA-256 and name that a download must have."""
    return UrlInfo(size=Size(size), checksum=checksum, filename=filename)


class _ResumingWriter(tfds.core.ExampleWriter):
    """Writes each shard into a folder that outlives the process, and links it to its place.

    A shard that is in the folder already is taken over without being written again. The function
    `staging`, called when a shard is written, gives the folder.
    """

    def __init__(self, file_format: tfds.core.FileFormat, staging: Callable[[], Path]):
        super().__init__(file_format)
        self._staging = staging

    def write(self, path: Any, examples: Any) -> None:
        """Write the shard that TFDS wants at `path`; `Unfinished` if the disk has no room."""
        staged = self._staging() / Path(path).name
        if not staged.exists():
            part = staged.with_name(f"{staged.name}.{os.getpid()}.part")
            try:
                super().write(part, examples)
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
                part.replace(staged)
            # The record writer has no error class of its own.
            except (OSError, RuntimeError) as error:
                raise Unfinished(
                    f"{staged}: cannot be written ({error}); earlier shards are kept, and the "
                    "same command continues once there is room"
                ) from error
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        try:
            os.link(staged, path)
        except OSError:  # a file system without links
            shutil.copyfile(staged, path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder as the only process, with no half-written files that killed ones left."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process holds no lock
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process prepares this dataset there; expected one at a time"
            ) from None
        except OSError:  # a file system without locks
            pass
        else:
            for path in [p for p in folder.rglob("*") if p.suffix == ".part" or is_temporary(p)]:
                path.unlink()
        yield
    finally:
        os.close(handle)
