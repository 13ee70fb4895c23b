"""What the tables and figures share: misclassified samples, a row per explainer, scores, files.

A script takes a preset, a number of images and a list of rows. It writes its JSON after every row
and takes rows that are there already as they are, so that it continues where it was stopped. Maps
are kept too, for all scripts.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml
from common import machine

from fgvce_jax import assets
from fgvce_jax.bank import Bank, build_bank, load_bank, pad_batch, save_bank
from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data import open_dataset
from fgvce_jax.data.pipeline import batches, image_loader, preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.explain import Explanation, explain
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd
from fgvce_jax.metrics import compactness, faithfulness, score
from fgvce_jax.results import whole_file
from fgvce_jax.run import LabelledAs, open_classifier

ROOT = Path(__file__).resolve().parent.parent
PAPER = json.loads((Path(__file__).parent / "paper.json").read_text())
MEASURES = {
    "insertion": "Insertion ↑",
    "deletion": "Deletion ↓",
    "compactness": "Compactness ξ ↑",
}


# --- the samples --------------------------------------------------------------------------------


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


class Study:
    """The first misclassified images of a split, and whatever the rows need to explain them.

    Attributes:
        clf: The classifier.
        images: float32 [N, S, S, 3] in [0, 1].
        predicted: P, int32 [N].
        target: Q, the correct class, int32 [N].
        ids: Of the images.
        keypoints: float32 [N, P, 3] in pixels of `images`, or None.
        cells: Features of the images, [N, n, n, C].
        looked_at: Images of the split until N were misclassified.
    """

    def __init__(self, options: argparse.Namespace):
        self.options = options
        config = open_preset(options.preset)
        if options.checkpoint:
            config = replace(config, model=replace(config.model, checkpoint=options.checkpoint))
        self.config, self.batch_size = config, options.batch_size
        self.clf = open_classifier(config.model)
        self.dataset = LabelledAs(
            open_dataset(config.data.name, config.split, config.data.path), self.clf
        )
        self._find(options.images)

    def _find(self, count: int) -> None:
        wrong, cells = [], []
        self.looked_at = 0
        view = (self.clf.image_size, self.clf.resize_to)
        everything = np.arange(len(self.dataset))
        for batch in batches(self.dataset.dataset, everything, self.batch_size, *view):
            images = np.float32(batch.image) / 255
            found = features(self.clf, pad_batch(images, self.batch_size))[: len(images)]
            predicted = np.asarray(self.clf.head(found)).argmax(-1)
            for b, i in enumerate(batch.index):
                if len(wrong) == count:
                    break
                self.looked_at += 1
                if predicted[b] != self.dataset.labels[i]:
                    points = None if batch.keypoints is None else batch.keypoints[b]
                    wrong.append((int(i), batch.id[b], images[b], predicted[b], points))
                    cells.append(np.asarray(found[b]))
            if len(wrong) == count:
                break
        if not wrong:
            raise InputError(f"preset {self.options.preset}: no image is misclassified")
        index, self.ids, images, predicted, points = zip(*wrong, strict=True)
        self.index = np.array(index)
        self.images, self.predicted = np.stack(images), np.array(predicted, np.int32)
        self.target = np.asarray(self.dataset.labels)[self.index].astype(np.int32)
        self.keypoints = None if points[0] is None else np.stack(points)
        self.cells = np.stack(cells)

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
    def captions(self) -> list[str]:
        """P and Q of every image, in two lines."""
        names = self.clf.class_names
        return [
            f"P: {names[p]}\nQ: {names[q]}"
            for p, q in zip(self.predicted, self.target, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Of all that maps depend on."""
        c = self.config
        depends = c.data, c.bank, c.search, c.split, c.reference_split, self.ids
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
            "dataset": self.config.data.name,
            "arch": None if self.clf.spec is None else self.clf.spec.arch,
            "images": len(self),
            "looked_at": self.looked_at,
            "image_size": self.clf.image_size,
            "cells": self.n,
            "search": asdict(self.config.search),
            "bank": asdict(self.config.bank),
            "fingerprint": self.fingerprint,
        }

    def batched(self, function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
        """`function` of all samples, a batch of one size at a time."""
        out = []
        for start in range(0, len(self), self.batch_size):
            part = [array[start : start + self.batch_size] for array in arrays]
            short = len(part[0])
            result = function(*(pad_batch(array, self.batch_size) for array in part))
            out.append(jax.tree.map(lambda leaf, m=short: np.asarray(leaf)[:m], result))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *out)

    # What is known of the images.

    @cached_property
    def part_masks(self) -> np.ndarray:
        """bool [N, M, S, S]."""

        def view(mask):
            grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
            return preprocess(grey, self.clf.image_size, self.clf.resize_to)[..., 0] > 127

        masks = [self.dataset.dataset[int(i)].part_masks for i in self.index]
        if masks[0] is None:
            raise InputError(f"dataset {self.config.data.name}: has no part masks; birds has them")
        return np.stack([[view(mask) for mask in sample] for sample in masks])

    @property
    def knows_parts(self) -> bool:
        """Whether it is known in which parts classes differ."""
        return self.config.data.name == "birds"

    @cached_property
    def differing(self) -> np.ndarray:
        """The parts in which P and Q differ, bool [N, M]."""
        if not self.knows_parts:
            raise InputError(
                f"dataset {self.config.data.name}: not known in which parts its classes differ; "
                "for birds it is"
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
    def bank(self, top_m: int | None = 10, sigma: float = 0.8) -> Bank:
        """Candidates for the targets that occur, with `Bank.image` an index of the split."""
        if top_m is not None:
            return best(self.bank(None, sigma), top_m)
        path = self.kept / f"bank-{sigma}.npz"
        key = {"fingerprint": self.fingerprint, "sigma": sigma}
        if path.exists():
            return load_bank(path, key)
        bank = self._whole_bank(sigma)
        with whole_file(path) as file:
            save_bank(bank, file, key)
        return bank

    def _whole_bank(self, sigma: float) -> Bank:
        wanted = np.flatnonzero(np.isin(self.references.labels, self.target))
        place = {int(i): k for k, i in enumerate(wanted)}

        def load(local):
            for index, images in self._reference_batches(wanted[local]):
                yield np.array([place[int(i)] for i in index]), images

        bank = build_bank(
            self.clf,
            load,
            np.asarray(self.references.labels)[wanted],
            self.config.bank.per_class,
            None,
            sigma=sigma,
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

    @cache  # noqa: B019
    def explanation(self, top_m: int | None = 10, sigma: float = 0.8) -> Explanation:
        """FG-VCE's, NumPy leaves; sigma 0 is "without SP"."""
        search = asdict(replace(self.config.search, sigma=sigma))
        bank = self.bank(top_m, sigma)
        return self.batched(
            lambda images, labels: explain(self.clf, bank, images, labels, **search),
            self.images,
            self.target,
        )

    def edited(self, top_m: int | None = 10, sigma: float = 0.8) -> np.ndarray:
        """h*, [N, n, n, C]: the features after FG-VCE's edits."""
        found, candidates = (
            self.explanation(top_m, sigma),
            np.asarray(self.bank(top_m, sigma).cells),
        )
        cells = self.cells.reshape(len(self), self.n**2, -1).copy()
        for i, q in enumerate(self.target):
            used = slice(int(found.num_edits[i]))
            cells[i, found.edit_cell[i, used]] = candidates[q, found.edit_candidate[i, used]]
        return cells.reshape(self.cells.shape)


@jax.jit
def features(clf, images):
    """Cells of a batch."""
    return clf.features(images)


def best(bank: Bank, top_m: int) -> Bank:
    """Of a bank that keeps all cells, the `top_m` best of each image."""
    per_class = bank.config.per_class
    every = bank.cells.shape[1] // per_class

    def keep(leaf):
        groups = leaf.reshape(leaf.shape[0], per_class, every, *leaf.shape[2:])[:, :, :top_m]
        return groups.reshape(leaf.shape[0], per_class * top_m, *leaf.shape[2:])

    kept = {
        name: jax.tree.map(keep, getattr(bank, name))
        for name in ("cells", "norms", "prepared", "valid", "image", "cell")
    }
    return replace(bank, **kept, config=replace(bank.config, top_m=top_m))


# --- the rows -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """Maps of all samples.

    Attributes:
        maps: float32 [N, m, m].
        classes: The class that each explains, int32 [N].
        cells: The features that each explains, [N, n, n, C].
    """

    maps: np.ndarray
    classes: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True)
class Row:
    """A system of the tables.

    Attributes:
        label: Its name in a table.
        explains: "P" or "Q": the class that its maps explain.
        explain: Study -> maps, or (maps, features that they are of).
        paper: Its key in paper.json's tables.
    """

    label: str
    explains: str
    explain: Callable[[Study], Any]
    paper: str | None = None


def _of_class(name: str, explains: str = "P", **options: Any) -> Callable[[Study], np.ndarray]:
    def maps(study: Study) -> np.ndarray:
        classes = study.predicted if explains == "P" else study.target
        own = {key: value(study) if callable(value) else value for key, value in options.items()}
        return study.batched(partial(_named(name), study.clf, **own), study.images, classes)

    return maps


def _contrastive(name: str, **options: Any) -> Callable[[Study], np.ndarray]:
    def maps(study: Study) -> np.ndarray:
        own = {key: value(study) if callable(value) else value for key, value in options.items()}
        return study.batched(
            partial(_named(name), study.clf, **own), study.images, study.predicted, study.target
        )

    return maps


def _named(name: str) -> Callable[..., Any]:
    return METHODS[name]


def _cce_dominant(study: Study) -> tuple[np.ndarray, np.ndarray]:
    attacked = study.batched(partial(pgd, study.clf), study.images, study.target).images
    cells = study.batched(partial(features, study.clf), attacked)
    return _contrastive("cce", region="dominant")(study), cells


def _fgvce(region: str, sigma: float = 0.8) -> Callable[[Study], Any]:
    def maps(study: Study) -> Any:
        found = getattr(study.explanation(sigma=sigma), region)
        return found if region == "invariant" else (found, study.edited(sigma=sigma))

    return maps


def _random(study: Study) -> np.ndarray:
    """The control: cells in an order drawn once for every sample."""
    rng = np.random.default_rng(0)
    return (
        rng.permuted(np.tile(np.arange(1, study.n**2 + 1.0), (len(study), 1)), axis=1).reshape(
            len(study), study.n, study.n
        )
        / study.n**2
    )


_BANK = {"bank": lambda study: study.bank(None)}
ROWS: Mapping[str, Row] = {
    "gbp": Row("GBP", "P", _of_class("gbp"), "gbp"),
    "ig": Row("IG", "P", _of_class("ig"), "ig"),
    "rise": Row("RISE", "P", _of_class("rise", num_masks=lambda s: s.options.rise_masks), "rise"),
    "ep": Row("EP", "P", _of_class("ep", iterations=lambda s: s.options.ep_iterations), "ep"),
    "gradcam": Row("GradCAM", "P", _of_class("gradcam"), "gradcam"),
    "gradcampp": Row("GradCAM++", "P", _of_class("gradcampp"), "gradcampp"),
    "scorecam": Row("ScoreCAM", "P", _of_class("scorecam"), "scorecam"),
    "layercam": Row("LayerCAM", "P", _of_class("layercam")),
    "fgcam": Row("FG-CAM", "P", _of_class("fgcam"), "fgcam"),
    "calm": Row("CALM", "P", _of_class("calm"), "calm"),
    "contributions": Row("contributions alone", "P", _of_class("contributions")),
    "ce": Row("CE", "P", _contrastive("ce"), "ce"),
    "scout": Row("SCOUT", "P", _contrastive("scout"), "scout"),
    "cce": Row("CCE, invariant", "P", _contrastive("cce"), "cce"),
    "fgvce_invariant": Row("FG-VCE, invariant", "P", _fgvce("invariant"), "fgvce"),
    "random": Row("random cells, asked of P", "P", _random),
    "cce_dominant": Row("CCE, dominant", "Q", _cce_dominant, "cce"),
    "cve": Row("CVE", "Q", _contrastive("cve", **_BANK)),
    "cve_semantic": Row("CVE-semantic", "Q", _contrastive("cve_semantic", **_BANK)),
    "fgvce_dominant": Row("FG-VCE, dominant", "Q", _fgvce("dominant"), "fgvce"),
    "gradcam_q": Row("GradCAM of Q", "Q", _of_class("gradcam", "Q")),
    "contributions_q": Row("contributions to Q", "Q", _of_class("contributions", "Q")),
    "random_q": Row("random cells, asked of Q", "Q", _random),
    # Table 3 and Fig. 5.
    "ce_sp": Row("CE + SP", "P", _contrastive("ce", sp_sigma=0.8), "ce_sp"),
    "scout_sp": Row("SCOUT + SP", "P", _contrastive("scout", sp_sigma=0.8), "scout_sp"),
    "cce_sp": Row("CCE + SP, invariant", "P", _contrastive("cce", sp_sigma=0.8), "cce_sp"),
    "fgvce_invariant_without_sp": Row(
        "FG-VCE w/o SP, invariant", "P", _fgvce("invariant", 0.0), "fgvce_without_sp"
    ),
    "fgvce_dominant_without_sp": Row(
        "FG-VCE w/o SP, dominant", "Q", _fgvce("dominant", 0.0), "fgvce_without_sp"
    ),
}


def maps_of(study: Study, name: str, row: Row | None = None) -> Explained:
    """A row's maps, computed once for all scripts.

    Raises:
        InputError: The classifier or the data lacks what the method needs.
    """
    row = row or ROWS[name]
    own = row_constants(study.options, name)
    path = study.kept / ("-".join([name, *map(str, own.values())]) + ".npz")
    classes = study.predicted if row.explains == "P" else study.target
    if path.exists():
        with np.load(path) as kept:
            return Explained(kept["maps"], classes, kept.get("cells", study.cells))
    found = row.explain(study)
    maps, own = found if isinstance(found, tuple) else (found, None)
    maps = np.asarray(maps, np.float32)
    with whole_file(path) as file:
        np.savez(file, maps=maps, **({} if own is None else {"cells": own}))
    return Explained(maps, classes, study.cells if own is None else own)


# --- scores -------------------------------------------------------------------------------------


def scores_of(study: Study, explained: Explained, measures: Sequence[str]) -> dict[str, np.ndarray]:
    """Each measure of every sample, float [N]; NaN where its map holds NaN."""
    whole = np.isfinite(explained.maps).all((1, 2))
    maps = np.where(whole[:, None, None], explained.maps, 0)
    out = {}
    if {"insertion", "deletion"} & set(measures):
        out = study.batched(
            partial(_faithfulness, study.clf), study.images, maps, explained.classes
        )
    if "compactness" in measures:
        out["compactness"] = study.batched(
            partial(_compactness, study.clf.head, study.config.search.sigma),
            explained.cells,
            maps,
            explained.classes,
        )
    return {name: np.where(whole, out[name], np.nan) for name in measures}


@jax.jit
def _faithfulness(clf, images, maps, classes):
    curves = faithfulness(clf, images, maps, classes)
    return {
        name: score(curves.fraction, getattr(curves, name)) for name in ("insertion", "deletion")
    }


@partial(jax.jit, static_argnums=1)
def _compactness(head, sigma, cells, maps, classes):
    return jax.vmap(lambda h, m, c: compactness(head, h, m, c, sigma))(cells, maps, classes)


# --- results ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """What is printed and written as CSV: text and numbers, with footnotes.

    Attributes:
        columns: Their headings; the first column names the row.
        rows: Values, None where there is none.
        notes: Below the table.
    """

    columns: list[str]
    rows: list[list[str | float | int | None]]
    notes: list[str]

    def markdown(self) -> str:
        """The table and its notes."""
        cells = [self.columns, *([_text(value) for value in row] for row in self.rows)]
        widths = [max(len(row[c]) for row in cells) for c in range(len(self.columns))]
        lines = [
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join(lines) + "".join(f"\n\n{note}" for note in self.notes)


def _text(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


class Results:
    """A script's JSON: its settings and what has been measured so far, a row at a time.

    Raises:
        InputError: The file holds results of other settings.
    """

    def __init__(self, name: str, study: Study, **settings: Any):
        self.options = study.options
        self.path = study.options.out / f"{name}.json"
        self.content: dict[str, Any] = {
            "name": name,
            "settings": {**study.settings, **settings},
            "machine": machine(),
            "samples": [
                {"id": id, "P": study.clf.class_names[p], "Q": study.clf.class_names[q]}
                for id, p, q in zip(study.ids, study.predicted, study.target, strict=True)
            ],
            "rows": {},
        }
        if self.path.exists():
            try:
                kept = json.loads(self.path.read_text())
                settings = kept["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.path}: damaged ({error}); remove it") from error
            for key, value in json.loads(json.dumps(self.content["settings"])).items():
                if settings.get(key) != value:
                    raise InputError(
                        f"{self.path}: holds results with {key} {settings.get(key)}, expected "
                        f"{value}; give another --out, or remove the file"
                    )
            self.content["rows"] = kept["rows"]

    @property
    def rows(self) -> dict[str, Any]:
        """What has been measured, by row."""
        return self.content["rows"]

    def measure(
        self, names: Iterable[str], function: Callable[[str], dict[str, Any]]
    ) -> dict[str, Any]:
        """The rows of `names`; those not there yet are measured and written one by one.

        `function` may raise InputError: then the row says what is missing, and is tried again by
        the next run.
        """
        for name in names:
            constants = row_constants(self.options, name)
            kept = self.rows.get(name, {"missing": "not measured"})
            if "missing" not in kept and kept.get("constants", {}) == constants:
                continue
            started = time.perf_counter()
            try:
                self.rows[name] = function(name)
            except InputError as error:
                self.rows[name] = {"missing": str(error)}
            self.rows[name] |= {"constants": constants} if constants else {}
            self.rows[name]["seconds"] = round(time.perf_counter() - started, 1)
            print(f"{name}: {self.rows[name]['seconds']} s", file=sys.stderr, flush=True)
            self.write()
        return {name: self.rows[name] for name in names}

    def write(self) -> None:
        """Write the JSON, whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
        temporary.replace(self.path)

    def finish(self, table: Table) -> None:
        """Print the table, write it as CSV, and put it into the JSON."""
        self.content["table"] = asdict(table)
        self.write()
        with open(self.path.with_suffix(".csv"), "w", newline="") as file:
            csv.writer(file).writerows([table.columns, *table.rows])
        print(table.markdown())


def numbers(values: np.ndarray) -> list[float | None]:
    """As JSON has them: None for what is not a number."""
    return [round(float(v), 5) if np.isfinite(v) else None for v in values]


def mean(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and standard error of those that are numbers; None where none is."""
    found = np.array([v for v in values if v is not None], float)
    if not len(found):
        return None
    return found.mean(), found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0.0


def shown(values: Sequence[float | None], digits: int = 1) -> str | None:
    """Mean and standard error as text."""
    found = mean(values)
    return None if found is None else f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"


def score_row(study: Study, name: str, measures: Sequence[str], row: Row | None = None) -> dict:
    """A row's scores of every sample, and the samples left out."""
    explained = maps_of(study, name, row)
    bad = ~np.isfinite(explained.maps).all((1, 2))
    empty = (explained.maps <= 0).all((1, 2))
    return {
        "scores": {
            measure: numbers(values)
            for measure, values in scores_of(study, explained, measures).items()
        },
        "excluded": [id for id, b in zip(study.ids, bad, strict=True) if b],
        "empty": int(empty.sum()),
    }


def score_table(
    study: Study,
    rows: Mapping[str, Any],
    measures: Sequence[str],
    kinds: Mapping[str, Row],
    key: str,
) -> Table:
    """Means of `score_row`, with the paper's beside them where dataset and network are its own."""
    columns = ["Method", "class", *(MEASURES[m] for m in measures)]
    has_paper = any(paper_scores(study, row.paper, key) for row in kinds.values())
    if has_paper:
        columns += [f"paper: {m}" for m in measures]
    table, notes = [], []
    for name, found in rows.items():
        row = kinds[name]
        label, values = row.label, [None] * len(measures)
        if "missing" in found:
            notes.append(f"{row.label}: — because {found['missing']}.")
        else:
            values = [shown(found["scores"][m]) for m in measures]
            notes += remarks(row.label, found)
        line = [label, row.explains, *values]
        if has_paper:
            paper = paper_scores(study, row.paper, key) or {}
            line += [paper.get(m) for m in measures]
        table.append(line)
    return Table(columns, table, [*notes, *constants(study, rows)])


def remarks(label: str, found: Mapping[str, Any]) -> list[str]:
    """Footnotes: samples left out, and maps that say nothing."""
    notes = []
    if found["excluded"]:
        ids = ", ".join(found["excluded"])
        notes.append(f"{label}: NaN in {len(found['excluded'])} of the maps, left out ({ids}).")
    if found["empty"]:
        notes.append(f"{label}: no positive value in {found['empty']} of the maps.")
    return notes


def row_constants(options: argparse.Namespace, name: str) -> dict[str, int]:
    """The constants of a row that an option changes."""
    if name == "rise":
        return {"masks": options.rise_masks}
    return {"iterations": options.ep_iterations} if name == "ep" else {}


def constants(study: Study, rows: Iterable[str]) -> list[str]:
    """Footnotes: constants that are not the usual ones."""
    notes, options = [], study.options
    if "rise" in rows and options.rise_masks < 4000:
        notes.append(f"RISE: {options.rise_masks} masks (usual: 8000 for ResNet, 4000 for VGG).")
    if "ep" in rows and options.ep_iterations != 800:
        notes.append(f"EP: {options.ep_iterations} iterations (usual: 800).")
    if any(name.endswith("cve_semantic") for name in rows):
        notes.append("CVE-semantic: the classifier's own features tell parts apart, no other's.")
    return notes


def paper_scores(study: Study, name: str | None, table: str) -> dict[str, float] | None:
    """The paper's figures of a row on this dataset and network, by measure; None if it has none."""
    dataset, arch = study.config.data.name, getattr(study.clf.spec, "arch", "")
    found: Any = PAPER[table]["rows"].get(name, {})
    if table == "table1":
        found = found.get(dataset, {})
    elif dataset != PAPER[table]["dataset"]:
        return None
    network = "resnet50" if arch == "resnet50" else "vgg" if arch.startswith("vgg") else None
    for key, values in found.items():
        if network and key.startswith(network):
            return dict(zip(PAPER[table]["columns"], values, strict=True))
    return None


# --- the command line ---------------------------------------------------------------------------


def parser(description: str | None, rows: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that all scripts have; `rows` are the default of --methods."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    out.add_argument("--preset", default="birds", help="birds, a config's name, or a YAML file")
    out.add_argument("--checkpoint", help="another classifier than the preset's")
    out.add_argument("--images", type=int, default=50, help="misclassified images to explain")
    out.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    out.add_argument("--maps", type=Path, default=ROOT / "runs" / "maps", help="kept maps")
    out.add_argument("--batch_size", type=int, default=25)
    out.add_argument("--rise_masks", type=int, default=500)
    out.add_argument("--ep_iterations", type=int, default=150)
    if rows:
        out.add_argument("--methods", default=",".join(rows))
    return out


def choose(kind: str, text: str, known: Iterable[str]) -> list[str]:
    """The names in `text`, separated by commas.

    Raises:
        InputError: A name that is not known; the message lists those that are.
    """
    known = list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{kind} {name!r}: expected one of {', '.join(known)}{hint}")
    return names


def run(main: Callable[[], None]) -> None:
    """Run a script; an input that cannot be used ends it with exit code 2."""
    try:
        main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
