"""The scores of rows of maps, and the tables of them: what Tables 1 and 3 and Fig. 3 share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from results import PAPER, Table, absences, choose, measured, shown
from rows import ROWS, Explained, Row, draw, maps_of
from study import Study

from fgvce_jax.files import whole_file
from fgvce_jax.metrics import compactness, faithfulness, score

MEASURES = {
    "insertion": "Insertion ↑",
    "deletion": "Deletion ↓",
    "compactness": "Compactness ξ ↑",
}


def scores_of(explained: Explained, measures: Sequence[str], name: str) -> dict[str, np.ndarray]:
    """Each measure of every sample of a row, float [N]; NaN where its map holds NaN.

    Insertion and deletion, which are slow, are kept beside the maps for the other tables.
    """
    study, out = explained.study, {}
    maps = explained.maps, explained.classes
    if {"insertion", "deletion"} & set(measures):
        share, chunk = study.options.share, study.options.batch_size
        path = study.kept / f"{name}-share-{share}.npz"
        if not path.exists():
            scored = partial(_faithfulness, study.clf, share, chunk)
            found = study.batched(scored, study.images, *maps)
            with whole_file(path) as file:
                np.savez(file, **found)
        with np.load(path) as kept:
            out = dict(kept)
    if "compactness" in measures:
        scored = partial(_compactness, study.clf.head, study.sigma)
        out["compactness"] = study.batched(scored, explained.cells, *maps)
    return {name: np.where(explained.whole, out[name], np.nan) for name in measures}


@partial(jax.jit, static_argnums=(1, 2))
def _faithfulness(clf, share, chunk, images, maps, classes):
    curves = faithfulness(clf, images, maps, classes, share=share, chunk=chunk)._asdict()
    return {name: score(curves["fraction"], curves[name]) for name in ("insertion", "deletion")}


@partial(jax.jit, static_argnums=1)
def _compactness(head, sigma, cells, maps, classes):
    return jax.vmap(lambda h, m, c: compactness(head, h, m, c, sigma))(cells, maps, classes)


def score_row(study: Study, measures: Sequence[str], kinds: Mapping[str, Row], name: str) -> dict:
    """A row's scores of every sample, and the samples left out."""
    explained = maps_of(study, name, kinds[name])
    scores = scores_of(explained, measures, name)
    unscored = explained.whole & np.isnan(scores.get("compactness", 0))
    return explained.scored(scores) | {"without_global_map": explained.ids(unscored)}


def measure_scores(
    study: Study, name: str, default: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> None:
    """Measure the rows of a table of the paper, print and write it, and draw its first samples.

    The table keeps the order of `default`; other rows come after it. The `pairs` are compared.
    """
    measures = choose("metric", study.options.metrics, MEASURES)
    function = partial(score_row, study, measures, ROWS)
    share = study.options.share
    results, rows = study.measure(name, function, ROWS, default, measures=measures, share=share)
    results.finish(
        table=score_table(study, rows, measures, ROWS, name),
        differences=differences(rows, pairs, measures),
    )
    asked = choose("method", study.options.methods, ROWS, default)
    draw(study, name, [row for row in measured(rows) if row in asked], slice(3))


def score_table(
    study: Study,
    rows: Mapping[str, Any],
    measures: Sequence[str],
    kinds: Mapping[str, Row],
    key: str,
) -> Table:
    """Means of `score_row`, with the paper's beside them where dataset and network are its own."""
    columns = {MEASURES[m]: lambda name, m=m: shown(values_of(rows[name], m)) for m in measures}
    paper = {name: found for name in kinds if (found := paper_scores(study, name, key))}
    for m in measures if paper else ():
        columns[f"paper: {m}"] = lambda name, m=m: paper.get(name, {}).get(m)
    return table_of(rows, kinds, columns)


def values_of(found: Mapping[str, Any], measure: str) -> list[float]:
    """A row's scores, without the samples that have none."""
    return [value for value in found.get("scores", {}).get(measure, ()) if value is not None]


def table_of(
    rows: Mapping[str, Any],
    kinds: Mapping[str, Row],
    columns: Mapping[str, Callable[[str], Any]],
    first: str = "Method",
) -> Table:
    """The rows, each with its class and the values that the columns have for its name."""
    table = [[*kinds[n][:2], *(value(n) for value in columns.values())] for n in rows]
    return Table([first, "class", *columns], table, remarks(rows, kinds))


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
    return Table(["Difference", "class", *(MEASURES[m] for m in measures)], table)


def remarks(rows: Mapping[str, Any], kinds: Mapping[str, Row]) -> list[str]:
    """Footnotes: samples that are missing or left out, empty maps."""
    labels = {name: kinds[name].label for name in rows}
    notes = absences(rows, labels)

    def add(name: str, text: str, ids: Sequence[str] = ()) -> None:
        notes.append(f"{labels[name]}: {text}" + (f" ({', '.join(ids)})." if ids else "."))

    for name, found in rows.items():
        if ids := found.get("excluded"):
            add(name, f"NaN in {len(ids)} of the maps, left out", ids)
        if ids := found.get("without_global_map"):
            why = f"no compactness for {len(ids)} samples whose global map has no positive value"
            add(name, f"{why}, left out of it", ids)
        if found.get("empty"):
            add(name, f"no positive value in {found['empty']} of the maps")
        if "correct" in found:
            head = f"of the classifier with its head, {found['checkpoint']}, which gets "
            right = f"{found['correct']} of the samples right; "
            add(name, f"{head}{right}P, probabilities and features are its own")
        if name == "cve_semantic":
            add(name, "the classifier's own features tell parts apart, no other's")
    return notes


def paper_scores(study: Study, name: str, table: str) -> dict[str, float] | None:
    """The paper's figures of a row on this dataset and network, by measure; None if it has none.

    Its rows do not tell the invariant and the dominant map.
    """
    dataset, arch = study.config.data.name, getattr(study.clf.spec, "arch", "")
    found = PAPER[table]["rows"].get(name.replace("_invariant", "").replace("_dominant", ""), {})
    found = found if table == "table1" else {PAPER[table]["dataset"]: found}
    for network, values in found.get(dataset, {}).items():
        if arch == network or (arch.startswith("vgg") and network.startswith("vgg")):
            return dict(zip(PAPER[table]["columns"], values, strict=True))
    return None
