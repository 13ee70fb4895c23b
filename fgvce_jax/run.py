"""A run: every misclassified image of a split, explained, and written as it goes."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgvce_jax import __version__
from fgvce_jax.bank import Bank, build_bank
from fgvce_jax.bank_file import Skipped, open_bank
from fgvce_jax.config import BankConfig, ExplainConfig
from fgvce_jax.data.example import Dataset
from fgvce_jax.data.pipeline import image_loader, preprocess
from fgvce_jax.distributed import Processes
from fgvce_jax.errors import UnreadableImage
from fgvce_jax.heads import searchable
from fgvce_jax.inference import Explainer, Predictor, check_methods, most_confused, need_all_cells
from fgvce_jax.logit_changes import why_not_linear
from fgvce_jax.models import Classifier, open_classifier
from fgvce_jax.progress import notify, stage
from fgvce_jax.report import write_report
from fgvce_jax.results import (
    CORE_MAPS,
    Run,
    join_run,
    open_run,
    read_run,
    summary,
    whole_parts,
)
from fgvce_jax.run_inputs import RunInputs, open_inputs, open_splits

__all__ = ["explain_split", "report_again", "summary"]


def explain_split(config: ExplainConfig, folder: Path, processes: Processes | None = None) -> None:
    """Explain every misclassified image of a split into `folder`, and write the report.

    A run that was interrupted continues. With several processes, each calls this with the same
    config and folder; each explains its share of the parts, and process 0 puts them together.
    """
    processes = processes or Processes()
    run = _open_folder(folder, asdict(config), processes)
    with run, processes.alive(folder):
        started = time.perf_counter()
        inputs = open_inputs(config)
        methods = check_methods(config.methods, inputs.clf)
        if processes.primary:
            run.check_inputs(inputs.fingerprints)
        predictor = Predictor(inputs.clf, config.batch_size, config.data.num_workers)
        path = Path(config.bank_file or folder / "bank.npz")
        bank, skipped = _open_bank(predictor, inputs, config.bank, path, processes.primary)
        if processes.primary:
            _notify_missing_references(bank, inputs.clf)
        loaded = time.perf_counter()

        count = min(len(inputs.dataset), config.limit or len(inputs.dataset))
        explainer = Explainer(predictor, config.search, bank, inputs.references.ids, methods)
        if config.pairs == "confusion":
            with stage("Finding confused pairs", count) as advance:
                split = inputs.dataset, inputs.labels
                explainer.confused_with = most_confused(predictor, *split, count, advance)
        if need_all_cells(methods):
            whole, path = replace(config.bank, top_m=None), folder / "bank-all.npz"
            explainer.all_cells, _ = _open_bank(predictor, inputs, whole, path, processes.primary)
        starts = range(0, count, config.part_size)
        parts = [range(start, min(start + config.part_size, count)) for start in starts]
        todo = [i for i in processes.share(range(len(parts))) if i not in run.resumed]
        with stage("Explaining", sum(len(parts[i]) for i in todo)) as advance:
            for i in todo:
                run.write_part(i, explainer(inputs.dataset, inputs.labels, parts[i], advance))

        if not processes.primary:
            processes.wait_for_results(folder, lambda: run.finished)
            return
        processes.wait_for_parts(folder, lambda: run.done, len(parts))
        timings = {
            "classifier and bank": round(loaded - started, 3),
            "predictions and explanations": round(time.perf_counter() - loaded, 3),
        }
        info = _run_info(bank, inputs.clf, skipped, processes.count) | {"timings": timings}
        run.merge(inputs.clf.class_names, len(parts), info, (*CORE_MAPS, *methods))
        _report(folder, inputs.clf, inputs.dataset, inputs.references)
        run.finish()


def _open_folder(folder: Path, config: dict[str, Any], processes: Processes) -> Run:
    """The run in `folder`; the processes part once it is open and each knows what is done."""
    if not processes.primary:
        resumed = whole_parts(folder)  # now, as process 0 may finish the run at any time later
        processes.disconnect()
        return join_run(folder, config, resumed)
    run = open_run(folder, config)
    processes.disconnect()
    if run.resumed:
        notify(f"{folder}: continuing, {len(run.resumed)} parts are done")
    elif (folder / "run.json").exists():
        notify(f"{folder}: this run is finished; doing it again")
    return run


def _open_bank(
    predictor: Predictor, inputs: RunInputs, config: BankConfig, path: Path, keep: bool
) -> tuple[Bank, Skipped]:
    """The bank in `path`, or a new one; and the reference images that could not be read."""
    clf, size, skipped = predictor.clf, predictor.batch_size, []

    def skip(error: UnreadableImage) -> None:
        notify(f"skipped reference {error}")
        skipped.append({"id": error.id, "why": error.why})

    def build() -> tuple[Bank, Skipped]:
        options = {"num_workers": predictor.num_workers, "on_skip": skip}
        load = image_loader(inputs.references, size, clf.image_size, clf.resize_to, **options)
        with stage("Collecting references", config.per_class * clf.num_classes) as advance:
            labels = inputs.reference_labels
            bank = build_bank(clf, load, labels, config, batch_size=size, advance=advance)
        return bank, skipped

    key = {
        "classifier": inputs.fingerprints["classifier"],
        "references": inputs.fingerprints["reference dataset"],
        **asdict(config),
    }
    return open_bank(path, key, build, keep=keep)


def _notify_missing_references(bank: Bank, clf: Classifier) -> None:
    for k in bank.missing():
        notify(f"class {clf.class_names[k]}: no reference image is classified correctly")
    if few := _few_references(bank, clf):
        name, count = min(few.items(), key=itemgetter(1))
        notify(
            f"{len(few)} of {clf.num_classes} classes have fewer than {bank.config.per_class} "
            f"reference images, the fewest ({count}) {name}"
        )


def _few_references(bank: Bank, clf: Classifier) -> dict[str, int]:
    """Classes with fewer reference images than were wanted, and with how many."""
    counts = zip(clf.class_names, np.asarray(bank.references).tolist(), strict=True)
    return {name: count for name, count in counts if 0 < count < bank.config.per_class}


def _run_info(bank: Bank, clf: Classifier, skipped: Skipped, processes: int) -> dict[str, Any]:
    """The entries of run.json that describe how the results came about."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    devices = jax.local_devices()
    return {
        "classes_without_reference": [clf.class_names[k] for k in bank.missing()],
        "classes_with_few_references": _few_references(bank, clf),
        "skipped_references": list(skipped),
        "versions": {"fgvce_jax": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "processes": processes,
        "edits_interact": why_not_linear(searchable(clf.head)),
    }


def _report(folder: Path, clf: Classifier, dataset: Dataset, references: Dataset) -> Path:
    view = partial(preprocess, image_size=clf.image_size, resize_to=clf.resize_to)
    with stage("Writing the report", len(read_run(folder).table)) as advance:
        return write_report(folder, dataset, references, view, advance=advance)


def report_again(folder: Path) -> Path:
    """Write the report of a finished run anew, reopening what its config names."""
    config = read_run(folder).config
    splits = open_splits(config.data, config.split, config.reference_split)
    return _report(folder, open_classifier(config.model), *splits)
