"""The classifier and the explanations over a dataset, in batches of one shape.

One shape means one compilation. The images to explain wait on the device until a batch of
them is full, so that the search never computes an explanation that is not asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from fgvce_jax.bank import Bank, Candidates, pad_batch
from fgvce_jax.checks import check_logits
from fgvce_jax.clock import Clock
from fgvce_jax.config import SearchConfig
from fgvce_jax.data.example import Dataset
from fgvce_jax.data.pipeline import Batch, batches
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.explain import explain_cells
from fgvce_jax.explanation import Explanation
from fgvce_jax.heads import searchable
from fgvce_jax.logit_changes import logit_changes, why_not_linear
from fgvce_jax.memory import available_bytes, program_bytes
from fgvce_jax.method_maps import EXPLAINED_BY, method_maps
from fgvce_jax.models.classifier import Classifier, FeatureMap
from fgvce_jax.neighbours import nearest_classes, reference_features
from fgvce_jax.progress import notify
from fgvce_jax.results import CORE_MAPS, Edit, ImageResult

# --- the classifier -----------------------------------------------------------------------------


class Predictor:
    """Feature maps and logits of batches, in one shape, split over the local devices.

    `batch_size` is rounded up to a multiple of the devices; InputError where such a batch does not
    fit in memory.
    """

    def __init__(self, clf: Classifier, batch_size: int, num_workers: int = 0):
        devices = np.array(jax.local_devices())
        self.clf, self.num_workers = clf, num_workers
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self._sharding = NamedSharding(Mesh(devices, ("images",)), PartitionSpec("images"))
        shape = (self.batch_size, clf.image_size, clf.image_size, 3)
        images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=self._sharding)
        self._program = _predict.lower(clf, images).compile()
        needed, available = program_bytes(self._program), available_bytes()
        if jax.default_backend() == "cpu":
            needed *= len(devices)  # virtual ones share the machine's memory
        if available is not None and needed > available:
            fits = int(0.8 * self.batch_size * available / needed)
            raise InputError(
                f"batch_size {self.batch_size}: a forward pass needs about {needed / 2**30:.1f} "
                f"GiB and {available / 2**30:.1f} GiB are free; try {max(fits, 1)} or fewer"
            )

    def __call__(self, batch: Batch) -> tuple[FeatureMap, Float[np.ndarray, "b K"]]:
        """The padded batch at the cut, and logits of its b images; InputError for NaN."""
        images = pad_batch(batch.image, self.batch_size)
        feature_map, logits = self._program(self.clf, jax.device_put(images, self._sharding))
        logits = np.asarray(logits)[: len(batch.index)]
        check_logits("image", batch.id, logits)
        return feature_map, logits

    def batches(
        self,
        dataset: Dataset,
        indices: Int[np.ndarray, "M"],
        on_skip: Callable[[UnreadableImage], None],
    ) -> Iterator[Batch]:
        """The images at `indices` as the classifier takes them; see `data.pipeline.batches`."""
        sizes = self.batch_size, self.clf.image_size, self.clf.resize_to
        workers = self.num_workers
        return batches(dataset, indices, *sizes, num_workers=workers, on_skip=on_skip)


@jax.jit
def _predict(
    clf: Classifier, images: UInt8[Array, "B H W 3"]
) -> tuple[FeatureMap, Float[Array, "B K"]]:
    feature_map = clf.feature_map(images.astype(jnp.float32) / 255)
    return feature_map, clf.logits(feature_map)


def confusion_votes(
    predictor: Predictor,
    dataset: Dataset,
    labels: Int[np.ndarray, "N"],
    part: range,
    advance: Callable[[int], None] = lambda count: None,
) -> Float[np.ndarray, "2 K K"]:
    """Over the images of a part, by their class (row) and a class predicted (column): how many
    there are, and the sum of that class's probabilities.

    Probabilities count in steps of 2^-24, so that their sums are exact and the parts of a split add
    up to the same in any order. `advance` is called with each batch's size.
    """
    votes = np.zeros((2, predictor.clf.num_classes, predictor.clf.num_classes))
    # Unreadable images are reported where they are missed in the results.
    for batch in predictor.batches(dataset, np.array(part), on_skip=lambda error: None):
        _, logits = predictor(batch)
        rows = labels[batch.index]
        np.add.at(votes[0], (rows, logits.argmax(-1)), 1)
        np.add.at(votes[1], rows, np.round(np.asarray(jax.nn.softmax(logits)) * 2**24) / 2**24)
        advance(len(rows))
    return votes


def most_confused(votes: Float[np.ndarray, "2 K K"]) -> Int[np.ndarray, "K"]:
    """For every class, the other class that is predicted most often for its images.

    Between equal counts the probabilities decide, as where no image of a class is misclassified.
    """
    counts, probabilities = votes
    found = counts + probabilities / (counts.sum() + 1)  # each sum is below the number of images
    np.fill_diagonal(found, -1)
    return found.argmax(-1).astype(np.int32)


# --- explanations -------------------------------------------------------------------------------


class _Waiting(NamedTuple):
    index: int
    id: str
    label: int
    target: int
    predicted: int
    image: UInt8[np.ndarray, "H W 3"]


class Queue:
    """Images at the cut that wait on the device until a batch of them is full."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self._held: Any = None  # made with the first batch, which tells the shapes

    def add(self, feature_map: FeatureMap, wanted: Bool[np.ndarray, "b"], waiting: int) -> None:
        """Put the wanted ones of a batch behind the `waiting` ones, fewer than a batch."""
        size = self.batch_size
        if self._held is None:
            self._held = jax.tree.map(
                lambda leaf: jnp.zeros((2 * size, *leaf.shape[1:]), leaf.dtype), feature_map
            )
        places = np.full(size, 2 * size)  # past the end: dropped
        places[: len(wanted)][wanted] = waiting + np.arange(wanted.sum())
        self._held = _put(self._held, feature_map, places)

    def take(self) -> FeatureMap:
        """The first batch, which leaves the queue; its end is padding where fewer waited."""
        size = self.batch_size
        batch = jax.tree.map(lambda leaf: leaf[:size], self._held)
        self._held = jax.tree.map(lambda leaf: jnp.roll(leaf, -size, axis=0), self._held)
        return batch


@partial(jax.jit, donate_argnums=0)
def _put(queue: FeatureMap, batch: FeatureMap, places: Int[Array, "B"]) -> FeatureMap:
    """The queue with each image in its place; places past the end are dropped."""
    return jax.tree.map(lambda held, new: held.at[places].set(new, mode="drop"), queue, batch)


@dataclass
class Explainer:
    """Predicts the images of a split and explains those that are asked about.

    Attributes:
        predictor: Of the classifier.
        config: Of the search.
        bank: The candidates.
        reference_ids: Ids of the split that they come from.
        methods: Methods whose maps stand beside, from `check_methods`.
        all_cells: All cells of the references, where one of the methods needs them.
        confused_with: Each class's target Q, where correctly classified images are asked about;
            None asks about misclassified ones, and their labels are the targets.
        clock: Counts reading (waiting for images), forward, compiling, search and methods.
    """

    predictor: Predictor
    config: SearchConfig
    bank: Bank
    reference_ids: Sequence[str]
    methods: Sequence[str] = ()
    all_cells: Bank | None = None
    confused_with: Int[np.ndarray, "K"] | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self):
        self._head = searchable(self.predictor.clf.head)
        self._compiled = False
        self._references = reference_features(self.bank)
        # A CPU reads the host's memory; elsewhere the bank would travel with every batch.
        if jax.default_backend() != "cpu":
            self.bank, self.all_cells = jax.device_put((self.bank, self.all_cells))

    def __call__(
        self,
        dataset: Dataset,
        labels: Int[np.ndarray, "N"],
        part: range,
        advance: Callable[[int], None] = lambda count: None,
    ) -> list[ImageResult]:
        """The result of each image of `part`, in its order; `advance` gets each batch's size."""
        found: dict[int, ImageResult] = {}
        ids = dataset.ids
        index_of = {ids[i]: i for i in part}

        def skip(error: UnreadableImage) -> None:
            notify(f"skipped {error}")
            i = index_of[error.id]
            found[i] = ImageResult(i, error.id, int(labels[i]), "skipped", why=error.why)
            advance(1)

        queue, waiting = Queue(self.predictor.batch_size), []
        batches = self.predictor.batches(dataset, np.array(part), skip)
        for batch in self.clock.each("reading", batches):
            with self.clock("forward"):
                feature_map, logits = self.predictor(batch)
            predicted, correct = logits.argmax(-1), labels[batch.index]
            if self.confused_with is None:
                asked, targets = predicted != correct, correct
            else:
                asked, targets = predicted == correct, self.confused_with[correct]
            queue.add(feature_map, asked, len(waiting))
            for b, (i, id) in enumerate(zip(batch.index.tolist(), batch.id, strict=True)):
                label = int(correct[b])
                if asked[b]:
                    classes = int(targets[b]), int(predicted[b])
                    waiting.append(_Waiting(i, id, label, *classes, batch.image[b]))
                else:
                    found[i] = ImageResult(i, id, label, "unexplained", int(predicted[b]))
            if len(waiting) >= queue.batch_size:
                self._explain(queue.take(), waiting[: queue.batch_size], found)
                waiting = waiting[queue.batch_size :]
            advance(len(asked))
        if waiting:
            self._explain(queue.take(), waiting, found)
        return [found[i] for i in sorted(found)]

    def _explain(
        self,
        feature_map: FeatureMap,
        waiting: Sequence[_Waiting],
        found: dict[int, ImageResult],
    ) -> None:
        size = self.predictor.batch_size
        targets = pad_batch(np.array([w.target for w in waiting], np.int32), size)
        rivals = None
        if self.config.evidence == "matched":
            rivals = pad_batch(np.array([w.predicted for w in waiting], np.int32), size)
        arguments = self._head, self.bank.for_targets(targets, rivals), feature_map, targets
        options = {"config": self.config, "devices": tuple(jax.local_devices())}
        if not self._compiled:  # by itself: it is no part of an explanation
            with self.clock("compiling"):
                explain_cells.lower(*arguments, **options).compile()
            self._compiled = True
        started = time.perf_counter()
        with self.clock("search"):
            out = jax.device_get(explain_cells(*arguments, **options))
        seconds = (time.perf_counter() - started) / len(waiting)
        with self.clock("methods"):
            maps, more = self._maps(waiting, out), self._more(arguments[1], feature_map.cells, out)
        for b, w in enumerate(waiting):
            one, own = jax.tree.map(itemgetter(b), (out, maps))
            places = self.bank.provenance(w.target), self.reference_ids
            result = image_result(w.index, w.id, w.label, one, *places, seconds, own)
            found[w.index] = replace(result, **more(b))

    def _more(
        self, candidates: Candidates, cells: Float[Array, "B n n C"], out: Explanation
    ) -> Callable[[int], dict[str, np.ndarray]]:
        """Logit changes and nearest classes, as fields of the result of the image asked for."""
        nearest = changes = None
        if self._references is not None:
            nearest = nearest_classes(self._references, np.asarray(cells))
        if why_not_linear(self._head) is None:
            edits = out.edit_cell, out.edit_candidate
            changes = jax.device_get(logit_changes(self._head, candidates, cells, *edits))

        def of_image(b: int) -> dict[str, np.ndarray]:
            fields = {} if nearest is None else {"nearest": nearest[b]}
            if changes is not None:
                logits, by_edit = changes
                made = by_edit[b, : int(out.num_edits[b])].ravel()
                fields |= {"logits": logits[b], "logit_changes": made}
            return fields

        return of_image

    def _maps(
        self, waiting: Sequence[_Waiting], out: Explanation
    ) -> dict[str, Float[np.ndarray, "B n n"]]:
        """The maps of `methods`; FG-VCE's own are those of the explanation."""
        held = [name for name in self.methods if name in EXPLAINED_BY]
        maps = {name: np.asarray(getattr(out, EXPLAINED_BY[name])) for name in held}
        if others := [name for name in self.methods if name not in EXPLAINED_BY]:
            images = pad_batch(np.stack([w.image for w in waiting]), self.predictor.batch_size)
            images, n = images.astype(np.float32) / 255, out.invariant.shape[-1]
            arguments = self.predictor.clf, images, out.predicted, out.target, n
            maps |= method_maps(others, *arguments, bank=self.bank, all_cells=self.all_cells)
        return maps


def image_result(
    index: int,
    id: str,
    label: int,
    explanation: Explanation,
    provenance: tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]],
    reference_ids: Sequence[str],
    time_s: float,
    maps: dict[str, Float[np.ndarray, "n n"]] | None = None,
) -> ImageResult:
    """The result of an image that was explained.

    `explanation` is of this image (NumPy leaves without the batch axis), `provenance` the image
    and cell of each candidate for its target, from `Bank.provenance`: -1 throughout where there is
    none, and the status is "no_reference" then. `maps` are other methods'.
    """
    images, cells = provenance
    count = int(explanation.num_edits)
    chosen = np.asarray(explanation.edit_candidate)[:count]
    of_edit = explanation.edit_cell, images[chosen], cells[chosen], explanation.edit_similarity
    edits = tuple(
        Edit(int(cell), reference_ids[int(image)], int(image), int(candidate), float(similarity))
        for cell, image, candidate, similarity in zip(*of_edit, strict=False)  # up to `count`
    )
    return ImageResult(
        index=index,
        id=id,
        label=label,
        status="explained" if np.any(images >= 0) else "no_reference",
        predicted=int(explanation.predicted),
        target=int(explanation.target),
        flipped=bool(explanation.flipped),
        edits=edits,
        p_predicted=np.asarray(explanation.p_predicted)[: count + 1].tolist(),
        p_target=np.asarray(explanation.p_target)[: count + 1].tolist(),
        time_s=time_s,
        maps={name: np.asarray(getattr(explanation, name)) for name in CORE_MAPS} | (maps or {}),
    )
