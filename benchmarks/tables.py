"""The rows of the tables, an explainer each: their maps, computed once for all scripts, and scores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from script import PAPER, Table, absences, numbers, shown
from study import Study, features

from fgvce_jax import assets
from fgvce_jax.errors import InputError
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd
from fgvce_jax.methods.cve import edit_map
from fgvce_jax.metrics import compactness, faithfulness, score
from fgvce_jax.results import whole_file

MEASURES = {
    "insertion": "Insertion ↑",
    "deletion": "Deletion ↓",
    "compactness": "Compactness ξ ↑",
}


# --- the rows -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """Maps of all samples.

    Attributes:
        study: The images and the classifier that they explain.
        maps: float32 [N, m, m], 0 where they hold NaN.
        whole: Which of them hold no NaN, bool [N].
        classes: The class that each explains, int32 [N].
        cells: The features that each explains, [N, n, n, C].
    """

    study: Study
    maps: np.ndarray
    whole: np.ndarray
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
        subject: The study whose classifier it explains; CALM has one of its own.
    """

    label: str
    explains: str
    explain: Callable[[Study], Any]
    paper: str | None = None
    subject: Callable[[Study], Study] = lambda study: study


def _own(study: Study, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a method; a function is asked for the study's."""
    return {key: value(study) if callable(value) else value for key, value in options.items()}


def _of_class(name: str, explains: str = "P", **options: Any) -> Callable[[Study], np.ndarray]:
    def maps(study: Study) -> np.ndarray:
        classes = study.predicted if explains == "P" else study.target
        method = partial(METHODS[name], study.clf, **_own(study, options))
        return study.batched(method, study.images, classes)

    return maps


def _contrastive(name: str, **options: Any) -> Callable[[Study], np.ndarray]:
    def maps(study: Study) -> np.ndarray:
        method = partial(METHODS[name], study.clf, **_own(study, options))
        return study.batched(method, study.images, study.predicted, study.target)

    return maps


def _calm(study: Study) -> np.ndarray:
    try:
        return _of_class("calm")(study)
    except InputError as error:
        raise InputError(f"{error}, and name it with --calm") from error


def _cce_dominant(study: Study) -> tuple[np.ndarray, np.ndarray]:
    attacked = study.batched(partial(pgd, study.clf), study.images, study.target).images
    cells = study.batched(partial(features, study.clf), attacked)
    return _contrastive("cce", region="dominant")(study), cells


def _cve(name: str) -> Callable[[Study], tuple[np.ndarray, np.ndarray]]:
    def maps(study: Study) -> tuple[np.ndarray, np.ndarray]:
        found = study.exhaustive(name)
        return np.asarray(jax.vmap(partial(edit_map, n=study.n))(found)), found.cells

    return maps


def _fgvce(region: str, sigma: Callable[[Study], float]) -> Callable[[Study], Any]:
    def maps(study: Study) -> Any:
        found = getattr(study.explanation(sigma(study)), region)
        return found if region == "invariant" else (found, study.edited(sigma(study)))

    return maps


def _random(study: Study) -> np.ndarray:
    """The control: cells in an order drawn once for every sample."""
    rng = np.random.default_rng(0)
    order = np.tile(np.arange(1, study.n**2 + 1.0), (len(study), 1)) / study.n**2
    return rng.permuted(order, axis=1).reshape(len(study), study.n, study.n)


def _sigma(study: Study) -> float:
    return study.sigma


def _without(study: Study) -> float:
    return 0.0


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
    "calm": Row("CALM", "P", _calm, "calm", lambda study: study.calm),
    "contributions": Row("contributions alone", "P", _of_class("contributions", sigma=_sigma)),
    "ce": Row("CE", "P", _contrastive("ce"), "ce"),
    "scout": Row("SCOUT", "P", _contrastive("scout"), "scout"),
    "cce": Row("CCE, invariant", "P", _contrastive("cce"), "cce"),
    "fgvce_invariant": Row("FG-VCE, invariant", "P", _fgvce("invariant", _sigma), "fgvce"),
    "random": Row("random cells, asked of P", "P", _random),
    "cce_dominant": Row("CCE, dominant", "Q", _cce_dominant, "cce"),
    "cve": Row("CVE", "Q", _cve("cve")),
    "cve_semantic": Row("CVE-semantic", "Q", _cve("cve_semantic")),
    "fgvce_dominant": Row("FG-VCE, dominant", "Q", _fgvce("dominant", _sigma), "fgvce"),
    "gradcam_q": Row("GradCAM of Q", "Q", _of_class("gradcam", "Q")),
    "contributions_q": Row(
        "contributions to Q", "Q", _of_class("contributions", "Q", sigma=_sigma)
    ),
    "random_q": Row("random cells, asked of Q", "Q", _random),
    # Table 3 and Fig. 5.
    "ce_sp": Row("CE + SP", "P", _contrastive("ce", sp_sigma=_sigma), "ce_sp"),
    "scout_sp": Row("SCOUT + SP", "P", _contrastive("scout", sp_sigma=_sigma), "scout_sp"),
    "cce_sp": Row("CCE + SP, invariant", "P", _contrastive("cce", sp_sigma=_sigma), "cce_sp"),
    "fgvce_invariant_without_sp": Row(
        "FG-VCE w/o SP, invariant", "P", _fgvce("invariant", _without), "fgvce_without_sp"
    ),
    "fgvce_dominant_without_sp": Row(
        "FG-VCE w/o SP, dominant", "Q", _fgvce("dominant", _without), "fgvce_without_sp"
    ),
}


def maps_of(study: Study, name: str, row: Row | None = None) -> Explained:
    """A row's maps, computed once for all scripts.

    Raises:
        InputError: The classifier or the data lacks what the method needs.
    """
    row = row or ROWS[name]
    constants = _own_constants(study.options, name)
    study = row.subject(study)
    path = study.kept / ("-".join([name, *map(str, constants.values())]) + ".npz")
    if path.exists():
        with np.load(path) as kept:
            maps, cells = kept["maps"], kept.get("cells")
    else:
        found = row.explain(study)
        maps, cells = found if isinstance(found, tuple) else (found, None)
        maps = np.asarray(maps, np.float32)
        with whole_file(path) as file:
            np.savez(file, maps=maps, **({} if cells is None else {"cells": cells}))
    whole = np.isfinite(maps).all((1, 2))
    return Explained(
        study=study,
        maps=np.where(whole[:, None, None], maps, 0),
        whole=whole,
        classes=study.predicted if row.explains == "P" else study.target,
        cells=study.cells if cells is None else cells,
    )


def _own_constants(options: argparse.Namespace, name: str) -> dict[str, int]:
    """The constants of a row that an option changes."""
    if name == "rise":
        return {"masks": options.rise_masks}
    return {"iterations": options.ep_iterations} if name == "ep" else {}


def row_constants(study: Study, name: str) -> dict[str, Any]:
    """What a row's results depend on beside the settings that all rows share."""
    if name != "calm" or study.calm is study:
        return _own_constants(study.options, name)
    own, checkpoint = study.calm, study.options.calm
    log = assets.find(f"{checkpoint}/log.jsonl")
    epochs = [] if log is None else log.read_text().splitlines()
    return {
        "classifier": checkpoint,
        "fingerprint": own.fingerprint,
        "correct": int((own.predicted == own.target).sum()),
        "samples": len(own),
        "test_accuracy": json.loads(epochs[-1])["test_accuracy"] if epochs else None,
    }


# --- scores -------------------------------------------------------------------------------------


def scores_of(explained: Explained, measures: Sequence[str]) -> dict[str, np.ndarray]:
    """Each measure of every sample, float [N]; NaN where its map holds NaN."""
    study, out = explained.study, {}
    if {"insertion", "deletion"} & set(measures):
        out = study.batched(
            partial(_faithfulness, study.clf), study.images, explained.maps, explained.classes
        )
    if "compactness" in measures:
        out["compactness"] = study.batched(
            partial(_compactness, study.clf.head, study.sigma),
            explained.cells,
            explained.maps,
            explained.classes,
        )
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
        **left_out(explained),
    }
    if "compactness" in measures:
        unscored = explained.whole & np.isnan(scores["compactness"])
        found["without_global_map"] = _ids(study, unscored)
    return found


def left_out(explained: Explained) -> dict[str, Any]:
    """The samples that no table counts, and how many maps say nothing."""
    return {
        "excluded": _ids(explained.study, ~explained.whole),
        "empty": int((explained.whole & (explained.maps <= 0).all((1, 2))).sum()),
    }


def _ids(study: Study, chosen: np.ndarray) -> list[str]:
    return [id for id, c in zip(study.ids, chosen, strict=True) if c]


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
    table = []
    for name, found in rows.items():
        row = kinds[name]
        values = [shown(found["scores"][m]) if "scores" in found else None for m in measures]
        line = [row.label, row.explains, *values]
        if has_paper:
            paper = paper_scores(study, row.paper, key) or {}
            line += [paper.get(m) for m in measures]
        table.append(line)
    return Table(columns, table, remarks(rows, kinds))


def remarks(rows: Mapping[str, Any], kinds: Mapping[str, Row]) -> list[str]:
    """Footnotes: what is missing or left out, maps that say nothing, unusual constants."""
    notes = absences(rows, {name: kinds[name].label for name in rows})
    for name, found in rows.items():
        label, constants = kinds[name].label, found.get("constants", {})
        if ids := found.get("excluded"):
            notes.append(f"{label}: NaN in {len(ids)} of the maps, left out ({', '.join(ids)}).")
        if ids := found.get("without_global_map"):
            notes.append(
                f"{label}: no compactness for {len(ids)} samples whose global map has no positive "
                f"value, left out of it ({', '.join(ids)})."
            )
        if found.get("empty"):
            notes.append(f"{label}: no positive value in {found['empty']} of the maps.")
        if constants.get("masks", 4000) < 4000:
            notes.append(
                f"{label}: {constants['masks']} masks (usual: 8000 for ResNet, 4000 for VGG)."
            )
        if constants.get("iterations", 800) != 800:
            notes.append(f"{label}: {constants['iterations']} iterations (usual: 800).")
        if "classifier" in constants:
            notes.append(_of_another_classifier(label, constants))
        if name == "cve_semantic":
            notes.append(f"{label}: the classifier's own features tell parts apart, no other's.")
    return notes


def _of_another_classifier(label: str, constants: Mapping[str, Any]) -> str:
    accuracy = constants["test_accuracy"]
    tested = "" if accuracy is None else f", which gets {accuracy:.1%} of the test split right"
    return (
        f"{label}: measured on the classifier with its head, {constants['classifier']}{tested}, "
        f"and {constants['correct']} of these {constants['samples']} samples. Its maps explain the "
        "class that this one says, by its own probabilities and features: the row is not measured "
        "on the classifier of the others."
    )


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
