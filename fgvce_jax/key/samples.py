"""The samples of the key: birds, what the classifier makes of them, and their twins.

Three settings share one list of samples: mistakes (P said, Q true), right images against the most
probable sibling (P true, Q the sibling), and those of them with p > 0.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fgvce_jax.bank import pad_batch
from fgvce_jax.data.birds import CHUNK, CLASS_NAMES, DIFFERING, PART_NAMES, Birds
from fgvce_jax.data.pipeline import preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.files import whole_file
from fgvce_jax.key.config import KeyConfig
from fgvce_jax.metrics import true_change
from fgvce_jax.models import Classifier
from fgvce_jax.models.classifier import feature_map_of

SETTINGS = ("mistakes", "siblings", "confident")
CONFIDENT = 0.9
SIBLINGS: Bool[np.ndarray, "K K"] = DIFFERING.sum(-1) == 1


class Chosen(NamedTuple):
    """Samples, before their twins are known; classes as the birds number them.

    Attributes:
        index: Of the picture.
        predicted: P.
        target: Q.
        truth: The bird's own class: Q for a mistake, else P.
        settings: Which of `SETTINGS` each sample belongs to.
    """

    index: Int[np.ndarray, "N"]
    predicted: Int[np.ndarray, "N"]
    target: Int[np.ndarray, "N"]
    truth: Int[np.ndarray, "N"]
    settings: Bool[np.ndarray, "N 3"]


class Samples(NamedTuple):
    """N samples; classes as the classifier numbers them.

    Attributes:
        index: Of the picture.
        images: As the classifier takes them, but for the division by 255.
        predicted: P; `target` is Q, a sibling of it.
        settings: Which of `SETTINGS` each sample belongs to.
        twins: Each bird as one of the other class: of P for a mistake, else of Q.
        part_masks: The visible pixels of each part.
        part: Those of the part in which P and Q differ, in the image or in the twin.
        change: True change of every cell.
        drops: Drop of the logits of P and Q without each part.
    """

    index: Int[np.ndarray, "N"]
    images: UInt8[np.ndarray, "N S S 3"]
    predicted: Int[np.ndarray, "N"]
    target: Int[np.ndarray, "N"]
    settings: Bool[np.ndarray, "N 3"]
    twins: UInt8[np.ndarray, "N S S 3"]
    part_masks: Bool[np.ndarray, "N M S S"]
    part: Bool[np.ndarray, "N S S"]
    change: Float[np.ndarray, "N n n"]
    drops: Float[np.ndarray, "N 2 M"]

    @property
    def pixels(self) -> Float[Any, "N S S 3"]:
        """The images as a classifier takes them, float32 in [0, 1]."""
        return as_float(self.images)

    @property
    def twin_pixels(self) -> Float[Any, "N S S 3"]:
        """The twins, likewise."""
        return as_float(self.twins)

    def first(self, count: int, setting: str) -> Samples:
        """The first samples of a setting."""
        chosen = np.flatnonzero(self.settings[:, SETTINGS.index(setting)])[:count]
        return Samples(*(leaf[chosen] for leaf in self))


def class_numbers(clf: Classifier) -> Int[np.ndarray, "K"]:
    """The classifier's number of each of the birds' classes.

    Raises:
        InputError: A class that it does not have, or others beside them.
    """
    missing = sorted(set(CLASS_NAMES) - set(clf.class_names))
    if missing or len(clf.class_names) != len(CLASS_NAMES):
        named = f", without {missing[0]!r}" if missing else ""
        raise InputError(
            f"model: expected the {len(CLASS_NAMES)} classes of the birds, got "
            f"{clf.num_classes}{named}"
        )
    return np.array([clf.class_names.index(name) for name in CLASS_NAMES], np.int32)


def choose(
    clf: Classifier,
    birds: Birds,
    images: int,
    advance: Callable[[int], None] = lambda count: None,
) -> Chosen:
    """The first `images` samples of each setting, in the order of the pictures.

    A setting has fewer where the split ends before. InputError where one has none.
    """
    number = class_numbers(clf)
    left, found = np.full(len(SETTINGS), images), []
    for start in range(0, len(birds), CHUNK):
        index = np.arange(start, start + CHUNK)
        logits = np.asarray(clf_logits(clf, viewed(birds.images(index), clf)))[:, number]
        chosen = of_chunk(index, birds.labels[index], logits)
        rank = np.cumsum(chosen.settings, 0)
        settings = chosen.settings & (rank <= left)
        kept = settings.any(1)
        advance(int(settings.sum()))
        left -= settings.sum(0)
        found.append(Chosen(*(leaf[kept] for leaf in chosen._replace(settings=settings))))
        if not left.any():
            break
    for setting, missing in zip(SETTINGS, left, strict=True):
        if missing == images:
            raise InputError(f"model: expected some images for the setting {setting}, got none")
    return Chosen(*map(np.concatenate, zip(*found, strict=True)))


def of_chunk(
    index: Int[np.ndarray, "B"], labels: Int[np.ndarray, "B"], logits: Float[np.ndarray, "B K"]
) -> Chosen:
    """Every picture with the settings that it may serve; logits in the order of the birds."""
    said = logits.argmax(-1)
    right = said == labels
    nearest = np.where(SIBLINGS[labels], logits, -np.inf).argmax(-1)
    p = np.asarray(jax.nn.softmax(logits)).max(-1)
    mistake = ~right & SIBLINGS[said, labels]
    settings = np.stack([mistake, right, right & (p > CONFIDENT)], 1)
    target = np.where(right, nearest, labels)
    return Chosen(index, said, target, labels, settings)


def describe(clf: Classifier, birds: Birds, chosen: Chosen, batch_size: int) -> Samples:
    """The samples with their twins, masks and truths."""
    number = class_numbers(clf)
    other = np.where(chosen.truth == chosen.predicted, chosen.target, chosen.predicted)
    own, twin = birds.render_batch(chosen.index), birds.twins(chosen.index, other)
    differing = DIFFERING[chosen.predicted, chosen.target]
    masks = viewed_masks(own["part_masks"], clf)
    part = masks | viewed_masks(twin["part_masks"], clf)
    images, twins = viewed(own["image"], clf), viewed(twin["image"], clf)
    pairs = batched(batch_size, images, twins)
    change = [np.asarray(_changes(clf, image, twin))[:count] for count, (image, twin) in pairs]
    return Samples(
        index=chosen.index,
        images=images,
        predicted=number[chosen.predicted],
        target=number[chosen.target],
        settings=chosen.settings,
        twins=twins,
        part_masks=masks,
        part=np.any(part & differing[:, :, None, None], axis=1),
        change=np.concatenate(change),
        drops=_logit_drops(clf, birds, chosen, images),
    )


@jax.jit
def _changes(clf, images, twins):
    cells, twin_cells = (feature_map_of(clf, as_float(x)).cells for x in (images, twins))
    return jax.vmap(true_change)(cells, twin_cells)


def _logit_drops(
    clf: Classifier, birds: Birds, chosen: Chosen, images: UInt8[np.ndarray, "N S S 3"]
) -> Float[np.ndarray, "N 2 M"]:
    """Drop of the logits of P and of Q without each part."""
    number, drops = class_numbers(clf), []
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        whole = clf_logits(clf, images[rows])
        without = []
        for part in PART_NAMES:
            ablated = birds.withouts(chosen.index[rows], [[part]] * len(whole))["image"]
            without.append(clf_logits(clf, viewed(ablated, clf)))
        lost = whole[:, None] - np.stack(without, 1)
        classes = number[np.stack([chosen.predicted[rows], chosen.target[rows]], 1)]
        drops.append(np.take_along_axis(lost, classes[:, None], -1).swapaxes(1, 2))
    return np.concatenate(drops).astype(np.float32)


# --- arrays of images ---------------------------------------------------------------------------


def as_float(images: Any) -> Any:
    """uint8 images as a classifier takes them, float32 in [0, 1]."""
    return images.astype(np.float32) / 255


def viewed(images: UInt8[np.ndarray, "B H W 3"], clf: Classifier) -> UInt8[np.ndarray, "B S S 3"]:
    """Images as the classifier sees them."""
    view = clf.image_size, clf.resize_to
    return np.stack([preprocess(image, *view) for image in images])


def viewed_masks(
    masks: Bool[np.ndarray, "B M H W"], clf: Classifier
) -> Bool[np.ndarray, "B M S S"]:
    """Masks of parts, moved with the image."""
    if masks.shape[2:] == (clf.image_size,) * 2 and clf.resize_to in (None, clf.image_size):
        return masks
    grey = np.repeat(masks[..., None].astype(np.uint8) * 255, 3, axis=-1)
    moved = viewed(grey.reshape(-1, *grey.shape[2:]), clf)[..., 0] > 127
    return moved.reshape(*masks.shape[:2], *moved.shape[1:])


def clf_logits(clf: Classifier, images: UInt8[np.ndarray, "B S S 3"]) -> Float[np.ndarray, "B K"]:
    """Logits of up to `CHUNK` images, in one shape."""
    return np.asarray(_logits(clf, pad_batch(images, CHUNK)))[: len(images)]


@jax.jit
def _logits(clf, images):
    return clf(as_float(images))


def batched(batch_size: int, *arrays: np.ndarray) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Slices of arrays, padded to one size, with the number of those that count."""
    for start in range(0, len(arrays[0]), batch_size):
        part = [array[start : start + batch_size] for array in arrays]
        yield len(part[0]), [pad_batch(array, batch_size) for array in part]


# --- on disk ------------------------------------------------------------------------------------


def open_samples(
    clf: Classifier, config: KeyConfig, path: Path, advance: Callable[[int], None]
) -> Samples:
    """The samples of a benchmark, rendered where `path` does not hold them yet."""
    if not path.exists():
        birds = Birds("train", seed=config.seed)
        chosen = choose(clf, birds, config.images, advance)
        samples = describe(clf, birds, chosen, config.batch_size)
        with whole_file(path) as file:
            np.savez_compressed(file, **samples._asdict())
    with np.load(path) as kept:
        return Samples(**{name: kept[name] for name in Samples._fields})
