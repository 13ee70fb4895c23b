"""A run: every misclassified image of a split, explained, and written as it goes."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from fgvce_jax.bank import Bank
from fgvce_jax.bank_file import Skipped, open_bank
from fgvce_jax.clock import Clock
from fgvce_jax.cluster import Pool, connected
from fgvce_jax.config import BankConfig, ExplainConfig, RayConfig
from fgvce_jax.files import fingerprint
from fgvce_jax.heads import searchable
from fgvce_jax.inference import most_confused
from fgvce_jax.logit_changes import why_not_linear
from fgvce_jax.method_maps import check_methods, need_all_cells
from fgvce_jax.models import Classifier
from fgvce_jax.progress import notify, stage
from fgvce_jax.reports import report
from fgvce_jax.results import CORE_MAPS, Run, open_run, read_run, skip_reasons, summary
from fgvce_jax.run_inputs import RunInputs, open_inputs, preprocessing
from fgvce_jax.run_worker import Worker, open_worker, versions
from fgvce_jax.stop import Stop
from fgvce_jax.workers import Here, Task

__all__ = ["explain_split", "summary"]


def explain_split(
    config: ExplainConfig, folder: Path, ray: RayConfig | None = None, stop: Stop | None = None
) -> None:
    """Explain every misclassified image of a split into `folder`, and write the report.

    A run that was interrupted continues.

    Args:
        config: Which images, classifier, bank and search.
        folder: Of the results.
        ray: The cluster whose workers compute; by default this process does.
        stop: Asks for an early end.

    Raises:
        InputError: Something that the config names cannot be used, or the folder is not this run's.
        Stopped: `stop` asked for it. The parts in hand are written, and the same call continues.
    """
    ray, stop = ray or RayConfig(), stop or Stop()
    with connected(ray) if ray.address else nullcontext(), _open_folder(folder, config) as run:
        started, clock = time.perf_counter(), Clock()
        with clock("start"):
            inputs = open_inputs(config)
            methods = check_methods(config.methods, inputs.clf)
            run.check_inputs(inputs.fingerprints)
            count = min(len(inputs.dataset), config.limit or len(inputs.dataset))
            starts = range(0, count, config.part_size)
            parts = [range(start, min(start + config.part_size, count)) for start in starts]
            workers = _workers(config, inputs, run, ray, stop, len(parts))
        asked = inputs.asked(config.pairs)
        with clock("references"):
            path = Path(config.bank_file or folder / "bank.npz")
            bank, skipped = _open_bank(workers, inputs, config.bank, asked, path)
            _notify_missing_references(bank, inputs.clf, asked)
            all_cells = None
            if need_all_cells(methods):
                whole, path = replace(config.bank, top_m=None), folder / "bank-all.npz"
                all_cells, _ = _open_bank(workers, inputs, whole, asked, path)
        with clock("confusions"):
            confused_with = _confused(workers, parts) if config.pairs == "confusion" else None
        workers.everywhere(Worker.hold, bank, all_cells, confused_with)
        with stop.deferred():
            computed_by = _explain(workers, run, parts, clock)
        with clock("tables"):
            info = _run_info(bank, inputs, asked, skipped) | computed_by
            run.merge(inputs.clf.class_names, len(parts), info, (*CORE_MAPS, *methods))
        here = sum(len(part) for i, part in enumerate(parts) if i not in run.resumed)
        run.add_info(_timings(clock, started, here))  # for the page; again with what it took
        with clock("report"):
            report(read_run(folder), inputs.clf, inputs.dataset, inputs.references)
        run.add_info(_timings(clock, started, here))
        run.finish()


def _timings(clock: Clock, started: float, images: int) -> dict[str, Any]:
    """The entries of run.json on the time and the memory of this call, and of how many images.

    Of several workers the seconds are summed, while the total is the time of the wall.
    """
    timings = {
        "seconds": {name: round(s, 3) for name, s in clock.seconds.items()},
        "total": round(time.perf_counter() - started, 3),
        "images": images,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"timings": timings, "peak_memory_mib": round(peak)}


def _open_folder(folder: Path, config: ExplainConfig) -> Run:
    """The run in `folder`, whose state is told."""
    run = open_run(folder, asdict(config))
    if run.resumed:
        notify(f"{folder}: continuing, {len(run.resumed)} parts are done")
    elif (folder / "run.json").exists():
        notify(f"{folder}: this run is finished; doing it again")
    return run


def _workers(
    config: ExplainConfig, inputs: RunInputs, run: Run, ray: RayConfig, stop: Stop, parts: int
) -> Here | Pool:
    """The worker of this process, or those of the cluster that it is connected to."""
    mark = run.mark()
    if ray.address is None:
        return Here(Worker(config, inputs, mark), stop)
    kept = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    settings = {name: jax.config.values[name] for name in kept}
    if ray.gpus_per_worker == 0:  # it sees those of its machine all the same
        settings["jax_platforms"] = "cpu"
    sent = inputs.to_send(config)
    make = partial(open_worker, config, sent, mark.absolute(), versions(), settings)
    return Pool(make, ray, stop, most=max(parts - len(run.resumed), 1))


def _open_bank(
    workers: Here | Pool,
    inputs: RunInputs,
    config: BankConfig,
    asked: Int[np.ndarray, "k"],
    path: Path,
) -> tuple[Bank, Skipped]:
    """The bank in `path`, or a new one; and the reference images that could not be read."""

    def build() -> tuple[Bank, Skipped]:
        found = np.bincount(inputs.reference_labels, minlength=inputs.clf.num_classes)
        wanted = int(np.minimum(found[asked], config.per_class).sum())
        with stage("Collecting references", wanted) as advance:
            task = {0: Task((config,), wanted)}
            ((_, (bank, skipped)),) = workers.map(Worker.build_bank, task, advance)
        for image in skipped:
            notify(f"skipped reference image {image['id']}: {image['why']}")
        return bank, skipped

    key = {
        "classifier": inputs.fingerprints["classifier"],
        "references": inputs.fingerprints["reference dataset"],
        "classes": fingerprint(asked),
        **asdict(config),
    }
    return open_bank(path, key, build)


def _confused(workers: Here | Pool, parts: Iterable[range]) -> Int[np.ndarray, "K"]:
    """Each class's target where correctly classified images are asked about."""
    tasks = {i: Task((part,), len(part)) for i, part in enumerate(parts)}
    with stage("Finding confused pairs", sum(map(len, parts))) as advance:
        votes = sum(found for _, found in workers.map(Worker.count_confusions, tasks, advance))
    return most_confused(np.asarray(votes))


def _explain(workers: Here | Pool, run: Run, parts: list[range], clock: Clock) -> dict[str, Any]:
    """Compute the parts that are not there; returns by whom, for run.json."""
    todo = {i: part for i, part in enumerate(parts) if i not in run.resumed}
    tasks = {i: Task((i, part), len(part)) for i, part in todo.items()}
    devices, names = set(), set()
    with stage("Explaining", sum(map(len, todo.values()))) as advance:
        for i, done in workers.map(Worker.explain, tasks, advance):
            if done.results is not None:
                run.write_part(i, done.results)
            clock.add(done.seconds)
            devices.add(done.device)
            names.add(done.worker)
    return {"device": ", ".join(sorted(devices)), "workers": len(names)}


def _notify_missing_references(bank: Bank, clf: Classifier, asked: Int[np.ndarray, "k"]) -> None:
    for k in np.intersect1d(bank.missing(), asked):
        notify(f"class {clf.class_names[k]}: no reference image is classified correctly")
    if few := _few_references(bank, clf):
        name, count = min(few.items(), key=itemgetter(1))
        notify(
            f"{len(few)} of {len(asked)} classes have fewer than {bank.config.per_class} "
            f"reference images, the fewest ({count}) {name}"
        )


def _few_references(bank: Bank, clf: Classifier) -> dict[str, int]:
    """Classes with fewer reference images than were wanted, and with how many."""
    counts = zip(clf.class_names, np.asarray(bank.references).tolist(), strict=True)
    return {name: count for name, count in counts if 0 < count < bank.config.per_class}


def _run_info(
    bank: Bank, inputs: RunInputs, asked: Int[np.ndarray, "k"], skipped: Skipped
) -> dict[str, Any]:
    """The entries of run.json that describe how the results came about."""
    clf = inputs.clf
    image = jax.ShapeDtypeStruct((1, clf.image_size, clf.image_size, 3), np.float32)
    missing = np.intersect1d(bank.missing(), asked)
    return {
        "data": list(inputs.notes),
        "preprocessing": preprocessing(clf),
        "cells": jax.eval_shape(clf.feature_map, image).cells.shape[1],
        "num_classes": clf.num_classes,
        "classes": {name: clf.class_names[k] for name, k in inputs.classes.items()},
        "classes_without_reference": [clf.class_names[k] for k in missing],
        "classes_with_few_references": _few_references(bank, clf),
        "skipped_references": list(skipped),
        "skipped_references_by_reason": skip_reasons(skipped),
        "versions": versions(),
        "edits_interact": why_not_linear(searchable(clf.head)),
    }
