"""A run: every misclassified image of a split, explained, and written as it goes."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.compute as pc
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from fgvce_jax import __version__
from fgvce_jax.bank import Bank, build_bank, load_bank, pad_batch, save_bank
from fgvce_jax.checks import check_logits
from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data import open_dataset
from fgvce_jax.data.example import Dataset
from fgvce_jax.data.pipeline import Batch, batches, image_loader, preprocess
from fgvce_jax.distributed import Processes
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.explain import explain_cells
from fgvce_jax.gallery import check_methods, gallery
from fgvce_jax.heads import searchable
from fgvce_jax.memory import available_bytes, program_bytes
from fgvce_jax.methods import METHODS
from fgvce_jax.models import Classifier, open_classifier
from fgvce_jax.progress import notify, stage
from fgvce_jax.report import write_report
from fgvce_jax.results import (
    Record,
    explained,
    open_run,
    parts_done,
    read_run,
    whole_file,
)


def explain_split(config: ExplainConfig, folder: Path, processes: Processes | None = None) -> None:
    """Explain every misclassified image of a split into `folder`, and write the report.

    A run that was interrupted continues. With several processes, each calls this with the same
    config and folder; each explains its share of the parts, and process 0 puts them together.

    Raises:
        InputError: See the modules that read the classifier, the data and the folder.
    """
    processes = processes or Processes()
    if processes.primary:
        run = open_run(folder, asdict(config))
        processes.part()
        if (folder / "run.json").exists() and not run.resumed:
            notify(f"{folder}: this run is finished; doing it again")
    else:
        resumed = parts_done(folder)
        processes.part()
        run = open_run(folder, asdict(config), primary=False, resumed=resumed)

    with run, processes.alive(folder):
        started = time.perf_counter()
        clf = open_classifier(config.model)
        if config.dtype != "float32":
            clf = clf.astype(config.dtype)
        methods = check_methods(config.methods, clf)
        dataset, references = (
            LabelledAs(open_dataset(config.data.name, split, config.data.path), clf)
            for split in (config.split, config.reference_split)
        )
        inputs = {
            "classifier": _fingerprint(clf),
            "dataset": dataset.fingerprint(),
            "reference dataset": references.fingerprint(),
        }
        if processes.primary:
            run.hold_to(inputs)
        count = min(len(dataset), config.limit or len(dataset))
        parts = [
            range(start, min(start + config.part_size, count))
            for start in range(0, count, config.part_size)
        ]
        if run.resumed and processes.primary:
            notify(f"{folder}: continuing, {len(run.resumed)} of {len(parts)} parts are done")
        predictor = Predictor(clf, config.batch_size)
        path = Path(config.bank_file or folder / "bank.npz")
        bank, skipped = _bank(config, clf, references, inputs, path, keep=processes.primary)
        loaded = time.perf_counter()
        rivals = None
        if config.pairs == "confusion":
            rivals = most_confused(predictor, dataset, count, config.data.num_workers)
        if processes.primary:
            _say_what_is_lacking(bank, clf)
        all_cells = None
        if any("all_cells" in METHODS[name].needs for name in methods):
            whole = replace(config, bank=replace(config.bank, top_m=None))
            path = folder / "bank-all.npz"
            all_cells, _ = _bank(whole, clf, references, inputs, path, keep=processes.primary)
        explainer = Explainer(
            config, predictor, bank, all_cells, methods, dataset, references.ids, rivals
        )
        todo = [i for i in processes.share(range(len(parts))) if i not in run.resumed]
        with stage("Explaining", sum(len(parts[i]) for i in todo)) as advance:
            for i in todo:
                run.write_part(i, list(explainer.records(parts[i], advance)))
        everything = frozenset(range(len(parts)))  # also when process 0 has put it all together
        processes.wait_for_parts(
            folder, lambda: run.done if run.parts.exists() else everything, len(parts)
        )
        if not processes.primary:
            return
        done = time.perf_counter()
        run.merge(
            clf.class_names,
            len(parts),
            {
                "classes_without_reference": [clf.class_names[k] for k in bank.missing()],
                "classes_with_few_references": _few_references(bank, clf),
                "skipped_references": skipped,
                "versions": _versions(),
                "device": _device(),
                "processes": processes.count,
                "timings": {
                    "classifier and bank": round(loaded - started, 3),
                    "predictions and explanations": round(done - loaded, 3),
                },
            },
        )
        report(folder, config, clf, dataset.dataset, references.dataset)
        run.finish()


def report(
    folder: Path, config: ExplainConfig, clf: Classifier, dataset: Dataset, references: Dataset
) -> Path:
    """Write report.html from what a run left in `folder`."""
    view = partial(preprocess, image_size=clf.image_size, resize_to=clf.resize_to)
    with stage("Writing the report", len(read_run(folder).table)) as advance:
        return write_report(folder, dataset, references, view, advance=advance)


class LabelledAs:
    """A dataset's ids, and its labels as the classifier numbers its classes.

    Where both know the classes by name, names decide; else the numbers are taken as they are.

    Raises:
        InputError: A class that the classifier does not have.
    """

    def __init__(self, dataset: Dataset, clf: Classifier):
        self.dataset = dataset
        self.ids = dataset.ids
        number = {name: k for k, name in enumerate(clf.class_names)}
        unnamed = clf.class_names == tuple(str(k) for k in range(clf.num_classes))
        unknown = [name for name in dataset.class_names if name not in number]
        if not unknown:
            self.labels = np.array([number[name] for name in dataset.class_names])[dataset.labels]
        elif unnamed and len(dataset.class_names) <= clf.num_classes:
            self.labels = dataset.labels
        else:
            raise InputError(
                f"class {unknown[0]!r} of the dataset: expected one of the classifier's "
                f"{clf.num_classes} classes ({clf.class_names[0]!r}, ...)"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """A hash of the images' ids and of their labels."""
        digest = hashlib.sha256(repr(list(self.ids)).encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]


def _bank(
    config: ExplainConfig,
    clf: Classifier,
    references: LabelledAs,
    inputs: Mapping[str, str],
    path: Path,
    keep: bool,
) -> tuple[Bank, list[dict[str, str]]]:
    """The run's bank, and the reference images that could not be read, by id and why.

    Read from its file `path`, or built and, if wanted, kept there.
    """
    if not path.parent.is_dir():
        raise InputError(f"bank_file {path}: expected an existing folder to keep it in")
    key = {
        "classifier": inputs["classifier"],
        "references": inputs["reference dataset"],
        **asdict(config.bank),
    }
    kept = None
    if path.exists():
        try:
            kept = load_bank(path, key)
        except InputError as error:
            notify(f"{error}; building it again")
    bank, skipped = kept or _build_bank(config, clf, references)
    if keep and not kept:
        with whole_file(path) as file:
            save_bank(bank, file, key, skipped)
    return bank, skipped


def _say_what_is_lacking(bank: Bank, clf: Classifier) -> None:
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


def _build_bank(
    config: ExplainConfig, clf: Classifier, references: LabelledAs
) -> tuple[Bank, list[dict[str, str]]]:
    skipped = []

    def skip(error: UnreadableImage) -> None:
        notify(f"skipped reference {error}")
        skipped.append({"id": error.id, "why": error.why})

    load = image_loader(
        references.dataset,
        config.batch_size,
        clf.image_size,
        clf.resize_to,
        num_workers=config.data.num_workers,
        on_skip=skip,
    )
    wanted = config.bank.per_class * clf.num_classes
    with stage("Collecting references", wanted) as advance:
        bank = build_bank(
            clf,
            load,
            references.labels,
            config.bank,
            batch_size=config.batch_size,
            advance=advance,
        )
    return bank, skipped


def _fingerprint(clf: Classifier) -> str:
    """A hash of the classifier's weights and of what it does to an image."""
    digest = hashlib.sha256(repr((clf.spec, clf.image_size, clf.resize_to)).encode())
    for leaf in jax.tree.leaves(clf):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def most_confused(
    predictor: Predictor, dataset: LabelledAs, count: int, num_workers: int = 0
) -> Int[np.ndarray, "K"]:
    """For every class, the other class that the model says most often for its images.

    Where it never errs on a class, the other class with the highest mean probability.
    """
    clf = predictor.clf
    said = np.zeros((clf.num_classes, clf.num_classes))
    with stage("Finding confused pairs", count) as advance:
        for batch in batches(
            dataset.dataset,
            np.arange(count),
            predictor.batch_size,
            clf.image_size,
            clf.resize_to,
            num_workers=num_workers,
            on_skip=lambda error: None,  # it is named where it is missed
        ):
            _, logits = predictor(batch)
            labels = dataset.labels[batch.index]
            np.add.at(said, (labels, logits.argmax(-1)), 1)
            # Probabilities are below 1 in all, so they only decide between equal counts.
            shares = np.asarray(jax.nn.softmax(logits)) / (len(dataset) + 1)
            np.add.at(said, labels, shares)
            advance(len(labels))
    np.fill_diagonal(said, -1)
    return said.argmax(-1).astype(np.int32)


class Predictor:
    """Cells and logits of batches, in one shape, split over the local devices.

    Raises:
        InputError: A batch does not fit in memory.
    """

    def __init__(self, clf: Classifier, batch_size: int):
        devices = np.array(jax.local_devices())
        self.clf = clf
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self.sharding = NamedSharding(Mesh(devices, ("images",)), PartitionSpec("images"))
        shape = (self.batch_size, clf.image_size, clf.image_size, 3)
        images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=self.sharding)
        self.program = _predict.lower(clf, images).compile()
        self._check_memory(len(devices))

    def _check_memory(self, devices: int) -> None:
        needed, available = program_bytes(self.program), available_bytes()
        if jax.default_backend() == "cpu":
            needed *= devices  # virtual ones share the machine's memory
        if available is not None and needed > available:
            fits = int(0.8 * self.batch_size * available / needed)
            raise InputError(
                f"batch_size {self.batch_size}: a forward pass needs about {needed / 2**30:.1f} "
                f"GiB and {available / 2**30:.1f} GiB are free; try {max(fits, 1)} or fewer"
            )

    def __call__(self, batch: Batch) -> tuple[Float[Array, "B n n C"], Float[np.ndarray, "b K"]]:
        """Cells of the padded batch, and logits of its b images.

        Raises:
            InputError: NaN logits.
        """
        images = pad_batch(batch.image, self.batch_size)
        cells, logits = self.program(self.clf, jax.device_put(images, self.sharding))
        logits = np.asarray(logits)[: len(batch.index)]
        check_logits("image", batch.id, logits)
        return cells, logits


@jax.jit
def _predict(
    clf: Classifier, images: UInt8[Array, "B H W 3"]
) -> tuple[Float[Array, "B n n C"], Float[Array, "B K"]]:
    cells = clf.features(images.astype(jnp.float32) / 255)
    return cells, clf.head(cells)


@partial(jax.jit, donate_argnums=0)
def _put(
    queue: Float[Array, "Q n n C"], cells: Float[Array, "B n n C"], places: Int[Array, "B"]
) -> Float[Array, "Q n n C"]:
    """The queue with each feature map in its place; places past the end are dropped."""
    return queue.at[places].set(cells, mode="drop")


class _Waiting(NamedTuple):
    index: int
    id: str
    label: int
    target: int
    image: UInt8[np.ndarray, "H W 3"]


class Explainer:
    """Predicts images of a split and explains those that ask for it, in batches of one shape.

    Their cells wait on the device until a batch is full, so that nothing else enters the search.

    Args:
        config: The run's.
        predictor: Of its classifier.
        bank: The candidates.
        all_cells: What exhaustive methods choose from; None where `methods` has none.
        methods: Whose maps stand beside, from `check_methods`.
        dataset: The split.
        reference_ids: Ids of the split that the candidates come from.
        rivals: Each class's Q, where correctly classified images are asked about.
    """

    def __init__(
        self,
        config: ExplainConfig,
        predictor: Predictor,
        bank: Bank,
        all_cells: Bank | None,
        methods: Sequence[str],
        dataset: LabelledAs,
        reference_ids: Sequence[str],
        rivals: Int[np.ndarray, "K"] | None = None,
    ):
        self.clf, self.search, self.rivals = predictor.clf, config.search, rivals
        self.num_workers = config.data.num_workers
        self.predictor, self.batch_size = predictor, predictor.batch_size
        # A CPU reads the host's memory; elsewhere the bank would travel with every batch.
        self.bank, self.all_cells = (
            (bank, all_cells)
            if jax.default_backend() == "cpu"
            else jax.device_put((bank, all_cells))
        )
        self.dataset, self.reference_ids = dataset, reference_ids
        self.head = searchable(self.clf.head)
        self.methods = methods
        self.compiled = False

    def records(self, part: range, advance: Callable[[int], None]) -> Iterator[Record]:
        """What is to be said of each image of `part`, in its order."""
        found: dict[int, Record] = {}

        def skip(error: UnreadableImage) -> None:
            i = self.dataset.ids.index(error.id)
            notify(f"skipped {error}")
            found[i] = Record(i, error.id, int(self.dataset.labels[i]), "skipped", why=error.why)
            advance(1)

        queue, waiting, size = None, [], self.batch_size
        for batch in batches(
            self.dataset.dataset,
            np.array(part),
            size,
            self.clf.image_size,
            self.clf.resize_to,
            num_workers=self.num_workers,
            on_skip=skip,
        ):
            cells, logits = self.predictor(batch)
            predicted, labels = logits.argmax(-1), self.dataset.labels[batch.index]
            if self.rivals is None:
                asked, targets = predicted != labels, labels
            else:
                asked, targets = predicted == labels, self.rivals[labels]
            places = np.full(size, 2 * size)  # past the end: dropped
            places[: len(asked)][asked] = len(waiting) + np.arange(asked.sum())
            if queue is None:
                queue = jnp.zeros((2 * size, *cells.shape[1:]), cells.dtype)
            queue = _put(queue, cells, places)
            for b, (i, id) in enumerate(zip(batch.index.tolist(), batch.id, strict=True)):
                label = int(labels[b])
                if asked[b]:
                    waiting.append(_Waiting(i, id, label, int(targets[b]), batch.image[b]))
                else:
                    found[i] = Record(i, id, label, "unexplained", predicted=int(predicted[b]))
            if len(waiting) >= size:
                self._explain(queue[:size], waiting[:size], found)
                queue, waiting = jnp.roll(queue, -size, axis=0), waiting[size:]
            advance(len(asked))
        if waiting:
            self._explain(queue[:size], waiting, found)
        return (found[i] for i in sorted(found))

    def _explain(self, cells: Array, waiting: list[_Waiting], found: dict[int, Record]) -> None:
        targets = pad_batch(np.array([w.target for w in waiting], np.int32), self.batch_size)
        arguments = self.head, self.bank.for_targets(targets), cells, targets
        options = {"config": self.search, "devices": tuple(jax.local_devices())}
        if not self.compiled:  # before the clock starts: it is no part of an explanation
            explain_cells.lower(*arguments, **options).compile()
            self.compiled = True
        started = time.perf_counter()
        out = jax.device_get(explain_cells(*arguments, **options))
        seconds = (time.perf_counter() - started) / len(waiting)
        maps = {}
        if self.methods:
            images = pad_batch(np.stack([w.image for w in waiting]), self.batch_size)
            maps = gallery(
                self.methods,
                self.clf,
                self.bank,
                self.all_cells,
                images.astype(np.float32) / 255,
                out.predicted,
                targets,
                cells.shape[1],
            )
        for b, w in enumerate(waiting):
            found[w.index] = explained(
                w.index,
                w.id,
                w.label,
                jax.tree.map(itemgetter(b), out),
                self.bank.provenance(w.target),
                self.reference_ids,
                seconds,
                {name: values[b] for name, values in maps.items()},
            )


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "numpy")
    return {"fgvce_jax": __version__, "python": platform.python_version()} | {
        name: version(name) for name in packages
    }


def _device() -> str:
    device = jax.local_devices()[0]
    return f"{len(jax.local_devices())} x {device.device_kind}"


def report_again(folder: Path) -> Path:
    """Write the report of a finished run anew, reopening what its config names.

    Raises:
        InputError: No finished run there, or its data or classifier are gone.
    """
    config = from_dict(ExplainConfig, read_run(folder).info["config"])
    clf = open_classifier(config.model)
    datasets = (
        open_dataset(config.data.name, split, config.data.path)
        for split in (config.split, config.reference_split)
    )
    return report(folder, config, clf, *datasets)


def summary(folder: Path) -> str:
    """What came of a run, in a few lines; the last names the report."""
    results = read_run(folder)
    counts = results.info["counts"]
    table = results.table.filter(pc.field("status") == "explained")
    seconds = table["time_s"].to_numpy()
    edits = table["num_edits"].to_numpy()[table["flipped"].to_numpy(zero_copy_only=False)]
    lines = [
        f"images          {counts['read']:,}"
        + (f" ({counts['skipped']} skipped)" if counts["skipped"] else ""),
        f"accuracy        {counts['correct'] / max(counts['read'], 1):.1%}",
        f"misclassified   {counts['misclassified']:,}",
        f"explained       {counts['explained']:,}"
        + (f" ({counts['no_reference']} without a reference)" if counts["no_reference"] else ""),
    ]
    if counts["explained"]:
        share = counts["flipped"] / counts["explained"]
        most = (
            f"median {np.median(edits):.0f}, most {edits.max()}" if len(edits) else "none flipped"
        )
        lines += [
            f"flipped         {counts['flipped']:,} ({share:.1%})",
            f"edits           {most}",
            f"time            {1000 * np.median(seconds):.1f} ms per explanation",
        ]
    return "\n".join([*lines, f"report          {folder / 'report.html'}"])
