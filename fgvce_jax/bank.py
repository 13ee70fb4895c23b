"""The candidate bank: the cells of reference images that contribute most to their class (S_U)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from fgvce_jax.checks import (
    check_images,
    check_labelled,
    check_labels,
    check_logits,
)
from fgvce_jax.config import BankConfig, SearchConfig, check_matched
from fgvce_jax.errors import InputError
from fgvce_jax.heads import Head, searchable
from fgvce_jax.models.classifier import Classifier, FeatureMap, feature_map_of
from fgvce_jax.partition import gaussian_kernels, row_contributions

Loader = Callable[[np.ndarray], Iterator[tuple[np.ndarray, Any]]]
Picture = Callable[[int], UInt8[np.ndarray, "S S 3"]]


class Candidates(NamedTuple):
    """The candidate cells of a batch, as they travel to the device: G groups of N places.

    For one image, `serving` takes its group out of them, and the axes G and B are gone.

    Attributes:
        cells: float32 [G, N, C].
        norms: The lengths of the vectors by which they are compared (`Head.compared`), float32
            [G, N].
        prepared: The head's part of the work on them, done in advance; leading axes [G, N], or
            None.
        valid: Which places hold a candidate, bool [G, N].
        group: The group that serves each image, int32 [B]; -1 where none does.
        rival: The group of the class that is predicted, where matched evidence wants its cells too.
    """

    cells: Float[Array, "*G N C"]
    norms: Float[Array, "*G N"]
    prepared: Any
    valid: Bool[Array, "*G N"]
    group: Int[ArrayLike, "*B"]
    rival: Int[ArrayLike, "*B"] | None = None

    def serving(self, group: Int[ArrayLike, ""]) -> Candidates:
        """The candidates of one group; `group` may be traced."""
        # One group that serves everyone is used where it lies: it can be very large.
        one = 0 if len(self.cells) == 1 else jnp.maximum(group, 0)
        held = jax.tree.map(lambda leaf: jnp.asarray(leaf)[one], self[:4])
        cells, norms, prepared, valid = held
        return Candidates(cells, norms, prepared, valid & jnp.greater_equal(group, 0), group)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Bank:
    """Candidate cells and their provenance, in G groups of N places.

    A group serves one class, or with `reference="all"` every class (G = 1). Its candidates are
    ordered image by image, in dataset order, an image's best cell first. Places beyond those are
    not `valid`.

    The arrays are NumPy's, in the host's memory; `jax.device_put(bank)` keeps them on an
    accelerator instead, where they would otherwise travel with every batch.

    Attributes:
        cells: As in `Candidates`, like `norms`, `prepared` and `valid`.
        group: The group that serves each class, int32 [K]; -1 where the class has no reference.
        image: Index of the reference image each candidate came from, int32 [G, N]; -1 where not
            valid.
        cell: Its cell in that image, row-major, int32 [G, N]; -1 where not valid.
        references: Reference images found for each class, int32 [K].
        config: The options it was built with, `sigma` among them.
    """

    cells: Float[Any, "G N C"]
    norms: Float[Any, "G N"]
    prepared: Any
    valid: Bool[Any, "G N"]
    group: Int[Any, "K"]
    image: Int[Any, "G N"]
    cell: Int[Any, "G N"]
    references: Int[Any, "K"]
    config: BankConfig = field(metadata={"static": True})

    # No field: a picture for people, of the reference image of an index; None where not at hand.
    pictures: ClassVar[Picture | None] = None

    def with_pictures(self, pictures: Picture) -> Bank:
        """The same bank, with the reference images that its cells come from."""
        copy = jax.tree.map(lambda leaf: leaf, self)
        object.__setattr__(copy, "pictures", pictures)
        return copy

    def __repr__(self) -> str:
        try:
            found, kept = np.asarray(self.references), int(np.sum(self.valid))
        except Exception:  # a transformation's placeholders
            return object.__repr__(self)
        return (
            f"Bank: {kept:,} cells of {self.cells.shape[-1]} channels, from {found.sum():,} "
            f"reference images of {np.count_nonzero(found)} of {len(found)} classes"
        )

    def for_targets(
        self, targets: Int[ArrayLike, "B"], rivals: Int[ArrayLike, "B"] | None = None
    ) -> Candidates:
        """The candidates that a batch needs, at most B groups, and the group of each target.

        So a batch costs the memory of its own candidates, not of every class's. The number of
        groups depends on B alone (min(B, G)), for the sake of one compilation. Where the targets
        are traced, all groups are passed on. `rivals`, the classes predicted, are served as well:
        matched evidence wants their cells (2 B groups).
        """
        if rivals is not None:
            both = self.for_targets(jnp.concatenate([jnp.asarray(targets), jnp.asarray(rivals)]))
            groups = jnp.asarray(both.group)
            count = len(groups) // 2
            return both._replace(group=groups[:count], rival=groups[count:])
        held = (self.cells, self.norms, self.prepared, self.valid)
        if isinstance(targets, Tracer):
            return Candidates(*held, jnp.asarray(self.group)[targets])
        groups = np.asarray(self.group)[np.asarray(targets)]
        if len(self.cells) > len(groups):
            needed, position = np.unique(groups, return_inverse=True)
            needed = pad_batch(np.maximum(needed, 0), len(groups))
            held = jax.tree.map(lambda leaf: leaf[needed], held)
            groups = np.where(groups < 0, -1, position).astype(np.int32)
        cells, norms, prepared, valid = held
        return Candidates(cells, norms, prepared, valid, groups)

    def provenance(self, target: int) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
        """(image, cell) of each candidate for a target; -1 where there is none."""
        group = int(self.group[target])
        if group < 0:
            nothing = np.full(self.image.shape[1], -1, np.int32)
            return nothing, nothing
        return np.asarray(self.image[group]), np.asarray(self.cell[group])

    def missing(self) -> list[int]:
        """Classes that cannot be a target, for want of a correctly classified reference."""
        return np.flatnonzero(np.asarray(self.group) < 0).tolist()

    def check(self, clf: Classifier, config: SearchConfig) -> None:
        """Raise InputError unless the bank was built for such a classifier and such a search."""
        if len(self.references) != clf.num_classes:
            raise InputError(
                f"bank: built for {len(self.references)} classes, the classifier has "
                f"{clf.num_classes}"
            )
        if self.config.sigma != config.sigma:
            raise InputError(
                f"bank: built with sigma {self.config.sigma}, the search has {config.sigma}; "
                f"expected the same (build_bank(..., BankConfig(sigma={config.sigma})))"
            )
        check_matched(config, self.config)


def check_candidates(candidates: Candidates, head: Head, channels: int) -> None:
    """Raise InputError unless the candidates have as many channels and were prepared for `head`."""
    if candidates.cells.shape[-1] != channels:
        raise InputError(
            f"bank: built for {candidates.cells.shape[-1]} channels, the classifier has {channels}"
        )
    expected = jax.eval_shape(head.prepare, candidates.cells)
    ours, theirs = (jax.tree.map(jnp.shape, tree) for tree in (candidates.prepared, expected))
    if ours != theirs:
        raise InputError("bank: prepared for another kind of head than the classifier's")


@partial(jax.jit, static_argnames="config")
def best_cells(
    head: Head,
    feature_map: FeatureMap,
    labels: Int[ArrayLike, "B"],
    config: BankConfig,
) -> tuple[Float[Array, "B K"], Int[Array, "B m"], Float[Array, "B m C"]]:
    """Each image's logits; the indices of the m cells that are best for its label; those cells."""
    n = feature_map.cells.shape[1]
    assert config.sigma is not None  # settled by `build_bank`
    kernels = gaussian_kernels(n, config.sigma)

    def one(of_image, label):
        cells, context = of_image
        bound = head.bind(context, cells)
        rows = bound.rows(cells)
        scores = row_contributions(bound, rows, label, kernels)
        _, index = jax.lax.top_k(scores, config.top_m or n * n)
        return bound.logits(rows), index, cells.reshape(n * n, -1)[index]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(feature_map, labels)


class NoReferences(InputError):
    """No class that was asked about has an image that can be a reference."""


def build_bank(
    clf: Classifier,
    images: ArrayLike | Loader,
    labels: ArrayLike,
    config: BankConfig = BankConfig(),
    *,
    classes: Sequence[int] | Int[np.ndarray, "_"] | None = None,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda count: None,
    correct: bool = True,
) -> Bank:
    """Take the first `per_class` correctly classified images of each class, and their best cells.

    Images are read in rounds: each asks, for every class that still lacks references, for as many
    of its next images as it lacks. So no image is read that could not be needed.

    Args:
        clf: The classifier.
        images: Reference images, float32 [M, H, W, 3] in [0, 1]; or a function that, given their
            indices, yields batches (indices [b], images [b, H, W, 3]) in that order, leaving out
            those that cannot be read.
        labels: The correct class of each, int [M].
        config: How many references and cells, and how they are chosen; see `BankConfig`.
        classes: The classes that will be asked about, int; by default all that have a label. Images
            of others are not read, and the bank's size does not depend on them.
        batch_size: Images in one forward pass.
        advance: Called after every batch with the number of references that it gave.
        correct: Whether references have to be classified correctly. A control with random weights
            classifies next to none so.

    Raises:
        InputError: Images of the wrong rank, size or range, labels outside the classes or not one
            per image, logits that are NaN or not one per class, top_m above the number of cells,
            no image of the classes asked for, or none that is classified correctly.
    """
    labels = np.asarray(labels)
    if callable(images):
        check_labels(labels, clf.num_classes)
        load = images
    else:
        images = np.asarray(images)
        check_labelled(images, labels, clf.image_size, clf.num_classes)
        load = partial(_load_array, images, batch_size)
    if config.sigma is None:
        config = replace(config, sigma=SearchConfig.sigma)
    head = searchable(clf.head)

    unread = _images_by_class(labels, classes)
    found: dict[int, list[_Reference]] = {k: [] for k in unread}
    while wanted := _next_round(unread, found, config.per_class):
        for indices, batch in load(np.array(wanted)):
            given = labels[indices]
            references = _references(
                clf, head, np.asarray(batch), given, indices, config, batch_size, correct
            )
            for label, reference in references:
                found[label].append(reference)
            advance(len(references))
    bank = _assemble(head, found, clf.num_classes, config)
    return bank.with_pictures(partial(_picture, load))


def _picture(load: Loader, index: int) -> UInt8[np.ndarray, "S S 3"]:
    """A reference image once more, as a picture; `InputError` where it cannot be read now."""
    for _, images in load(np.array([index])):
        return np.round(np.asarray(images[0]) * 255).astype(np.uint8)
    raise InputError(f"reference image {index}: cannot be read any more")


def _images_by_class(
    labels: Int[np.ndarray, "M"], classes: Sequence[int] | Int[np.ndarray, "_"] | None
) -> dict[int, np.ndarray]:
    """The images of every class that is asked for, in dataset order."""
    order = np.argsort(labels, kind="stable")
    held, starts = np.unique(labels[order], return_index=True)
    images = dict(zip(held.tolist(), np.split(order, starts)[1:], strict=True))
    if classes is not None:
        images = {k: images[k] for k in np.intersect1d(held, classes).tolist()}
    if not images:
        raise NoReferences(
            "reference images: expected some of the classes that are explained, got others only"
        )
    return images


def _references(
    clf: Classifier,
    head: Head,
    images: np.ndarray,
    labels: Int[np.ndarray, "b"],
    indices: Int[np.ndarray, "b"],
    config: BankConfig,
    batch_size: int,
    correct: bool,
) -> list[tuple[int, _Reference]]:
    """The (class, reference) of every image of a batch, or of those classified correctly."""
    check_images(images, clf.image_size)
    feature_map = feature_map_of(clf, pad_batch(images, batch_size))
    num_cells = feature_map.cells.shape[1] ** 2
    if config.top_m is not None and config.top_m > num_cells:
        raise InputError(f"top_m {config.top_m}: expected 1 to {num_cells} cells")
    logits, cell, best = jax.device_get(
        best_cells(head, feature_map, pad_batch(labels, batch_size), config)
    )
    logits = logits[: len(labels)]
    check_logits("reference image", indices, logits)
    taken = np.flatnonzero((logits.argmax(-1) == labels) | (not correct))
    return [(int(labels[b]), _Reference(int(indices[b]), cell[b], best[b])) for b in taken]


class _Reference(NamedTuple):
    image: int
    cell: Int[np.ndarray, "m"]
    cells: Float[np.ndarray, "m C"]


def _next_round(
    unread: dict[int, Int[np.ndarray, "_"]], found: dict[int, list], per_class: int
) -> list[int]:
    """Take the indices of the next round out of `unread`; empty when all is found or read."""
    wanted: list[int] = []
    for k, indices in unread.items():
        lacking = per_class - len(found[k])
        wanted += indices[:lacking].tolist()
        unread[k] = indices[lacking:]
    return sorted(wanted)


def _load_array(
    images: np.ndarray, batch_size: int, wanted: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(wanted), batch_size):
        indices = wanted[start : start + batch_size]
        yield indices, images[indices]


def pad_batch(array: np.ndarray, batch_size: int) -> np.ndarray:
    """Repeat the last entry up to `batch_size`, so that a short batch needs no new compilation."""
    short = batch_size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], short, axis=0)]) if short > 0 else array


def _assemble(
    head: Head, found: dict[int, list[_Reference]], num_classes: int, config: BankConfig
) -> Bank:
    """The bank of the references found; its size follows them, not what was asked for."""
    found = {k: references for k, references in found.items() if references}
    if not found:
        raise NoReferences("reference images: none is classified correctly, expected at least one")
    group = np.full(num_classes, -1, np.int32)
    groups = list(found.values())
    if config.reference == "all":
        groups, group[:] = [list(chain(*groups))], 0
    else:
        group[list(found)] = np.arange(len(found))
    m, channels = groups[0][0].cells.shape
    size = max(map(len, groups)) * m

    cells = np.zeros((len(groups), size, channels), np.float32)
    image = np.full((len(groups), size), -1, np.int32)
    cell = np.full((len(groups), size), -1, np.int32)
    for g, references in enumerate(groups):
        for r, reference in enumerate(references):
            places = slice(r * m, (r + 1) * m)
            cells[g, places], cell[g, places] = reference.cells, reference.cell
            image[g, places] = reference.image
    counts = np.zeros(num_classes, np.int32)
    counts[list(found)] = [len(references) for references in found.values()]
    norms, prepared = jax.device_get(_prepare(head, cells))
    return Bank(
        cells=cells,
        norms=norms,
        prepared=prepared,
        valid=image >= 0,
        group=group,
        image=image,
        cell=cell,
        references=counts,
        config=config,
    )


@jax.jit
def _prepare(head: Head, cells: Float[Array, "G N C"]) -> tuple[Float[Array, "G N"], Any]:
    """The candidates' norms, and the head's part of the work on them."""
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.norm(head.compared(cells), axis=-1), head.prepare(cells)
