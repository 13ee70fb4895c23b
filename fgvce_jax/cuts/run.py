"""Every cut, measured on the same images, and the table."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from fgvce_jax.bank import Bank, NoReferences, build_bank
from fgvce_jax.cuts.asked import Asked, Truth, ask, truth_of
from fgvce_jax.cuts.config import CutsConfig
from fgvce_jax.data.birds import Birds
from fgvce_jax.data.pipeline import image_loader
from fgvce_jax.errors import InputError
from fgvce_jax.explain import explain_cells
from fgvce_jax.explanation import Explanation
from fgvce_jax.files import fingerprint, whole_file, write_json
from fgvce_jax.heads import searchable
from fgvce_jax.key.page import markdown
from fgvce_jax.key.samples import batched
from fgvce_jax.key.scores import edit_scores
from fgvce_jax.metrics import edits_in_part, true_change
from fgvce_jax.models import Classifier, recut
from fgvce_jax.models.classifier import FeatureMap, feature_map_of
from fgvce_jax.models.spec import require_spec
from fgvce_jax.progress import stage
from fgvce_jax.run_inputs import RunInputs, open_inputs

_REPEATS = 3  # of a forward pass, whose median is the unit


def compare_cuts(config: CutsConfig, folder: Path) -> str:
    """Measure every cut; after each, `cuts.json` and `cuts.csv` hold those so far.

    Returns the table.

    Raises:
        InputError: A classifier of the user's own functions, an unknown cut, data that do not fit,
            or no image to explain.
    """
    inputs = open_inputs(config.of_run())
    cuts = distinct_cuts(inputs.clf)
    unknown = [name for name in config.cuts if name not in cuts]
    if unknown:
        raise InputError(f"cuts {unknown[0]!r}: expected some of {', '.join(cuts)}")
    asked = ask(config, inputs)
    birds = inputs.dataset
    truth = truth_of(inputs.clf, birds, asked) if isinstance(birds, Birds) else None
    settings = {
        "arch": require_spec(inputs.clf).arch,
        "classifier": fingerprint(inputs.clf),
        "asked_images": len(asked.index),
        **asdict(config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in config.cuts or cuts:
        measured = Cut(cuts[name], inputs, config).measure(name, asked, truth)
        rows.append({"cut": name, "default": name == list(cuts)[-1], **measured})
        write_json(folder / "cuts.json", {"settings": settings, "rows": rows})
        _write_csv(folder / "cuts.csv", rows)
    return table(rows)


def distinct_cuts(clf: Classifier) -> dict[str, Classifier]:
    """A classifier of this package at every place where it can be cut, first to last.

    By name; a stage and its last block end in one place, which has the stage's name. The last is
    where the network is cut by default.

    Raises:
        InputError: A classifier of the user's own functions.
    """
    by_features: dict[Any, tuple[str, Classifier]] = {}
    for name in require_spec(clf).cuts:
        cut = recut(clf, name)
        features: Any = cut.features
        by_features[features.graphdef] = name, cut
    return dict(by_features.values())


class Cut:
    """A classifier at one cut, and the candidates of the classes that were asked for there.

    Attributes:
        clf: The classifier.
        config: The options.
    """

    def __init__(self, clf: Classifier, inputs: RunInputs, config: CutsConfig):
        self.clf, self.config = clf, config
        size = config.batch_size, clf.image_size, clf.resize_to
        self._load = image_loader(inputs.references, *size)
        self._labels = inputs.reference_labels
        self._banks: dict[tuple[int, ...], Bank | None] = {}
        self._programs: dict[Any, Any] = {}

    def measure(self, name: str, asked: Asked, truth: Truth | None) -> dict[str, Any]:
        """Explain the images until the time is over; the figures of a row."""
        found, seconds, started = [], [], time.perf_counter()
        pixels = asked.pixels
        forward_s, features_s, (cells, context) = self._at_the_cut(pixels)
        with stage(f"cut {name}", len(asked.index)) as advance:
            for i in range(len(asked.index)):
                image = FeatureMap(*jax.tree.map(lambda a, i=i: a[i : i + 1], (cells, context)))
                out = self._explained(image, asked.predicted[i : i + 1], asked.target[i : i + 1])
                advance(1)
                if out is not None:
                    seconds.append(out[0])
                    found.append((i, out[1]))
                if time.perf_counter() - started > self.config.seconds:
                    break
        figures: dict[str, Any] = {
            "cells": list(cells.shape[1:]),
            "head": type(self.clf.head).__name__,
            "images": len(found),
            "without_references": i + 1 - len(found),
        }
        if not found:
            return figures
        places, explained = zip(*found, strict=True)
        flipped, edits = ([np.asarray(getattr(out, k))[0] for out in explained] for k in _OF_EDITS)
        figures |= {
            "flipped": float(np.mean(flipped)),
            "edits": float(np.median(edits)),
            "passes": (features_s + float(np.mean(seconds))) / forward_s,
            "forward_ms": 1000 * forward_s,
        }
        if truth is None:
            return figures
        at = np.array(places)
        pairs = np.stack([pixels[at], truth.twins[at] / np.float32(255)], 1)
        first = [out.edit_cell[0] for out in explained]
        return figures | self._of_part(pairs, truth.part[at], first)

    def _at_the_cut(self, pixels: Float[np.ndarray, "N S S 3"]) -> tuple[float, float, FeatureMap]:
        """Seconds of a pass and of its part before the cut, for an image; all images at the cut."""
        whole, first = jax.jit(lambda clf, x: clf(x)), feature_map_of
        size = min(self.config.batch_size, len(pixels))
        times = np.array(
            [
                [_timed(f, self.clf, pixels[:size]) for f in (whole, first)]
                for _ in range(1 + _REPEATS)
            ]
        )
        parts = [
            jax.tree.map(
                lambda leaf, count=count: np.asarray(leaf)[:count], first(self.clf, images)
            )
            for count, (images,) in batched(size, pixels)
        ]
        forward_s, features_s = np.median(times[1:], axis=0) / size
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return float(forward_s), float(features_s), joined

    def _explained(
        self, image: FeatureMap, predicted: Int[np.ndarray, "1"], target: Int[np.ndarray, "1"]
    ) -> tuple[float, Explanation] | None:
        """Seconds and explanation of one image at the cut; None where no reference serves it."""
        matched = self.config.search.evidence == "matched"
        bank = self._bank(int(target[0]), *([int(predicted[0])] if matched else []))
        if bank is None:
            return None
        candidates = bank.for_targets(target, predicted if matched else None)
        given = jax.device_put((searchable(self.clf.head), candidates, image, target))
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(candidates))  # of few references too
        if shapes not in self._programs:
            options = {"config": self.config.search, "devices": tuple(jax.local_devices()[:1])}
            self._programs[shapes] = explain_cells.lower(*given, **options).compile()
        start = time.perf_counter()
        out = jax.block_until_ready(self._programs[shapes](*given))
        return time.perf_counter() - start, jax.device_get(out)

    def _bank(self, *classes: int) -> Bank | None:
        """The candidates of these classes; None where one has no correct reference."""
        config = self.config.bank
        classes = () if config.reference == "all" else tuple(sorted(set(classes)))
        if classes not in self._banks:
            asked = {"classes": classes or None, "batch_size": self.config.batch_size}
            try:
                bank = build_bank(self.clf, self._load, self._labels, config, **asked)
            except NoReferences:
                self._banks[classes] = None
            else:
                self._banks[classes] = None if set(classes) & set(bank.missing()) else bank
        return self._banks[classes]

    def _of_part(
        self,
        pairs: Float[np.ndarray, "M 2 S S 3"],
        part: Bool[np.ndarray, "M S S"],
        edit_cells: Sequence[Int[np.ndarray, "T"]],
    ) -> dict[str, float | int | None]:
        """Whether first edits lie in the differing part, and among the cells that truly change."""
        of_images = [
            jax.device_get(_scores(self.clf, *given))
            for given in zip(pairs, part, edit_cells, strict=True)
        ]
        values = {name: np.array([of[name] for of in of_images]) for name in of_images[0]}
        found: dict[str, float | int | None] = {
            "with_part": int(np.isfinite(values["edit_in_part"]).sum())
        }
        for name, of_all in values.items():
            known = of_all[np.isfinite(of_all)]
            found[name] = float(known.mean()) if len(known) else None
        return found


_OF_EDITS = "flipped", "num_edits"


@jax.jit
def _scores(clf, pair, part, edit_cell):
    """Of one image and its twin; `chance` is the share of all cells that count as in the part."""
    cells, twin_cells = feature_map_of(clf, pair).cells
    n = len(cells)
    found = edit_scores(edit_cell, true_change(cells, twin_cells), part, n)
    chance = edits_in_part(jnp.arange(n * n), part, n).mean()
    return {
        "edit_changed": found["edit_changed"],
        "edit_in_part": found["edit_in_part"],
        "chance": chance,
    }


def _timed(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


# --- the table ----------------------------------------------------------------------------------

COLUMNS = {
    "flipped": ("Flipped", lambda v: f"{100 * v:.0f} %"),
    "edits": ("Edits, median", lambda v: f"{v:g}"),
    "passes": ("Forward passes", lambda v: f"{v:.3g}" if v < 100 else f"{v:,.0f}"),
    "edit_in_part": ("First edit in the part", lambda v: f"{100 * v:.0f} %"),
    "chance": ("by chance", lambda v: f"{100 * v:.0f} %"),
    "edit_changed": ("in the true change", lambda v: f"{100 * v:.0f} %"),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown; "—" for what was not found, a star beside the default cut."""
    columns = {name: of for name, of in COLUMNS.items() if any(name in row for row in rows)}
    lines = []
    for row in rows:
        n, m, channels = row["cells"]
        name = f"{row['cut']} *" if row["default"] else row["cut"]
        figures = [
            "—" if row.get(key) is None else shown(row[key]) for key, (_, shown) in columns.items()
        ]
        lines.append([name, f"{n} × {m} × {channels}", row["head"], str(row["images"]), *figures])
    titles = [title for title, _ in columns.values()]
    return markdown(["Cut", "Cells", "Head", "Images", *titles], lines)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each cut; shares in [0, 1]."""
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(names)
    for row in rows:
        values = {**row, "cells": "x".join(map(str, row["cells"]))}
        lines.writerow([values.get(name) for name in names])
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
