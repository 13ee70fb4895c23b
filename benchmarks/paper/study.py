"""The misclassified samples that the tables and figures are about, and their explanations.

Banks and explanations are made once and kept in memory for all scripts of one process; the maps of
the rows, which are slow, also on disk (`rows.maps_of`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from results import Results, parser, run

from benchmarks.provenance import stamp
from fgvce_jax.bank import Bank, build_bank, pad_batch
from fgvce_jax.cli.presets import find_preset, read_preset
from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data import open_dataset
from fgvce_jax.data.labels import match_labels
from fgvce_jax.data.pipeline import batches, image_loader
from fgvce_jax.errors import InputError
from fgvce_jax.explain import Explanation, explain
from fgvce_jax.files import fingerprint
from fgvce_jax.methods.cve import cve_counterfactuals, cve_semantic_counterfactuals
from fgvce_jax.models import open_classifier
from fgvce_jax.models.classifier import cells_of
from fgvce_jax.search import Counterfactual

PRESETS = {"birds": "demo"}


def open_preset(name: str) -> ExplainConfig:
    """A preset of `fgvce explain`: a name in configs/ (birds is the demo's), or a YAML file."""
    try:
        return from_dict(ExplainConfig, read_preset(find_preset(PRESETS.get(name, name))))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"preset {name}: expected a config of `fgvce explain` ({error})"
        ) from error


class Study:
    """The first misclassified images of a split, and whatever the rows need to explain them.

    Attributes:
        options: Of the command line.
        config: The preset, which all rows follow.
        clf: The classifier.
        data: The split, an example an index.
        images: float32 [N, S, S, 3] in [0, 1].
        predicted: P, int32 [N].
        target: Q, the correct class, int32 [N].
        ids: Of the images.
        index: Of the images in the split, int [N].
        cells: Features of the images, [N, n, n, C].
        looked_at: Images of the split until N were misclassified.
    """

    def __init__(self, options: argparse.Namespace, wanted: np.ndarray | None = None):
        """Open a preset's classifier and data, and take the first mistakes, or `wanted` images."""
        self.options, self.config = options, open_preset(options.preset)
        if options.checkpoint:
            model = replace(self.config.model, checkpoint=options.checkpoint, weights=None)
            self.config = replace(self.config, model=replace(model, arch=None))
        self.clf = open_classifier(self.config.model)
        self.view = self.clf.image_size, self.clf.resize_to
        self.data, labels = self._open(self.config.split)
        taken = []
        for sample in self._read(np.arange(len(labels)) if wanted is None else wanted):
            if wanted is not None or sample[-1] != labels[sample[0]]:
                taken.append(sample)
            if len(taken) == options.images:
                break
        if not taken:
            raise InputError(f"preset {options.preset}: no image is misclassified")
        index, self.ids, images, points, cells, predicted = zip(*taken, strict=True)
        self.index, self.images, self.cells = np.array(index), np.stack(images), np.stack(cells)
        self.looked_at = int(self.index[-1]) + 1
        self.predicted = np.array(predicted, np.int32)
        self.target = labels[self.index].astype(np.int32)
        self._points = None if points[0] is None else np.stack(points)
        self.n, self.size = self.cells.shape[1], self.images.shape[1:3]
        self.sigma, self.top_m = self.config.search.sigma, self.config.bank.top_m

    def _open(self, split: str) -> tuple[Any, np.ndarray]:
        """A split, and its labels as the classifier numbers them."""
        data = open_dataset(self.config.data.name, split, self.config.data.path)
        return data, np.asarray(match_labels(data, self.clf).labels)

    def _read(self, indices: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """(index, id, image, keypoints or None, cells, predicted class) of images of the split."""
        size = self.options.batch_size
        for batch in batches(self.data, indices, size, *self.view):
            images = np.float32(batch.image) / 255
            cells = cells_of(self.clf, pad_batch(images, size))[: len(images)]
            logits = np.asarray(self.clf.head(cells))
            if np.isnan(logits).any():
                raise InputError(f"images {list(batch.id)}: the classifier's logits are NaN")
            points = [None] * len(images) if batch.keypoints is None else batch.keypoints
            found = batch.index, batch.id, images, points, np.asarray(cells), logits.argmax(-1)
            yield from zip(*found, strict=True)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def keypoints(self) -> np.ndarray:
        """float32 [N, P, 3] in pixels of `images`; InputError where the dataset has none."""
        if self._points is None:
            raise InputError(
                f"dataset {self.config.data.name} has no keypoints; birds and cub have"
            )
        return self._points

    @cached_property
    def calm(self) -> Study:
        """The same images, with P, features and maps of the classifier with CALM's head.

        This study itself where none is named.
        """
        if not self.options.calm:
            return self
        of_calm = {"checkpoint": self.options.calm, "calm": None}
        return Study(argparse.Namespace(**vars(self.options) | of_calm), self.index)

    # Its description.

    @property
    def samples(self) -> list[dict[str, str]]:
        """The images by their ids, with the names of P and Q."""
        names = self.clf.class_names
        return [
            {"id": id, "P": names[p], "Q": names[q]}
            for id, p, q in zip(self.ids, self.predicted, self.target, strict=True)
        ]

    @property
    def captions(self) -> list[str]:
        """P and Q of every image, in two lines."""
        return [f"P: {sample['P']}\nQ: {sample['Q']}" for sample in self.samples]

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The stamp of what is measured here."""
        return stamp(self.clf)

    @cached_property
    def kept(self) -> Path:
        """The folder of this study's maps: its name depends on all that they depend on."""
        depends = self.config, self.ids, self.view, self.settings, self.provenance["checkpoint"]
        return self.options.maps / fingerprint(depends, self.provenance["code"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the results depend on, for the JSON."""
        return {
            "preset": self.options.preset,
            "dataset": self.config.data.name,
            "split": self.config.split,
            "arch": None if self.clf.spec is None else self.clf.spec.arch,
            "images": len(self),
            "looked_at": self.looked_at,
            "image_size": self.clf.image_size,
            "cells": self.n,
            "rise_masks": self.options.rise_masks,
            "ep_iterations": self.options.ep_iterations,
            "search": asdict(self.config.search),
            "bank": asdict(self.config.bank),
        }

    def results(self, name: str, **settings: Any) -> Results:
        """The JSON of a script that measures this study."""
        path = self.options.out / f"{name}.json"
        return Results(path, self.settings | settings, self.provenance, samples=self.samples)

    def batched(self, function: Callable[..., Any], *arrays: np.ndarray) -> Any:
        """`function` of all samples, a batch of one size at a time."""
        out, size = [], self.options.batch_size
        for start in range(0, len(self), size):
            part = [array[start : start + size] for array in arrays]
            result = function(*(pad_batch(array, size) for array in part))
            count = len(part[0])
            out.append(jax.tree.map(lambda leaf, m=count: np.asarray(leaf)[:m], result))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *out)

    # Reference images, and the edits that they give.

    @cached_property
    def references(self) -> tuple[Any, np.ndarray]:
        """The split that reference images come from, and its labels."""
        self._read_already: dict[int, np.ndarray] = {}  # the images, for all banks
        return self._open(self.config.reference_split)

    @cache  # noqa: B019 (a study lives as long as its script)
    def bank(self, top_m: int | None, sigma: float) -> Bank:
        """Candidates for the targets that occur, with `Bank.image` an index of the split."""
        config, size = replace(self.config.bank, top_m=top_m, sigma=sigma), self.options.batch_size
        data, labels = self.references
        wanted = np.flatnonzero(np.isin(labels, self.target) | (config.reference == "all"))
        load = image_loader(data, size, *self.view)

        def load_wanted(local):
            indices = wanted[local]
            new = np.array([i for i in indices if i not in self._read_already], int)
            for index, images in load(new) if len(new) else ():
                self._read_already |= zip(index.tolist(), images, strict=True)
            there = np.array([i for i in indices if i in self._read_already], int)
            for start in range(0, len(there), size):
                part = there[start : start + size]
                images = np.stack([self._read_already[i] for i in part])
                yield np.searchsorted(wanted, part), images

        bank = build_bank(self.clf, load_wanted, labels[wanted], config, batch_size=size)
        image = np.where(bank.image >= 0, wanted[bank.image], -1).astype(np.int32)
        return replace(bank, image=image)

    @cache  # noqa: B019
    def explanation(self, sigma: float) -> Explanation:
        """FG-VCE's, NumPy leaves; sigma 0 is "without SP"."""
        bank = self.bank(self.top_m, sigma)
        config = replace(self.config.search, sigma=sigma)
        return self.batched(
            lambda images, labels: explain(self.clf, bank, images, labels, config),
            self.images,
            self.target,
        )

    def edited(self, sigma: float) -> np.ndarray:
        """h*, [N, n, n, C]: the features after FG-VCE's edits."""
        found, bank = self.explanation(sigma), self.bank(self.top_m, sigma)
        cells = self.cells.reshape(len(self), self.n**2, -1).copy()
        for i, group in enumerate(bank.group[self.target]):
            used = slice(int(found.num_edits[i]))
            cells[i, found.edit_cell[i, used]] = bank.cells[group, found.edit_candidate[i, used]]
        return cells.reshape(self.cells.shape)

    @cache  # noqa: B019
    def exhaustive(self, name: str) -> Counterfactual:
        """The edits of "cve" or "cve_semantic", which choose from all cells of the references."""
        search = cve_counterfactuals if name == "cve" else cve_semantic_counterfactuals
        options = {"bank": self.bank(None, self.sigma)}
        options["max_iterations"] = self.config.search.max_iterations
        return self.batched(
            lambda images, labels: search(self.clf, images, labels, **options),
            self.images,
            self.target,
        )


def script(measure: Callable[[Study], None], description: str | None) -> None:
    """Run one table or figure by itself."""
    run(lambda: measure(Study(parser(description).parse_args())))
