"""The misclassified samples that the tables and figures are about, and what explaining them takes.

What is slow to make (banks, and the rows' maps) is kept on disk for all scripts.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import yaml
from script import ROOT, positive

from fgvce_jax import assets
from fgvce_jax.bank import Bank, build_bank, load_bank, pad_batch, save_bank
from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data import open_dataset
from fgvce_jax.data.pipeline import batches, image_loader, preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.explain import Explanation, explain
from fgvce_jax.methods.cve import cve_counterfactuals, cve_semantic_counterfactuals
from fgvce_jax.models import open_classifier
from fgvce_jax.results import whole_file
from fgvce_jax.run import LabelledAs
from fgvce_jax.search import Counterfactual


def presets() -> list[str]:
    """Names of `open_preset`: birds, and what in configs/ is for `fgvce explain`."""
    known = ExplainConfig.__dataclass_fields__.keys()
    paths = sorted((ROOT / "configs").glob("*.yaml"))
    return ["birds", *(p.stem for p in paths if yaml.safe_load(p.read_text()).keys() <= known)]


def open_preset(name: str) -> ExplainConfig:
    """A preset of `fgvce explain`: a name in configs/ (birds is the demo's), or a YAML file."""
    path = assets.find(f"configs/{'demo' if name == 'birds' else name}.yaml") or assets.find(name)
    if path is None or not path.is_file():
        raise InputError(f"preset {name!r}: expected {', '.join(presets())}, or a YAML file")
    try:
        return from_dict(ExplainConfig, yaml.safe_load(path.read_text()))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"preset {path}: expected a config of `fgvce explain` ({error})"
        ) from error


class Sample(NamedTuple):
    """An image of the split, and what the classifier makes of it.

    Attributes:
        index: In the split.
        id: As the dataset names it.
        image: float32 [S, S, 3] in [0, 1].
        keypoints: float32 [P, 3] in pixels of `image`, or None.
        cells: Its features, [n, n, C].
        predicted: The class that the classifier says.
    """

    index: int
    id: str
    image: np.ndarray
    keypoints: np.ndarray | None
    cells: np.ndarray
    predicted: int


class Study:
    """The first misclassified images of a split, and whatever the rows need to explain them.

    Attributes:
        clf: The classifier.
        config: The preset, which all rows follow.
        images: float32 [N, S, S, 3] in [0, 1].
        predicted: P, int32 [N].
        target: Q, the correct class, int32 [N].
        ids: Of the images.
        index: Of the images in the split, int [N].
        cells: Features of the images, [N, n, n, C].
        looked_at: Images of the split until N were misclassified.
    """

    def __init__(self, options: argparse.Namespace):
        positive(options, "images", "batch_size", "rise_masks", "ep_iterations")
        config = open_preset(options.preset)
        if options.checkpoint:
            model = replace(config.model, checkpoint=options.checkpoint, weights=None)
            config = replace(config, model=model)
        self._open(options, config)
        wrong: list[Sample] = []
        self.looked_at = 0
        for sample in self._seen(np.arange(len(self.dataset))):
            self.looked_at += 1
            if sample.predicted != self.dataset.labels[sample.index]:
                wrong.append(sample)
            if len(wrong) == options.images:
                break
        if not wrong:
            raise InputError(f"preset {options.preset}: no image is misclassified")
        self._take(wrong)

    def of(self, checkpoint: str) -> Study:
        """The same images for another classifier: its own P, features and maps."""
        other = object.__new__(Study)
        model = replace(self.config.model, checkpoint=checkpoint, arch=None, weights=None)
        other._open(self.options, replace(self.config, model=model))
        other.looked_at = self.looked_at
        other._take(list(other._seen(self.index)))
        return other

    @cached_property
    def calm(self) -> Study:
        """The same images for the classifier with CALM's head; this study where none is named."""
        return self.of(self.options.calm) if self.options.calm else self

    def _open(self, options: argparse.Namespace, config: ExplainConfig) -> None:
        self.options, self.config, self.batch_size = options, config, options.batch_size
        self.clf = open_classifier(config.model)
        data = open_dataset(config.data.name, config.split, config.data.path)
        self.dataset = LabelledAs(data, self.clf)

    def _seen(self, indices: np.ndarray) -> Iterator[Sample]:
        view = (self.clf.image_size, self.clf.resize_to)
        for batch in batches(self.dataset.dataset, indices, self.batch_size, *view):
            images = np.float32(batch.image) / 255
            cells = features(self.clf, pad_batch(images, self.batch_size))[: len(images)]
            logits = np.asarray(self.clf.head(cells))
            points = [None] * len(images) if batch.keypoints is None else batch.keypoints
            for i, id, image, point, own, row in zip(
                batch.index, batch.id, images, points, np.asarray(cells), logits, strict=True
            ):
                if np.isnan(row).any():
                    raise InputError(f"image {id}: the classifier's logits are NaN")
                yield Sample(int(i), id, image, point, own, int(row.argmax()))

    def _take(self, samples: Sequence[Sample]) -> None:
        index, self.ids, images, points, cells, predicted = zip(*samples, strict=True)
        self.index, self.images, self.cells = np.array(index), np.stack(images), np.stack(cells)
        self.predicted = np.array(predicted, np.int32)
        self.target = np.asarray(self.dataset.labels)[self.index].astype(np.int32)
        self._keypoints = None if points[0] is None else np.stack(points)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n(self) -> int:
        """Cells per side."""
        return self.cells.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[1:3]

    @property
    def sigma(self) -> float:
        """Width of the contribution masks, in cells."""
        return self.config.search.sigma

    @property
    def top_m(self) -> int | None:
        """Candidates of each reference image."""
        return self.config.bank.top_m

    @property
    def captions(self) -> list[str]:
        """P and Q of every image, in two lines."""
        return [f"P: {sample['P']}\nQ: {sample['Q']}" for sample in self.samples]

    @property
    def samples(self) -> list[dict[str, str]]:
        """The images by their ids, with the names of P and Q."""
        names = self.clf.class_names
        return [
            {"id": id, "P": names[p], "Q": names[q]}
            for id, p, q in zip(self.ids, self.predicted, self.target, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Of all that maps depend on."""
        c = self.config
        view = self.clf.image_size, self.clf.resize_to
        depends = c.data, c.bank, c.search, c.split, c.reference_split, self.ids, view
        digest = hashlib.sha256(repr(depends).encode())
        for leaf in jax.tree.leaves(self.clf):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()[:12]

    @property
    def kept(self) -> Path:
        """The folder of this study's maps and banks."""
        folder = self.options.maps / self.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the results depend on, for the JSON."""
        return {
            "preset": self.options.preset,
            "checkpoint": self.options.checkpoint,
            "dataset": self.config.data.name,
            "split": self.config.split,
            "arch": None if self.clf.spec is None else self.clf.spec.arch,
            "images": len(self),
            "looked_at": self.looked_at,
            "image_size": self.clf.image_size,
            "cells": self.n,
            "search": asdict(self.config.search),
            "bank": asdict(self.config.bank),
            "fingerprint": self.fingerprint,
        }

    def batched(self, function: Callable[..., Any], *arrays: np.ndarray) -> Any:
        """`function` of all samples, a batch of one size at a time."""
        out = []
        for start in range(0, len(self), self.batch_size):
            part = [array[start : start + self.batch_size] for array in arrays]
            short = len(part[0])
            result = function(*(pad_batch(array, self.batch_size) for array in part))
            out.append(jax.tree.map(lambda leaf, m=short: np.asarray(leaf)[:m], result))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *out)

    # What is known of the images.

    @property
    def keypoints(self) -> np.ndarray:
        """float32 [N, P, 3] in pixels of `images`.

        Raises:
            InputError: The dataset has none.
        """
        if self._keypoints is None:
            raise InputError(
                f"dataset {self.config.data.name} has no keypoints; birds and cub have, and dogs "
                "does where `fgvce data prepare dogs` was given StanfordExtra's --keypoints"
            )
        return self._keypoints

    @cached_property
    def part_masks(self) -> np.ndarray:
        """bool [N, M, S, S].

        Raises:
            InputError: The dataset has none.
        """

        def view(mask):
            grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
            return preprocess(grey, self.clf.image_size, self.clf.resize_to)[..., 0] > 127

        masks = [self.dataset.dataset[int(i)].part_masks for i in self.index]
        if masks[0] is None:
            raise InputError(f"dataset {self.config.data.name} has no part masks; birds has")
        return np.stack([[view(mask) for mask in sample] for sample in masks])

    @cached_property
    def differing(self) -> np.ndarray:
        """The parts in which P and Q differ, bool [N, M].

        Raises:
            InputError: That is not known of the dataset.
        """
        if self.config.data.name != "birds":
            raise InputError(
                f"it is not known in which parts the classes of dataset {self.config.data.name} "
                "differ; of birds it is"
            )
        from fgvce_jax.data.birds import CLASS_NAMES, PART_NAMES, differing_parts

        number = [CLASS_NAMES.index(name) for name in self.clf.class_names]
        return np.array(
            [
                [part in differing_parts(number[p], number[q]) for part in PART_NAMES]
                for p, q in zip(self.predicted, self.target, strict=True)
            ]
        )

    # Reference images and what is made of them.

    @cached_property
    def references(self) -> LabelledAs:
        """The split that reference images come from."""
        data = self.config.data
        return LabelledAs(open_dataset(data.name, self.config.reference_split, data.path), self.clf)

    @cache  # noqa: B019 (a study lives as long as its script)
    def bank(self, top_m: int | None, sigma: float) -> Bank:
        """Candidates for the targets that occur, with `Bank.image` an index of the split."""
        if top_m is not None:
            return best(self.bank(None, sigma), top_m, self.n**2)
        path = self.kept / f"bank-{sigma}.npz"
        key = {"fingerprint": self.fingerprint, "sigma": sigma}
        if path.exists():
            return load_bank(path, key)[0]
        bank = self._whole_bank(sigma)
        with whole_file(path) as file:
            save_bank(bank, file, key)
        return bank

    def _whole_bank(self, sigma: float) -> Bank:
        options = self.config.bank
        labels = np.asarray(self.references.labels)
        usable = options.reference == "all" or np.isin(labels, self.target)
        wanted = np.flatnonzero(np.broadcast_to(usable, labels.shape))
        place = {int(i): k for k, i in enumerate(wanted)}

        def load(local):
            for index, images in self._reference_batches(wanted[local]):
                yield np.array([place[int(i)] for i in index]), images

        bank = build_bank(
            self.clf,
            load,
            labels[wanted],
            options.per_class,
            None,
            sigma=sigma,
            reference=options.reference,
            batch_size=self.batch_size,
        )
        image = np.asarray(bank.image)
        image = np.where(image >= 0, wanted[image], -1).astype(np.int32)
        return replace(bank, image=image)

    def _reference_batches(self, indices: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """As `image_loader` gives them, each image read once for all banks."""
        if not hasattr(self, "_read"):
            self._read: dict[int, np.ndarray] = {}
        new = np.array([i for i in indices if int(i) not in self._read], int)
        load = image_loader(
            self.references.dataset, self.batch_size, self.clf.image_size, self.clf.resize_to
        )
        for index, images in load(new) if len(new) else ():
            for i, image in zip(index, images, strict=True):
                self._read[int(i)] = np.round(image * 255).astype(np.uint8)
        there = np.array([i for i in indices if int(i) in self._read])
        for start in range(0, len(there), self.batch_size):
            part = there[start : start + self.batch_size]
            yield part, np.stack([self._read[int(i)] for i in part]) / np.float32(255)

    # Edits.

    @cache  # noqa: B019
    def explanation(self, sigma: float) -> Explanation:
        """FG-VCE's, NumPy leaves; sigma 0 is "without SP"."""
        search = asdict(replace(self.config.search, sigma=sigma))
        bank = self.bank(self.top_m, sigma)
        return self.batched(
            lambda images, labels: explain(self.clf, bank, images, labels, **search),
            self.images,
            self.target,
        )

    def edited(self, sigma: float) -> np.ndarray:
        """h*, [N, n, n, C]: the features after FG-VCE's edits."""
        found, bank = self.explanation(sigma), self.bank(self.top_m, sigma)
        candidates = np.asarray(bank.cells)
        cells = self.cells.reshape(len(self), self.n**2, -1).copy()
        for i, group in enumerate(bank.group(self.target)):
            used = slice(int(found.num_edits[i]))
            cells[i, found.edit_cell[i, used]] = candidates[group, found.edit_candidate[i, used]]
        return cells.reshape(self.cells.shape)

    @cache  # noqa: B019
    def exhaustive(self, name: str) -> Counterfactual:
        """The edits of "cve" or "cve_semantic", which choose from all cells of the references."""
        searches = {"cve": cve_counterfactuals, "cve_semantic": cve_semantic_counterfactuals}
        search = partial(
            searches[name],
            self.clf,
            bank=self.bank(None, self.sigma),
            max_iterations=self.config.search.max_iterations,
        )
        return self.batched(search, self.images, self.target)


@jax.jit
def features(clf, images):
    """Cells of a batch."""
    return clf.features(images)


def best(bank: Bank, top_m: int, every: int) -> Bank:
    """Of a bank that keeps all `every` cells of an image, the `top_m` best of each image.

    Raises:
        InputError: `top_m` is more than there are.
    """
    if top_m > every:
        raise InputError(f"top_m {top_m}: expected 1 to {every} cells")

    def keep(leaf):
        groups = leaf.reshape(len(leaf), -1, every, *leaf.shape[2:])[:, :, :top_m]
        return groups.reshape(len(leaf), -1, *leaf.shape[2:])

    kept = {
        name: jax.tree.map(keep, getattr(bank, name))
        for name in ("cells", "norms", "prepared", "valid", "image", "cell")
    }
    return replace(bank, **kept, config=replace(bank.config, top_m=top_m))
