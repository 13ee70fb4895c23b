"""The candidate bank: the cells of reference images that speak most for their class (S_U)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.checks import (
    check_images,
    check_labelled,
    check_labels,
    check_logits,
    checked_features,
)
from fgvce_jax.config import BankConfig
from fgvce_jax.errors import InputError
from fgvce_jax.heads import SearchHead, searchable
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.partition import gaussian_kernels, row_contributions

Loader = Callable[[np.ndarray], Iterator[tuple[np.ndarray, Any]]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bank:
    """Candidate cells in G groups of N places; a group serves one class, or all (G = 1).

    Candidates of a group are ordered image by image, in dataset order, an image's best cell
    first. Places beyond what the references gave are not `valid`.

    The arrays are NumPy's, in the host's memory; `jax.device_put(bank)` keeps them on an
    accelerator instead, where they would otherwise travel with every batch.

    Attributes:
        cells: float32 [G, N, C].
        norms: Their Euclidean lengths, float32 [G, N].
        prepared: What the head computes of them in advance, leading axes [G, N], or None.
        valid: Which places hold a candidate, bool [G, N].
        image: Index of the reference image each came from, int32 [G, N]; -1 where not valid.
        cell: Its cell in that image, row-major, int32 [G, N]; -1 where not valid.
        references: Reference images found for each class, int32 [K].
        config: The options it was built with.
    """

    cells: Float[Array, "G N C"]
    norms: Float[Array, "G N"]
    prepared: Any
    valid: Bool[Array, "G N"]
    image: Int[Array, "G N"]
    cell: Int[Array, "G N"]
    references: Int[Array, "K"]
    config: BankConfig = field(metadata={"static": True})

    def group(self, target: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The group whose candidates serve a target, or each of many."""
        return target * 0 if self.config.reference == "all" else target

    def candidates(self, group: Int[Array, ""]) -> tuple[Array, Array, Any, Array]:
        """A group's (cells [N, C], norms [N], prepared, valid [N]); `group` may be traced."""
        held = (self.cells, self.norms, self.prepared, self.valid)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[group], held)

    def select(self, targets: Int[np.ndarray, "B"]) -> tuple[Bank, Int[np.ndarray, "B"]]:
        """What a batch needs: a bank of at most B groups, and the one that serves each target.

        So a batch costs the memory of its own candidates, not of every class's. The number of
        groups depends on B alone (min(B, G)), for the sake of one compilation.
        """
        groups = self.group(np.asarray(targets))
        if len(self.cells) <= len(groups):
            return self, groups
        needed, position = np.unique(groups, return_inverse=True)
        needed = pad_batch(needed, len(groups))
        served = {
            name: jax.tree.map(lambda leaf: leaf[needed], getattr(self, name))
            for name in ("cells", "norms", "prepared", "valid", "image", "cell")
        }
        return replace(self, **served), position.astype(np.int32)

    def missing(self) -> list[int]:
        """Classes that cannot be a target, for want of a correctly classified reference."""
        if self.config.reference == "all" and np.any(self.references):
            return []
        return np.flatnonzero(np.asarray(self.references) == 0).tolist()


@partial(jax.jit, static_argnames=("top_m", "sigma"))
def best_cells(
    head: SearchHead,
    cells: Float[Array, "B n n C"],
    labels: Int[Array, "B"],
    *,
    top_m: int | None,
    sigma: float,
) -> tuple[Float[Array, "B K"], Int[Array, "B m"], Float[Array, "B m C"]]:
    """Each image's logits; the indices of the m cells that are best for its label; those cells."""
    n = cells.shape[1]
    kernels = gaussian_kernels(n, sigma)

    def one(cells, label):
        rows = head.rows(cells)
        scores = row_contributions(head, rows, label, kernels)
        _, index = jax.lax.top_k(scores, top_m or n * n)
        return head.logits(rows), index, cells.reshape(n * n, -1)[index]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(cells, labels)


@jax.jit
def _features(clf: Classifier, images: Float[Array, "B H W 3"]) -> Float[Array, "B n n C"]:
    return checked_features(clf, images)


def build_bank(
    clf: Classifier,
    images: Float[Array, "M H W 3"] | Loader,
    labels: Int[Array, "M"],
    per_class: int = 20,
    top_m: int | None = 10,
    *,
    sigma: float = 0.8,
    reference: str = "class",
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda count: None,
) -> Bank:
    """Take the first `per_class` correctly classified images of each class, and their best cells.

    Images are read in rounds: each asks, for every class that still lacks references, for as many
    of its next images as it lacks. So no image is read that could not be needed.

    Args:
        clf: The classifier.
        images: Reference images, float32 in [0, 1]; or a function that, given their indices,
            yields batches (indices [b], images [b, H, W, 3]) in that order, leaving out what it
            cannot read.
        labels: The correct class of each.
        per_class: Reference images wanted of each class (|U|); a class with fewer uses them all.
        top_m: Cells kept of each image; None keeps all n^2.
        sigma: Width of the contribution masks, in cells.
        reference: "class" or "all", see `BankConfig`.
        batch_size: Images in one forward pass.
        advance: Told after every batch how many references it gave.

    Raises:
        InputError: Images of the wrong rank, size or range, labels outside the classes or not one
            per image, logits that are NaN or not one per class, top_m above the number of cells,
            or no image that is classified correctly.
    """
    labels = np.asarray(labels)
    if callable(images):
        check_labels(labels, clf.num_classes)
        load = images
    else:
        images = np.asarray(images)
        check_labelled(images, labels, clf)
        load = partial(_load_array, images, batch_size)
    config = BankConfig(per_class, top_m, reference)
    head = searchable(clf.head)

    unread = {k: np.flatnonzero(labels == k).tolist() for k in range(clf.num_classes)}
    found: dict[int, list[_Reference]] = {k: [] for k in unread}
    while wanted := _next_round(unread, found, per_class):
        for indices, batch in load(np.array(wanted)):
            batch = np.asarray(batch)
            check_images(batch, clf.image_size)
            cells = _features(clf, pad_batch(batch, batch_size))
            if top_m is not None and not 0 < top_m <= cells.shape[1] ** 2:
                raise InputError(f"top_m {top_m}: expected 1 to {cells.shape[1] ** 2} cells")
            wanted_labels = pad_batch(labels[indices], batch_size)
            logits, index, best = jax.device_get(
                best_cells(head, cells, wanted_labels, top_m=top_m, sigma=sigma)
            )
            logits = logits[: len(indices)]
            check_logits("reference image", indices, logits)
            correct = logits.argmax(-1) == labels[indices]
            for b, i in enumerate(indices.tolist()):
                if correct[b]:
                    found[int(labels[i])].append(_Reference(i, index[b], best[b]))
            advance(int(correct.sum()))
    return _assemble(head, list(found.values()), config)


class _Reference(NamedTuple):
    image: int
    index: np.ndarray  # [m]
    cells: np.ndarray  # [m, C]


def _next_round(unread: dict[int, list[int]], found: dict[int, list], per_class: int) -> list[int]:
    """Take the indices of the next round out of `unread`; empty when all is found or read."""
    wanted: list[int] = []
    for k, indices in unread.items():
        lacking = per_class - len(found[k])
        wanted += indices[:lacking]
        del indices[:lacking]
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


def _assemble(head: SearchHead, found: list[list[_Reference]], config: BankConfig) -> Bank:
    references = np.array([len(class_found) for class_found in found], np.int32)
    if not references.any():
        raise InputError("reference images: none is classified correctly, expected at least one")
    groups = [list(chain(*found))] if config.reference == "all" else found
    m, channels = next(ref for group in groups for ref in group).cells.shape
    size = (len(found) if config.reference == "all" else 1) * config.per_class * m

    cells = np.zeros((len(groups), size, channels), np.float32)
    image = np.full((len(groups), size), -1, np.int32)
    cell = np.full((len(groups), size), -1, np.int32)
    for g, group in enumerate(groups):
        for r, ref in enumerate(group):
            places = slice(r * m, (r + 1) * m)
            cells[g, places], image[g, places], cell[g, places] = ref.cells, ref.image, ref.index
    return Bank(
        cells=cells,
        norms=np.linalg.norm(cells, axis=-1),
        prepared=jax.device_get(_prepare(head, cells)),
        valid=image >= 0,
        image=image,
        cell=cell,
        references=references,
        config=config,
    )


@jax.jit
def _prepare(head: SearchHead, cells: Float[Array, "G N C"]) -> Any:
    with jax.default_matmul_precision("highest"):
        return head.prepare(cells)


def save_bank(
    bank: Bank, file: IO[bytes], key: dict[str, Any], skipped: Sequence[dict[str, str]] = ()
) -> None:
    """Write the bank as .npz.

    Args:
        bank: What is written.
        file: Where to.
        key: What it was made of; `load_bank` asks for the same.
        skipped: The reference images that could not be read, by id and why.
    """
    arrays = {
        name: np.asarray(value)
        for name, value in vars(bank).items()
        if name != "config" and value is not None
    }
    texts = {"key": key, "config": asdict(bank.config), "skipped": list(skipped)}
    np.savez(file, **{name: json.dumps(text) for name, text in texts.items()}, **arrays)


def load_bank(path: Path, key: dict[str, Any]) -> tuple[Bank, list[dict[str, str]]]:
    """Read a bank that `save_bank` wrote, and what was skipped when it was built.

    Raises:
        InputError: The file cannot be read, or was made of something else than `key`.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
        kept, config, skipped = (
            json.loads(str(arrays.pop(name))) for name in ("key", "config", "skipped")
        )
        arrays.setdefault("prepared", None)
        bank = Bank(**arrays, config=BankConfig(**config))
    except Exception as error:  # zipfile, json and numpy each have their own
        raise InputError(f"bank {path}: cannot be read ({error})") from error
    for name in sorted(kept.keys() | key.keys()):
        if kept.get(name) != key.get(name):
            raise InputError(
                f"bank {path}: made with {name} {kept.get(name)}, expected {key.get(name)}"
            )
    return bank, skipped
