"""The input pipeline: decode, resize, batch, in a fixed order, on threads or processes (Grain).

A dataset decodes (and turns an image upright by its EXIF data); this module resizes as in the
classifier's own preprocessing and moves the keypoints along with every geometric step.
Images that cannot be read are left out and reported, in order.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from fgvce_jax.data.decode import NO_MEMORY
from fgvce_jax.data.example import Dataset, Example
from fgvce_jax.errors import InputError, UnreadableImage

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """b examples of one size.

    Attributes:
        index: Their places in the dataset, int32 [b].
        image: uint8 [b, S, S, 3].
        label: int32 [b].
        id: Their ids, b strings.
        keypoints: float32 [b, P, 3], (x, y, visible) in pixels of `image`; None where unknown.
    """

    index: Int[np.ndarray, " b"]
    image: UInt8[np.ndarray, "b S S 3"]
    label: Int[np.ndarray, " b"]
    id: list[str]
    keypoints: Float[np.ndarray, "b P 3"] | None


_LONG = 4
"""Times `resize_to`: a longer side is cut before it is resized, which bounds the memory."""

# --- one image ----------------------------------------------------------------------------------


def _geometry(
    width: int, height: int, image_size: int, resize_to: int | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height to resize to, then the left and top corner of the square to cut out."""
    if resize_to is None:
        return (image_size, image_size), (0, 0)
    if resize_to < image_size:
        raise InputError(f"resize_to {resize_to}: expected at least the image size, {image_size}")
    short = min(width, height)
    # Rounded down for the long side and to even for the corner, as torchvision does it.
    resized = (width * resize_to // short, height * resize_to // short)
    return resized, (round((resized[0] - image_size) / 2), round((resized[1] - image_size) / 2))


def preprocess(
    image: UInt8[np.ndarray, "H W 3"], image_size: int, resize_to: int | None = None
) -> UInt8[np.ndarray, "S S 3"]:
    """An image as the classifier takes it, antialiased bilinear.

    Without `resize_to` it is resized to S x S directly, whatever its shape. Otherwise its short
    side is resized to this many pixels, at least S (or `InputError`), and the centre is cut out.
    """
    height, width = image.shape[:2]
    resized, (left, top) = _geometry(width, height, image_size, resize_to)
    if resize_to is not None and max(resized) > _LONG * resize_to:
        return _cut_and_resize(image, image_size, resized, (left, top))
    if resized != (width, height):
        image = np.asarray(Image.fromarray(image).resize(resized, Image.Resampling.BILINEAR))
    return np.ascontiguousarray(image[top : top + image_size, left : left + image_size])


def _cut_and_resize(
    image: UInt8[np.ndarray, "H W 3"],
    size: int,
    resized: tuple[int, int],
    corner: tuple[int, int],
) -> UInt8[np.ndarray, "S S 3"]:
    """The square at `corner` of the resized image, without resizing the rest of a long one.

    Equal to resizing first up to rounding, a level of 255, as the window's corner is no whole
    number of source pixels. For common shapes `preprocess` stays with torchvision's order.
    """
    full = image.shape[1::-1]  # width, height
    scale = [before / after for before, after in zip(full, resized, strict=True)]
    low = [at * ratio for at, ratio in zip(corner, scale, strict=True)]
    high = [(at + size) * ratio for at, ratio in zip(corner, scale, strict=True)]
    # The filter looks one output pixel further, and at least one source pixel.
    first = [max(0, int(at - max(ratio, 1)) - 1) for at, ratio in zip(low, scale, strict=True)]
    last = [int(at + max(ratio, 1)) + 2 for at, ratio in zip(high, scale, strict=True)]
    part = Image.fromarray(image[first[1] : last[1], first[0] : last[0]])
    box = (low[0] - first[0], low[1] - first[1], high[0] - first[0], high[1] - first[1])
    return np.array(part.resize((size, size), Image.Resampling.BILINEAR, box=box))


def move_keypoints(
    keypoints: Float[np.ndarray, "P 3"],
    height: int,
    width: int,
    image_size: int,
    resize_to: int | None = None,
) -> Float[np.ndarray, "P 3"]:
    """Keypoints of a height x width image, moved as `preprocess` moves its pixels.

    A point outside the result, or already outside the image, becomes invisible.
    """
    resized, corner = _geometry(width, height, image_size, resize_to)
    scale = (resized[0] / width, resized[1] / height)
    inside = _move(keypoints, (1.0, 1.0), (0.0, 0.0), (width, height))
    return _move(inside, scale, corner, (image_size, image_size))


def _move(
    keypoints: Float[np.ndarray, "P 3"],
    scale: tuple[float, float],
    shift: tuple[float | int, float | int],
    size: tuple[int, int],
) -> Float[np.ndarray, "P 3"]:
    """Keypoints of an image that was resized, then cropped.

    `scale` is new over old width and height, `shift` the pixels cut off at the left and at the top,
    `size` the result's width and height; a point outside it is no longer visible.
    """
    points = np.asarray(keypoints[:, :2], np.float64) * scale - shift
    inside = ((points >= 0) & (points < size)).all(axis=1)
    visible = (keypoints[:, 2] > 0) & inside
    return np.column_stack([points, visible]).astype(np.float32)


def random_resized_crop(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "P 3"] | None,
    image_size: int,
    smallest: float,
) -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "P 3"] | None]:
    """A random window of an image, resized (Szegedy et al., CVPR 2015, "Inception").

    The window covers a share of the area uniform in [smallest, 1]; its aspect ratio is
    log-uniform in [3/4, 4/3], as far as the image has room for it. It is cut from the image as it
    lies on disk, so that a small one keeps its detail. A keypoint outside it becomes invisible.
    """
    full = np.array(image.shape[1::-1], float)  # width, height
    ratio = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
    size = np.sqrt(rng.uniform(smallest, 1) * full.prod() * np.array([ratio, 1 / ratio]))
    size = np.minimum(size, full)
    corner = rng.uniform(size=2) * (full - size)
    window = Image.fromarray(image).resize(
        (image_size, image_size), Image.Resampling.BILINEAR, box=(*corner, *(corner + size))
    )
    if keypoints is not None:
        scale = image_size / size
        shift = corner * scale
        keypoints = _move(keypoints, tuple(scale), tuple(shift), (image_size, image_size))
    return np.asarray(window), keypoints


# An image's fields of a `Batch`.
_Item = tuple[int, np.ndarray, int, str, np.ndarray | None]


@dataclass(frozen=True)
class _Load:
    """Index -> item, or the error that explains its absence; can travel to a worker process.

    An image is shown as `preprocess` does it or, with a `crop_scale` below 1, through a random
    window that (seed, index) determine.
    """

    dataset: Dataset
    image_size: int
    resize_to: int | None
    crop_scale: float = 1.0
    seed: tuple[int, ...] = ()

    def __post_init__(self):
        _geometry(1, 1, self.image_size, self.resize_to)  # an error now, not in a thread

    def __call__(self, index: int | np.integer) -> _Item | UnreadableImage:
        index = int(index)
        try:
            return self._show(self.dataset[index], index)
        except UnreadableImage as error:
            return error
        except MemoryError:
            return UnreadableImage(self.dataset.ids[index], NO_MEMORY)

    def _show(self, example: Example, index: int) -> _Item:
        size = self.image_size
        image, points = example.image, example.keypoints
        if self.crop_scale < 1:
            rng = np.random.default_rng([*self.seed, index])
            image, points = random_resized_crop(rng, image, points, size, self.crop_scale)
        else:
            if points is not None:
                height, width = image.shape[:2]
                points = move_keypoints(points, height, width, size, self.resize_to)
            image = preprocess(image, size, self.resize_to)
        return index, image, int(example.label), example.id, points


# --- streams ------------------------------------------------------------------------------------


def warn_skipped(error: UnreadableImage) -> None:
    """Log an image that was left out."""
    log.warning("skipped %s: %s", error.id, error.why)


def batches(
    dataset: Dataset,
    indices: Sequence[int] | Int[np.ndarray, " N"],
    batch_size: int,
    image_size: int,
    resize_to: int | None = None,
    *,
    num_workers: int = 0,
    on_skip: Callable[[UnreadableImage], None] = warn_skipped,
) -> Iterator[Batch]:
    """The examples at `indices`, in that order; the last batch may be short.

    An image that cannot be read is left out, its batch filled with the next one, and `on_skip` is
    called with the error before that batch is given out. Reading ahead is limited to a few
    batches, so memory does not grow with `indices`.

    Images are decoded by as many threads as there are processors, which is enough for a few of them
    (decoding and resizing release the GIL), or in `num_workers` processes; but by the caller's
    thread where the dataset has an attribute `in_memory` that is true: a process would need a copy.
    Image size and `resize_to` are those of `preprocess`.
    """
    load = _Load(dataset, image_size, resize_to)
    return _batched(_items(load, indices, batch_size, num_workers, on_skip), batch_size)


def _items(
    load: _Load,
    indices: Sequence[int] | np.ndarray,
    batch_size: int,
    num_workers: int,
    on_skip: Callable[[UnreadableImage], None],
) -> Iterator[_Item]:
    """The readable ones among `indices`, in order, read ahead by about two batches."""
    import grain

    threads = os.cpu_count() or 1
    if getattr(load.dataset, "in_memory", False):
        num_workers = threads = 0
    source: Any = np.asarray(indices, np.int64)
    stream = grain.MapDataset.source(source).map(load)
    stream = stream.to_iter_dataset(
        grain.ReadOptions(
            num_threads=1 if num_workers else threads,
            prefetch_buffer_size=2 * batch_size if threads else 0,
        )
    )
    if num_workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain's worker processes read flags
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(
                num_workers=num_workers, per_worker_buffer_size=2 * batch_size // num_workers + 1
            )
        )
    with closing(iter(stream)) as reader:
        for item in reader:
            if isinstance(item, UnreadableImage):
                on_skip(item)
            else:
                yield item


def _batched(items: Iterator[_Item], batch_size: int) -> Iterator[Batch]:
    while batch := list(itertools.islice(items, batch_size)):
        index, image, label, ids, points = zip(*batch, strict=True)
        yield Batch(
            np.array(index, np.int32),
            np.stack(image),
            np.array(label, np.int32),
            list(ids),
            None if points[0] is None else np.stack(points),
        )


def image_loader(
    dataset: Dataset,
    batch_size: int,
    image_size: int,
    resize_to: int | None = None,
    **options: Any,
) -> Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """`build_bank`'s view of a dataset: indices -> batches (indices [b], float32 images in [0, 1]).

    `options` are those of `batches`.
    """

    def load(indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches(dataset, indices, batch_size, image_size, resize_to, **options):
            yield batch.index, batch.image / np.float32(255)

    return load


def epoch_order(
    size: int, seed: int, epoch: int, process_index: int = 0, process_count: int = 1
) -> Int[np.ndarray, " M"]:
    """This process's share of 0 ... size - 1, in the order that (seed, epoch) determine.

    All shares have the same length; the remainder is dropped, another part every epoch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(size)
    return order[: size - size % process_count][process_index::process_count]


def training_batches(
    dataset: Dataset,
    batch_size: int,
    image_size: int,
    resize_to: int | None = None,
    *,
    seed: int,
    epoch: int,
    crop_scale: float = 1.0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    on_skip: Callable[[UnreadableImage], None] = warn_skipped,
) -> Iterator[Batch]:
    """One epoch, shuffled: len(dataset) // process_count // batch_size whole batches.

    The number holds even where images cannot be read (their places are taken by others of
    the split), so that the processes of a run and its learning rate stay in step. The
    batches are a function of (dataset, seed, epoch, process) alone. With a `crop_scale` below 1,
    every image is shown through a `random_resized_crop` that keeps at least this share of it, in
    the place of `preprocess`. `batch_size` is this process's; other arguments are as for `batches`.

    Raises:
        InputError: Fewer images than a batch holds, or too few that can be read.
    """
    order = epoch_order(len(dataset), seed, epoch, process_index, process_count)
    count = len(order) // batch_size
    if count == 0:
        raise InputError(
            f"batch_size {batch_size}: expected at most {len(order)}, the images of one process"
        )
    wanted, spare = order[: count * batch_size], order[count * batch_size :]
    load = _Load(dataset, image_size, resize_to, crop_scale, (seed, epoch))

    def items() -> Iterator[_Item]:
        for indices in (wanted, spare, wanted):
            yield from _items(load, indices, batch_size, num_workers, on_skip)
        raise InputError(
            f"training images: fewer than {len(wanted) // 2} of {len(order)} can be read"
        )

    return itertools.islice(_batched(items(), batch_size), count)
