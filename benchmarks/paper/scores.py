"""The scores of rows of maps, and the tables of them: what Tables 1 and 3 and Fig. 3 share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from results import PAPER, Table, absences, choose, measured, numbers, shown
from rows import ROWS, Explained, Row, draw, maps_of
from study import Study

from fgvce_jax.metrics import compactness, faithfulness, score

MEASURES = {
    "insertion": "Insertion ↑",
    "deletion": "Deletion ↓",
    "compactness": "Compactness ξ ↑",
}


# --- scores -------------------------------------------------------------------------------------


def scores_of(explained: Explained, measures: Sequence[str]) -> dict[str, np.ndarray]:
    """Each measure of every sample, float [N]; NaN where its map holds NaN."""
    study, out = explained.study, {}
    maps, classes = explained.maps, explained.classes
    if {"insertion", "deletion"} & set(measures):
        out = study.batched(partial(_faithfulness, study.clf), study.images, maps, classes)
    if "compactness" in measures:
        scored = partial(_compactness, study.clf.head, study.sigma)
        out["compactness"] = study.batched(scored, explained.cells, maps, classes)
    return {name: np.where(explained.whole, out[name], np.nan) for name in measures}


@jax.jit
def _faithfulness(clf, images, maps, classes):
    curves = faithfulness(clf, images, maps, classes)
    return {
        name: score(curves.fraction, getattr(curves, name)) for name in ("insertion", "deletion")
    }


@partial(jax.jit, static_argnums=1)
def _compactness(head, sigma, cells, maps, classes):
    return jax.vmap(lambda h, m, c: compactness(head, h, m, c, sigma))(cells, maps, classes)


def score_row(study: Study, name: str, measures: Sequence[str], row: Row | None = None) -> dict:
    """A row's scores of every sample, and the samples left out."""
    explained = maps_of(study, name, row)
    scores = scores_of(explained, measures)
    found = {
        "scores": {measure: numbers(values) for measure, values in scores.items()},
        **explained.left_out(),
    }
    if "compactness" in measures:
        unscored = explained.whole & np.isnan(scores["compactness"])
        found["without_global_map"] = explained.ids(unscored)
    return found


# --- tables -------------------------------------------------------------------------------------


def measure_scores(
    study: Study, name: str, default: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> None:
    """Measure the rows of a table of the paper, print and write it, and draw its first samples.

    The table keeps the order of `default`; other rows come after it. The `pairs` are compared.
    """
    names = choose("method", study.options.methods, ROWS, default)
    measures = choose("metric", study.options.metrics, MEASURES)
    results = study.results(name, measures=measures)
    results.measure(names, lambda row: score_row(study, row, measures))
    rows = results.among(dict.fromkeys([*default, *ROWS]))
    results.finish(
        table=score_table(study, rows, measures, ROWS, name),
        differences=differences(rows, pairs, measures),
    )
    draw(study, name, [row for row in measured(rows) if row in names], 3)


def score_table(
    study: Study,
    rows: Mapping[str, Any],
    measures: Sequence[str],
    kinds: Mapping[str, Row],
    key: str,
) -> Table:
    """Means of `score_row`, with the paper's beside them where dataset and network are its own."""
    columns = ["Method", "class", *(MEASURES[m] for m in measures)]
    has_paper = any(paper_scores(study, name, key) for name in kinds)
    if has_paper:
        columns += [f"paper: {m}" for m in measures]
    table = []
    for name, found in rows.items():
        values = [shown(found["scores"][m]) if "scores" in found else None for m in measures]
        line = [kinds[name].label, kinds[name].explains, *values]
        if has_paper:
            paper = paper_scores(study, name, key) or {}
            line += [paper.get(m) for m in measures]
        table.append(line)
    return Table(columns, table, remarks(rows, kinds))


def differences(
    rows: Mapping[str, Any], pairs: Iterable[tuple[str, str]], measures: Sequence[str]
) -> Table:
    """Each first row's scores less the second's, sample by sample; samples that both have."""
    rows, table = measured(rows), []
    for ours, theirs in pairs:
        if ours not in rows or theirs not in rows:
            continue
        line: list[Any] = [f"{ROWS[ours].label} − {ROWS[theirs].label}", ROWS[ours].explains]
        for measure in measures:
            both = zip(*(rows[name]["scores"][measure] for name in (ours, theirs)), strict=True)
            line.append(shown((a - b for a, b in both if None not in (a, b)), sign="+"))
        table.append(line)
    return Table(["Difference", "class", *(MEASURES[m] for m in measures)], table, [])


def remarks(rows: Mapping[str, Any], kinds: Mapping[str, Row]) -> list[str]:
    """Footnotes: samples that are missing or left out, empty maps."""
    notes = absences(rows, {name: kinds[name].label for name in rows})
    for name, found in rows.items():
        label = kinds[name].label
        if ids := found.get("excluded"):
            notes.append(f"{label}: NaN in {len(ids)} of the maps, left out ({', '.join(ids)}).")
        if ids := found.get("without_global_map"):
            notes.append(
                f"{label}: no compactness for {len(ids)} samples whose global map has no positive "
                f"value, left out of it ({', '.join(ids)})."
            )
        if found.get("empty"):
            notes.append(f"{label}: no positive value in {found['empty']} of the maps.")
        if "correct" in found:
            notes.append(
                f"{label}: of the classifier with its head, {found['checkpoint']}, which gets "
                f"{found['correct']} of the samples right; P, probabilities and features are its "
                "own."
            )
        if name == "cve_semantic":
            notes.append(f"{label}: the classifier's own features tell parts apart, no other's.")
    return notes


def paper_scores(study: Study, name: str, table: str) -> dict[str, float] | None:
    """The paper's figures of a row on this dataset and network, by measure; None if it has none.

    Its rows do not tell the invariant and the dominant map.
    """
    dataset, arch = study.config.data.name, getattr(study.clf.spec, "arch", "")
    key = name.replace("_invariant", "").replace("_dominant", "")
    found: Any = PAPER[table]["rows"].get(key, {})
    if table == "table1":
        found = found.get(dataset, {})
    elif dataset != PAPER[table]["dataset"]:
        return None
    network = "resnet50" if arch == "resnet50" else "vgg" if arch.startswith("vgg") else None
    for key, values in found.items():
        if network and key.startswith(network):
            return dict(zip(PAPER[table]["columns"], values, strict=True))
    return None
