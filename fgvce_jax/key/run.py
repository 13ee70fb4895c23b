"""The key: every row, measured on every sample of the three settings; a row at a time, resumable.

The folder of a benchmark:

    samples.npz   the pictures, their twins and truths
    rows/         a JSON per row: the scores of every sample
    key.json      settings, and every row's means
    key.csv       the same, a line for each row, setting and measure
    key.md        the page
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from fgvce_jax.errors import InputError
from fgvce_jax.files import FolderLock, fingerprint, read_json, write_json
from fgvce_jax.key.config import VERSION, KeyConfig
from fgvce_jax.key.controls import CONTROLS, randomised
from fgvce_jax.key.explainers import EDITS, Explainer
from fgvce_jax.key.network import Network
from fgvce_jax.key.page import write_csv, write_page
from fgvce_jax.key.rows import explainer
from fgvce_jax.key.samples import SETTINGS, Samples, batched, class_numbers, open_samples
from fgvce_jax.key.scores import scores_of
from fgvce_jax.key.summary import summarise
from fgvce_jax.methods import METHODS
from fgvce_jax.models import Classifier, open_classifier
from fgvce_jax.progress import notify, stage
from fgvce_jax.run_inputs import weights_of

RANDOMISED_SETTING = "siblings"
"""The setting in which classifiers with random weights are asked."""


def benchmark(config: KeyConfig, folder: Path) -> Path:
    """Measure what is not measured yet, and write the page; returns its path.

    Raises:
        InputError: A classifier of other classes, an unknown row, or a folder with the results of
            another classifier or other settings.
    """
    names = config.methods or tuple(METHODS) + tuple(EDITS)
    rows = {name: explainer(name, config) for name in [*CONTROLS, *names]}
    clf = open_classifier(config.model)
    class_numbers(clf)
    settings = _settings(config, clf)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows").mkdir(exist_ok=True)
    lock = FolderLock(folder)
    _check_settings(folder / "settings.json", settings)
    with stage("pictures", len(SETTINGS) * config.images) as advance:
        samples = open_samples(clf, config, folder / "samples.npz", advance)
    network = Network(clf)
    for name, row in rows.items():
        _measure(folder, {"name": name}, row, network, samples, config.batch_size)
    if config.control_images:
        few = samples.first(config.control_images, RANDOMISED_SETTING)
        asked = {name: rows[name] for name in names if name not in CONTROLS}
        _measure_randomised(folder, asked, network, few, config.batch_size)
    found = summarise(_read_rows(folder), samples)
    write_json(folder / "key.json", {"settings": settings, **found})
    write_csv(folder / "key.csv", found)
    lock.release()
    return write_page(folder / "key.md", settings, found)


def _settings(config: KeyConfig, clf: Classifier) -> dict[str, Any]:
    """All that the results depend on; the rows' code aside, which each has beside it."""
    own = {k: v for k, v in asdict(config).items() if k not in ("model", "methods", "batch_size")}
    arch = None if clf.spec is None else clf.spec.arch
    seen = {"image_size": clf.image_size, "resize_to": clf.resize_to}
    return {"key": VERSION, **own, "arch": arch, **seen, "classifier": fingerprint(weights_of(clf))}


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, settings)
    kept = read_json(path)
    for name, value in json.loads(json.dumps(settings)).items():
        if kept.get(name) != value:
            raise InputError(
                f"out {path.parent}: holds a benchmark with {name} {kept.get(name)}, expected "
                f"{value}; choose another folder"
            )


def _measure(
    folder: Path,
    about: dict[str, Any],
    row: Explainer,
    network: Network,
    samples: Samples,
    batch_size: int,
    judge: Classifier | None = None,
) -> None:
    """A row into its file, unless it is there already, of the same code."""
    name, code = about["name"], row.code()
    path = folder / "rows" / f"{name.replace(':', '.')}.json"
    if path.exists() and read_json(path).get("code") == code:
        return
    about = {**about, "label": row.label, "explains": row.explains, "code": code}
    try:
        with stage(name, len(samples.index)) as advance:
            scores = measure(row, network, samples, batch_size, advance, judge)
    except InputError as error:
        if ":" in name.partition("@")[0]:
            raise  # the user's own function
        notify(f"{name}: not measured: {error}")
        write_json(path, about | {"missing": str(error)})
        return
    kept = {measure: _numbers(values) for measure, values in scores.items()}
    write_json(path, about | {"scores": kept})


def _measure_randomised(
    folder: Path,
    rows: Mapping[str, Explainer],
    network: Network,
    samples: Samples,
    batch_size: int,
) -> None:
    """The rows' scores on the trained classifier's truth when weights are random, by stages."""
    try:
        stages = list(randomised(network.clf))
    except InputError as error:
        notify(f"random weights: left out: {error}")
        return
    for number, (stage_name, clf) in enumerate(stages):
        of_stage = Network(clf, trained=network)
        for name, row in rows.items():
            about = {"name": f"{name}@{stage_name}", "stage": number}
            _measure(folder, about, row, of_stage, samples, batch_size, network.clf)


def _numbers(values: Float[np.ndarray, "N"]) -> list[float | None]:
    """As JSON has them: None for what is not a number."""
    return [round(float(v), 5) if np.isfinite(v) else None for v in values]


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row that is there, those of this package in its order."""
    rows = [read_json(path) for path in sorted((folder / "rows").glob("*.json"))]
    known = [*CONTROLS, *EDITS, *METHODS]

    def place(row: dict[str, Any]) -> tuple[int, int, str]:
        base = row["name"].partition("@")[0]
        position = known.index(base) if base in known else len(known)
        return position, row.get("stage", -1), row["name"]

    return sorted(rows, key=place)


def measure(
    row: Explainer,
    network: Network,
    samples: Samples,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
    judge: Classifier | None = None,
) -> dict[str, Float[np.ndarray, "N"]]:
    """The scores of every sample, NaN where one is not defined.

    Args:
        row: The explainer.
        network: The classifier that it explains.
        samples: The samples.
        batch_size: Samples explained together.
        advance: Called after every batch with the samples done.
        judge: The classifier that the samples' truth is of; by default the one explained.
    """
    found = []
    for count, leaves in batched(min(batch_size, len(samples.index)), *samples):
        batch = Samples(*leaves)
        answer = row.answer(network, batch)
        scores = scores_of(judge or network.clf, answer, batch, row.explains)
        found.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], scores))
        advance(count)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}
