"""The misclassified samples that the tables and figures are about, and their explanations.

Banks and explanations are made once and kept in memory for all scripts of one process; the maps of
the rows, which are slow, also on disk (`rows.maps_of`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cache, cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from results import Results, choose, parser, run

from benchmarks.provenance import stamp
from fgvce_jax.bank import Bank, build_bank, pad_batch
from fgvce_jax.cli.presets import find_preset, read_preset
from fgvce_jax.config import MATCHED, ExplainConfig, SearchConfig, from_dict
from fgvce_jax.data.pipeline import image_loader, warn_skipped
from fgvce_jax.errors import InputError
from fgvce_jax.explain import Explanation, explain
from fgvce_jax.files import fingerprint
from fgvce_jax.inference import Predictor
from fgvce_jax.methods.cve import cve_counterfactuals, cve_semantic_counterfactuals
from fgvce_jax.run_inputs import open_inputs
from fgvce_jax.search import Counterfactual

PRESETS = {"birds": "demo"}
SEARCHES = {
    "fgvce": "FG-VCE",
    "fgvce_without_sp": "FG-VCE w/o SP",
    "fgvce_margin": "FG-VCE, margin evidence",
    "fgvce_matched": "FG-VCE (matched)",
}
"""The paper's search, without SP, and with other evidence for the choice of the cell."""


def open_preset(name: str) -> ExplainConfig:
    """A preset of `fgvce explain`: a name in configs/ (birds is the demo's), or a YAML file."""
    try:
        return from_dict(ExplainConfig, read_preset(find_preset(PRESETS.get(name, name))))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"preset {name}: expected a config of `fgvce explain` ({error})"
        ) from error


def in_turns(labels: np.ndarray) -> np.ndarray:
    """The images of a split [N] so that classes take turns: the first of each, the second, ..."""
    by_class = np.argsort(labels, kind="stable")
    ordered = labels[by_class]
    turn = np.empty_like(by_class)
    turn[by_class] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return np.lexsort((labels, turn))


def open_config(options: argparse.Namespace) -> ExplainConfig:
    """The preset of a script's options, with the classifier and the data that they name."""
    config = open_preset(options.preset)
    if options.checkpoint or options.factory:
        given = {"checkpoint": options.checkpoint, "factory": options.factory}
        config = replace(config, model=replace(config.model, **given, weights=None, arch=None))
    if options.data:
        config = replace(config, data=replace(config.data, path=options.data))
    return config


class Study:
    """The first misclassified images of a split, and whatever the rows need to explain them.

    Classes take turns (`in_turns`), so that all of them occur however the split is sorted.
    N `images`, float32 [N, S, S, 3] in [0, 1], at `index` [N] of the split, with P `predicted` and
    Q the `target`, int32 [N], and features `cells` [N, n, n, C]; `looked_at` were read for them.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        wanted: np.ndarray | None = None,
        config: ExplainConfig | None = None,
    ):
        """Open a preset's classifier and data, and take the first mistakes, or `wanted` images.

        `config`, if given, takes the preset's place.
        """
        self.options, self.config = options, config or open_config(options)
        self.inputs = open_inputs(self.config)
        self.clf, labels = self.inputs.clf, self.inputs.labels
        predictor, taken = Predictor(self.clf, options.batch_size), []
        indices, left = in_turns(labels) if wanted is None else wanted, options.images
        for batch in predictor.batches(self.inputs.dataset, indices, warn_skipped):
            feature_map, logits = predictor(batch)
            mistake = (logits.argmax(-1) != labels[batch.index]) | (wanted is not None)
            chosen = np.flatnonzero(mistake)[:left]
            sample = (
                batch._replace(id=np.array(batch.id)),
                jax.device_get(feature_map),
                logits.argmax(-1),
            )
            taken.append(jax.tree.map(itemgetter(chosen), sample))
            left -= len(chosen)
            if not left:
                break
        found, self.feature_map, predicted = jax.tree.map(
            lambda *parts: np.concatenate(parts), *taken
        )
        if not len(predicted):
            raise InputError(f"preset {options.preset}: no image is misclassified")
        self.index, self.ids, self._points = found.index, found.id.tolist(), found.keypoints
        self.images = np.float32(found.image) / 255
        self.looked_at = int(np.flatnonzero(indices == self.index[-1])[0]) + 1
        self.predicted = predicted.astype(np.int32)
        self.target = labels[self.index].astype(np.int32)
        self.cells = self.feature_map.cells
        self.n, self.size = self.cells.shape[1], self.images.shape[1:3]
        self.view = self.clf.image_size, self.clf.resize_to
        self.sigma, self.top_m = self.config.search.sigma, self.config.bank.top_m

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_keypoints(self) -> bool:
        """Whether the dataset knows parts."""
        return self._points is not None

    @property
    def keypoints(self) -> np.ndarray:
        """float32 [N, P, 3] in pixels of `images`; InputError where the dataset has none."""
        if self._points is None:
            name = self.config.data.name
            raise InputError(f"dataset {name} has no keypoints; birds and cub have")
        return self._points

    @cached_property
    def calm(self) -> Study:
        """The same images as the classifier with CALM's head sees them; itself if none is named."""
        if not self.options.calm:
            return self
        of_calm = {"checkpoint": self.options.calm, "factory": None, "calm": None}
        return Study(argparse.Namespace(**vars(self.options) | of_calm), self.index)

    # Its description, and its results.

    @property
    def drawable(self) -> bool:
        """Whether a picture may show the images: of drawn birds, or where it is asked for."""
        return self.config.data.name == "birds" or self.options.panels

    @property
    def samples(self) -> list[dict[str, str]]:
        """The images by their ids, with the names of P and Q."""
        names, found = self.clf.class_names, zip(self.ids, self.predicted, self.target, strict=True)
        return [{"id": id, "P": names[p], "Q": names[q]} for id, p, q in found]

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
        """All that the results depend on, for the JSON."""
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

    def measure(
        self,
        name: str,
        function: Callable[[str], dict[str, Any]],
        known: Iterable[str],
        default: Iterable[str] | None = None,
        **settings: Any,
    ) -> tuple[Results, dict[str, Any]]:
        """A script's results, the chosen rows measured, and all its rows, default ones first."""
        chosen = choose("method", self.options.methods, known, default)
        results = self.results(name, **settings)
        results.measure(chosen, function)
        return results, results.among([*(default or ()), *known])

    def batched(self, function: Callable[..., Any], *arrays: np.ndarray) -> Any:
        """`function` of all samples, a batch of one size at a time."""
        out, size = [], self.options.batch_size
        for start in range(0, len(self), size):
            part = [array[start : start + size] for array in arrays]
            result = jax.device_get(function(*(pad_batch(array, size) for array in part)))
            out.append(jax.tree.map(itemgetter(slice(len(part[0]))), result))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *out)

    # The edits that reference images give.

    @cache  # noqa: B019 (a study lives as long as its script)
    def references(self, indices: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Batches of reference images; every bank asks for the same ones."""
        load = image_loader(self.inputs.references, self.options.batch_size, *self.view)
        return list(load(np.array(indices)))

    @cache  # noqa: B019
    def bank(self, top_m: int | None, sigma: float) -> Bank:
        """Candidates for the targets that occur, with `Bank.image` an index of the split."""
        config, size = replace(self.config.bank, top_m=top_m, sigma=sigma), self.options.batch_size
        labels = self.inputs.reference_labels
        asked = [*self.target, *self.predicted]  # of both classes, for matched evidence
        wanted = np.flatnonzero(np.isin(labels, asked) | (config.reference == "all"))

        def load_wanted(local):
            for index, images in self.references(tuple(wanted[local])):
                yield np.searchsorted(wanted, index), images

        bank = build_bank(self.clf, load_wanted, labels[wanted], config, batch_size=size)
        image = np.where(bank.image >= 0, wanted[bank.image], -1).astype(np.int32)
        return replace(bank, image=image)

    def search(self, name: str) -> tuple[Bank, SearchConfig]:
        """One of `SEARCHES`, and the candidates that it chooses from."""
        config = self.config.search
        if name == "fgvce_without_sp":
            config = replace(config, sigma=0.0)
        elif name == "fgvce_margin":
            config = replace(config, evidence="margin")
        elif name == "fgvce_matched":
            config = replace(MATCHED, sigma=config.sigma, max_iterations=config.max_iterations)
        top_m = None if config.evidence == "matched" else self.top_m
        return self.bank(top_m, config.sigma), config

    @cache  # noqa: B019
    def explanation(self, name: str) -> Explanation:
        """FG-VCE's, NumPy leaves, by one of `SEARCHES`."""
        bank, config = self.search(name)
        function = partial(explain, self.clf, bank, config=config)
        return self.batched(function, self.images, self.target)

    def edited(self, name: str) -> np.ndarray:
        """h*, [N, n, n, C]: the features after the edits of a search."""
        found, (bank, _) = self.explanation(name), self.search(name)
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
        return self.batched(partial(search, self.clf, **options), self.images, self.target)


def script(measure: Callable[[Study], None], description: str | None) -> None:
    """Run one table or figure by itself."""
    run(lambda: measure(Study(parser(description).parse_args())))
