"""The pages of runs: of one, finished or not, and of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data.example import Dataset
from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json
from fgvce_jax.models import Classifier, open_classifier
from fgvce_jax.progress import notify, stage
from fgvce_jax.report import MOST_CARDS, View, write_comparison, write_report
from fgvce_jax.results import RunResults, read_run, unfinished_run
from fgvce_jax.run_inputs import open_inputs, open_splits


def report(
    results: RunResults,
    clf: Classifier,
    dataset: Dataset | None,
    references: Dataset | None,
    out: Path | None = None,
) -> Path:
    """Write the report of a run, telling how far it is; arguments as for `write_report`."""
    view = View(clf.image_size, clf.resize_to)
    cards = len(results.sample(MOST_CARDS).explanations)
    with stage("Writing the report", cards) as advance:
        return write_report(results, dataset, references, view, advance=advance, out=out)


def report_again(folder: Path) -> Path:
    """Write the report of a run anew, reopening what its config names.

    Where the images are gone the cards say so, and the rest stays. The report of a run that is not
    finished shows what there is, and how much is missing.
    """
    if (folder / "parts").is_dir() and not (folder / "run.json").exists():
        return _report_unfinished(folder)
    results = read_run(folder)
    clf = open_classifier(results.config.model)
    return report(results, clf, *_splits(results.config))


def _splits(config: ExplainConfig) -> tuple[Dataset | None, Dataset | None]:
    try:
        dataset, references = open_splits(config.data, config.split, config.reference_split)
    except InputError as error:
        notify(f"{error}; the page goes without the images")
        return None, None
    return dataset, references


def _report_unfinished(folder: Path) -> Path:
    kept = read_json(folder / "config.json").get("config", {})
    try:
        config = from_dict(ExplainConfig, kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: config: expected that of a run ({error})") from error
    inputs = open_inputs(config)
    images = min(len(inputs.dataset), config.limit or len(inputs.dataset))
    with unfinished_run(folder, inputs.clf.class_names, images) as results:
        notify(f"{folder}: {results.info['missing']}")
        return report(results, inputs.clf, inputs.dataset, inputs.references, folder)


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write the page that shows some runs side by side.

    Args:
        folders: Of finished runs over the same images, at least two.
        out: The page.

    Raises:
        InputError: A run that is not finished, fewer than two, or none of the images in common.
    """
    if not out.parent.is_dir() or out.is_dir():
        raise InputError(f"out: expected a file in an existing folder, got {out}")
    runs = [read_run(folder) for folder in folders]
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"runs: expected different ones, got {', '.join(names)}")
    config = runs[0].config if runs else ExplainConfig()
    clf = open_classifier(config.model)
    dataset, _ = _splits(config)
    return write_comparison(runs, names, out, dataset, View(clf.image_size, clf.resize_to))
