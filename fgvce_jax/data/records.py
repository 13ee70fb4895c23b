"""Datasets kept as TFDS records: how they are written, and how they are read in any order.

Both are done without TensorFlow: encoded images go into `array_record` files as they are. Records
follow the official order of each split. An image that is listed but absent keeps its place, with
an empty image, so that indices and counts stay those of the official split.
"""

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float
from tensorflow_datasets.core import units as tfds_units
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.core.download.checksums import UrlInfo

from fgvce_jax.data import keypoints as kp
from fgvce_jax.data.archive import Files, Report, StoredFile, open_all, open_files
from fgvce_jax.data.decode import decode
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError, Unfinished, UnreadableImage

IMAGES_PER_SHARD = 500  # about 50 MB; what an interrupted preparation has to write again at most
_PREPARE_AGAIN = "expected what `fgvce data prepare` writes; remove the folder and prepare again"
PIXEL_CENTRE = 0.5  # annotators click on whole pixels; an `Example` measures from the corner


@dataclass(frozen=True)
class Listed:
    """One image as the official lists give it.

    Attributes:
        id: Its official name.
        file: None if it is not there.
        where: The line that lists it.
        label: Index of its class.
        boxes: float32 [N, 4]: x, y, width, height in pixels.
        keypoints: float32 [P, 3]: x, y in pixels and visible, as annotated; NaN, NaN, 0 where the
            image is not annotated.
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
    """All that the official files say.

    Attributes:
        class_names: Official class names, by label.
        keypoint_names: A name per keypoint; empty where the user gave no keypoint file.
        splits: The images of each split, in official order.
        notes: What is wrong with single images, as far as the lists show.
    """

    class_names: Sequence[str]
    keypoint_names: Sequence[str]
    splits: dict[str, list[Listed]]
    notes: Sequence[str] = ()


class RecordsBuilder(tfds.core.ShardBasedBuilder):
    """A TFDS builder that continues where an interrupted one stopped.

    Shards are written whole, under a temporary name first, into a folder beside the dataset's, and
    linked into TFDS's own temporary folder, which an interruption removes.

    Args:
        source: The official archive or the folder it was extracted to; None downloads it.
        keypoints: A keypoint file that is distributed apart from the images.
        report: Told of progress.
        kwargs: TFDS's own, such as data_dir.

    Raises:
        InputError: A keypoint file for a dataset that has none apart, or what is prepared already
            cannot be read.
    """

    VERSION = tfds.core.Version("1.0.0")
    CITATION: str
    HOMEPAGE: str
    DESCRIPTION: str
    url_infos: dict[str, UrlInfo]  # official addresses; set here, as TFDS looks them up with a
    # package that it does not depend on
    KEYPOINTS: int  # P
    KEYPOINT_FILE: str | None = None  # name of the file that `keypoints` is, if there is any
    ARCHIVES: dict[str, str]  # see `archive.open_files`

    def __init__(
        self,
        *,
        source: str | os.PathLike | None = None,
        keypoints: str | os.PathLike | None = None,
        report: Report = lambda what, done, total: None,
        **kwargs: Any,
    ):
        if keypoints is not None and self.KEYPOINT_FILE is None:
            raise InputError(f"{keypoints}: expected no keypoint file, {self.name} holds its own")
        self._source, self._report = source, report
        self._keypoints = None if keypoints is None else Path(keypoints).expanduser()
        try:
            super().__init__(**{"file_format": "array_record", **kwargs})
            if self.data_path.exists() and not self._is_whole():
                raise LookupError("a file of it is missing or another version's")
        # TFDS's parsers raise whatever a damaged file makes them stumble over.
        except Exception as error:
            raise InputError(
                f"{kwargs.get('data_dir') or 'the TFDS folder'}: {self.name} there is damaged "
                f"({type(error).__name__}: {error}); {_PREPARE_AGAIN}"
            ) from error

    def _is_whole(self) -> bool:
        """Whether what describes the records is there, and names every class they have."""
        metadata = self.info.metadata
        if "unreadable" not in metadata:
            return False
        labels = [label for split in metadata["splits"].values() for label in split["labels"]]
        return max(labels) < (self.info.features["label"].num_classes or 0)

    @abc.abstractmethod
    def _list(self, files: Files, keypoints: Path | None) -> Listing:
        """Read the official lists; `InputError` names file and line of what is wrong."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(doc="As distributed; empty if it was absent."),
                "label": tfds.features.ClassLabel(),
                "id": tfds.features.Text(doc="Official name."),
                "boxes": tfds.features.Tensor(
                    shape=(None, 4), dtype=np.float32, doc="x, y, width, height in pixels."
                ),
                "keypoints": tfds.features.Tensor(
                    shape=(self.KEYPOINTS, 3),
                    dtype=np.float32,
                    doc="x, y in pixels as annotated, and 1 where visible; NaN, NaN, 0 where the "
                    "image is not annotated.",
                ),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            features=features,
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    @property
    def partial_dir(self) -> Path:
        """Where an unfinished preparation keeps what it has."""
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
        """As TFDS's; then remove what interrupted preparations left."""
        try:
            with _alone(self.partial_dir):
                super().download_and_prepare(**kwargs)
                shutil.rmtree(self.partial_dir, ignore_errors=True)
                for left in self.partial_dir.parent.glob(f"incomplete.*_{self.version}"):
                    shutil.rmtree(left, ignore_errors=True)
        finally:
            root = Path(self.data_dir_root)
            for unused in ("downloads/extracted", "downloads", f"{self.name}/partial", self.name):
                with contextlib.suppress(OSError):  # in use, or not there
                    (root / unused).rmdir()

    def _log_download_bytes(self) -> None:
        """Nothing: TFDS would print sizes that it does not know."""

    def _log_download_done(self) -> None:
        """Nothing: `prepare` says where the records are."""

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        keypoint_digest = self.keypoint_digest()
        if self._source is None:
            archives = self._download(dl_manager)
            files = open_all(archives, self.ARCHIVES, self.partial_dir, self._report)
        else:
            files = open_files(self._source, self.ARCHIVES, self.partial_dir, self._report)
        self._report("reading lists", 0, 1)
        listing = self._list(files, self._keypoints)
        self._report("reading lists", 1, 1)
        for split, images in listing.splits.items():
            if not any(image.file for image in images):
                raise InputError(
                    f"{files.where}: none of the {len(images)} {split} images is there, "
                    f"such as {images[0].id if images else '(none is listed)'}"
                )
        unreadable, notes = _check_images(listing, self._report)
        self._staging = self.partial_dir / _fingerprint(listing)
        self._staging.mkdir(parents=True, exist_ok=True)
        self.info.features["label"].names = listing.class_names
        self.info.metadata.update(
            keypoint_names=list(listing.keypoint_names),
            keypoint_digest=keypoint_digest,
            notes=[*listing.notes, *notes],
            splits={
                split: {"ids": [i.id for i in images], "labels": [i.label for i in images]}
                for split, images in listing.splits.items()
            },
            unreadable=unreadable,
        )
        progress = itertools.count(1)
        total = sum(map(len, listing.splits.values()))

        def step() -> None:
            self._report("writing images", next(progress), total)

        return {
            split: [
                functools.partial(_examples, images[at : at + IMAGES_PER_SHARD], step)
                for at in range(0, len(images), IMAGES_PER_SHARD)
            ]
            for split, images in listing.splits.items()
        }

    def _download(self, dl_manager: Any) -> list[Path]:
        try:
            return [Path(path) for path in dl_manager.download(list(self.url_infos))]
        # There are as many kinds as there are layers between here and the network.
        except Exception as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{self.name}: download failed ({why}); expected {', '.join(self.url_infos)}, or a "
                "path to what was downloaded from there"
            ) from error
        finally:
            for part in Path(self.data_dir_root).glob(f"downloads/{self.name}/*.tmp.*"):
                shutil.rmtree(part, ignore_errors=True)

    def _example_writer(self) -> tfds_writer.ExampleWriter:
        return _ResumingWriter(self)


def _examples(
    images: list[Listed], step: Callable[[], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, image in enumerate(images):
        step()
        yield (
            index,
            {
                "image": image.file or io.BytesIO(),
                "label": image.label,
                "id": image.id,
                "boxes": image.boxes,
                "keypoints": image.keypoints,
            },
        )


class _ResumingWriter(tfds_writer.ExampleWriter):
    """Writes a shard whole or not at all, and takes over those that are already there."""

    def __init__(self, builder: RecordsBuilder):
        super().__init__(builder.info.file_format)
        self._builder = builder

    def write(self, path: Any, examples: Any) -> None:
        staged = self._builder._staging / Path(path).name
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
                    f"{staged}: cannot be written ({error}); what was written before is kept, and "
                    "the same command continues once there is room"
                ) from error
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        try:
            os.link(staged, path)
        except OSError:  # a file system without links
            shutil.copyfile(staged, path)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Work in a folder as the only process, without the half-written files that killed ones left.

    Raises:
        InputError: Another process works there.
    """
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
            for part in folder.rglob("*.part"):
                part.unlink()
        yield
    finally:
        os.close(handle)


def _check_images(listing: Listing, report: Report) -> tuple[dict[str, str], list[str]]:
    """Read every image, and hide keypoints that lie outside theirs.

    Returns:
        By id, why an image cannot be read and where it is listed; and notes for the user, of these
        and of the keypoints.
    """
    unreadable, notes = {}, []
    images = list(itertools.chain(*listing.splits.values()))
    with ThreadPool() as pool:
        sizes = pool.imap(_size, images)
        for number, (image, found) in enumerate(zip(images, sizes, strict=True), start=1):
            report("checking images", number, len(images))
            if isinstance(found, str):
                unreadable[image.id] = f"{image.where}: {found}"
                notes.append(f"{image.where}: image {image.id}: {found}")
            else:
                notes += _hide_outside(image, found, listing.keypoint_names)
    return unreadable, notes


def _size(image: Listed) -> tuple[int, int] | str:
    """Width and height as stored, or why the image cannot be read."""
    from PIL import Image

    if image.file is None:
        return "listed but absent; expected an image file of that name"
    encoded = image.file.read()
    try:
        decode(encoded, image.id)
    except UnreadableImage as error:
        return error.why
    with Image.open(io.BytesIO(encoded)) as header:
        return header.size


def _hide_outside(image: Listed, size: tuple[int, int], names: Sequence[str]) -> list[str]:
    """Make keypoints outside the image invisible; a note for each."""
    notes = []
    points = image.keypoints
    outside = (points[:, 2] > 0) & ((points[:, :2] < 0) | (points[:, :2] >= size)).any(axis=1)
    for p in np.flatnonzero(outside):
        x, y = points[p, :2]
        notes.append(
            f"{image.keypoints_where(p)}: {names[p]} at ({x:g}, {y:g}) lies outside image "
            f"{image.id} of {size[0]} x {size[1]} pixels; taken as not visible"
        )
        points[p, 2] = 0
    return notes


def _fingerprint(listing: Listing) -> str:
    """Changes with anything that the records depend on, short of the images' pixels."""
    digest = hashlib.sha256(repr((listing.class_names, listing.keypoint_names)).encode())
    for split, images in listing.splits.items():
        for image in images:
            size = image.file.size if image.file else None
            digest.update(repr((split, image.id, image.label, size)).encode())
            digest.update(image.boxes.tobytes() + image.keypoints.tobytes())
    return digest.hexdigest()[:12]


class Records:
    """One split of a prepared dataset, a `Dataset`.

    Attributes:
        notes: What was found wrong with single images of either split when they were prepared.

    Args:
        split: "train" or "test".
        path: The folder it was prepared in; TFDS's own by default.

    Raises:
        InputError: Nothing prepared there, an unknown split, or a file that is missing.
    """

    part_names: tuple[str, ...] = ()
    builder_cls: type[RecordsBuilder]

    def __init__(self, split: str, path: str | os.PathLike | None = None):
        self.split, self.path = split, path
        builder = open_builder(self.builder_cls, path)
        metadata = builder.info.metadata
        if split not in metadata["splits"]:
            known = ", ".join(metadata["splits"])
            raise InputError(f"{builder.name}: unknown split {split!r}; expected one of {known}")
        listed = metadata["splits"][split]
        self.labels = np.array(listed["labels"], np.int32)
        self.ids: Sequence[str] = tuple(listed["ids"])
        self.keypoint_names: tuple[str, ...] = tuple(metadata["keypoint_names"])
        self.class_names: tuple[str, ...] = tuple(
            map(self.readable, builder.info.features["label"].names)
        )
        self.notes = tuple(metadata["notes"])
        self._unreadable = metadata["unreadable"]
        info = builder.info.splits[split]
        self._shards = [Path(path) for path in info.filepaths]
        self._ends = np.cumsum(info.shard_lengths)
        for shard in self._shards:
            if not shard.exists():
                raise InputError(f"{shard}: missing; {_PREPARE_AGAIN}")
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
        """The example at `index`.

        Raises:
            UnreadableImage: It was absent or could not be decoded when the dataset was prepared.
            InputError: The prepared file that holds it is damaged.
            IndexError: Outside the split.
        """
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
                record["keypoints"] + np.float32([PIXEL_CENTRE, PIXEL_CENTRE, 0]),
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
            raise InputError(f"{shard}: damaged ({why}); {_PREPARE_AGAIN}")
        return record

    def __reduce__(self):  # readers of open files do not travel to worker processes
        return (type(self), (self.split, self.path))


def _stored_orientation(encoded: bytes) -> int:
    """The EXIF orientation of an image that `decode` can read, 1 where it has none."""
    from PIL import ExifTags, Image

    with Image.open(io.BytesIO(encoded)) as file:
        return file.getexif().get(ExifTags.Base.Orientation, 1)


def url_info(size: int, checksum: str, filename: str) -> UrlInfo:
    """What a download must be: bytes, SHA-256, name."""
    return UrlInfo(size=tfds_units.Size(size), checksum=checksum, filename=filename)


def open_builder(cls: type[RecordsBuilder], path: str | os.PathLike | None) -> RecordsBuilder:
    """The builder of a dataset that was prepared in `path`.

    Raises:
        InputError: Nothing is prepared there.
    """
    builder = cls(data_dir=None if path is None else os.path.expanduser(path))
    if not builder.data_path.exists():
        raise InputError(
            f"{builder.data_dir}: no {cls.name} is prepared there; expected what "
            "`fgvce data prepare` writes"
        )
    return builder
