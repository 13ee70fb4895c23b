"""From images to explanations: the four steps as one jitted, batched, device-sharded pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Bank, pad_batch
from fgvce_jax.checks import check_labelled, check_logits, checked_features
from fgvce_jax.config import SearchConfig
from fgvce_jax.contrast import weighted_difference
from fgvce_jax.errors import InputError
from fgvce_jax.heads import SearchHead, searchable
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.partition import gaussian_kernels, row_contributions
from fgvce_jax.search import cosine, edited_cells, search_rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the model said P and not Q, for a batch; T = min(max_iterations, n^2).

    Attributes:
        predicted: P, the class that the model says, int32 [B].
        target: Q, the correct class, int32 [B].
        flipped: Whether the edited feature map is classified as Q, bool [B].
        num_edits: Replaced cells, int32 [B]; 0 where P = Q, and where the bank has no candidate.
        edit_cell: The cell of each edit in order, row-major, int32 [B, T], -1 where unused.
        edit_candidate: The bank's candidate that replaced it, int32 [B, T], -1 where unused.
        edit_similarity: Cosine similarity of the two, float32 [B, T], 0 where unused.
        p_target: Probability of Q before the first edit and after each, float32 [B, T + 1]; the
            last value is repeated to the end.
        contributions_before: What each cell adds to P in the image, [B, n, n], in [-1, 1].
        contributions_after: What each cell adds to Q after the edits, [B, n, n], in [-1, 1].
        invariant: Map of what spoke for P (Eq. 10), [B, n, n], signed.
        dominant: Map of what decides for Q (Eq. 11), [B, n, n], signed.
    """

    predicted: Int[Array, "B"]
    target: Int[Array, "B"]
    flipped: Bool[Array, "B"]
    num_edits: Int[Array, "B"]
    edit_cell: Int[Array, "B T"]
    edit_candidate: Int[Array, "B T"]
    edit_similarity: Float[Array, "B T"]
    p_target: Float[Array, "B T + 1"]
    contributions_before: Float[Array, "B n n"]
    contributions_after: Float[Array, "B n n"]
    invariant: Float[Array, "B n n"]
    dominant: Float[Array, "B n n"]


def explain_one(
    head: SearchHead,
    bank: Bank,
    cells: Float[Array, "n n C"],
    rows: Float[Array, "n*n D"],
    target: Int[Array, ""],
    group: Int[Array, ""],
    config: SearchConfig,
) -> Explanation:
    """The explanation of one feature map and its rows, with the candidates of one bank group."""
    n = cells.shape[0]
    kernels = gaussian_kernels(n, config.sigma)
    candidates, norms, prepared, valid = bank.candidates(group)
    state = search_rows(
        head,
        rows,
        target,
        candidates,
        prepared,
        valid,
        cosine(cells.reshape(n * n, -1), candidates, norms),
        kernels,
        config.max_iterations,
        config.lambda_sim,
        config.lambda_cls,
    )
    predicted = jnp.argmax(head.logits(rows))
    before = row_contributions(head, rows, predicted, kernels).reshape(n, n)
    after = row_contributions(head, state.rows, target, kernels).reshape(n, n)
    edited = edited_cells(cells, candidates, state.source)
    invariant, dominant = weighted_difference(cells, edited, before, after)
    return Explanation(
        predicted=predicted,
        target=target,
        flipped=state.predicted == target,
        num_edits=state.num_edits,
        edit_cell=state.edit_cell,
        edit_candidate=state.edit_candidate,
        edit_similarity=state.edit_similarity,
        p_target=state.p_target,
        contributions_before=before,
        contributions_after=after,
        invariant=invariant,
        dominant=dominant,
    )


def explain_cells(
    head: SearchHead,
    bank: Bank,
    cells: Float[Array, "B n n C"],
    labels: Int[Array, "B"],
    config: SearchConfig,
    groups: Int[Array, "B"] | None = None,
) -> Explanation:
    """Explanations of a batch of feature maps, `config.chunk` of them searched together.

    `groups` are the bank's groups that serve the labels, where `Bank.select` has numbered them.
    """
    _check_bank(bank, head, cells.shape[-1])
    groups = bank.group(labels) if groups is None else groups
    chunk = config.chunk or (1 if jax.default_backend() == "cpu" else len(labels))
    with jax.default_matmul_precision("highest"):
        # All at once: a dense head's first layer is large, and read once for the whole batch.
        rows = jax.vmap(head.rows)(cells)
        return jax.lax.map(
            lambda one: explain_one(head, bank, *one, config),
            (cells, rows, labels, groups),
            batch_size=min(chunk, len(labels)),
        )


def _check_bank(bank: Bank, head: SearchHead, channels: int) -> None:
    if bank.cells.shape[-1] != channels:
        raise InputError(
            f"bank: built for {bank.cells.shape[-1]} channels, the classifier has {channels}"
        )
    expected = jax.eval_shape(head.prepare, bank.cells)
    ours, theirs = (jax.tree.map(jnp.shape, tree) for tree in (bank.prepared, expected))
    if ours != theirs:
        raise InputError("bank: prepared for another kind of head than the classifier's")


def _sharded(function: Callable[..., Any], devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """`function`, the first two of its arguments whole on each device, the others split.

    Every device runs its own loops to their own ends; nothing is exchanged.
    """
    mesh = Mesh(np.array(devices), ("images",))
    split, whole = PartitionSpec("images"), PartitionSpec()
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(whole, whole, split, split, split),
        out_specs=split,
        check_vma=False,
    )


@partial(jax.jit, static_argnames=("config", "devices"))
def explain_images(
    clf: Classifier,
    bank: Bank,
    images: Float[Array, "B H W 3"],
    labels: Int[Array, "B"],
    groups: Int[Array, "B"],
    *,
    config: SearchConfig,
    devices: tuple[jax.Device, ...],
) -> Explanation:
    """As `explain`, for checked arrays: B a multiple of the devices, the bank from `select`."""

    def local(clf, bank, images, labels, groups):
        cells = checked_features(clf, images)
        return explain_cells(searchable(clf.head), bank, cells, labels, config, groups)

    return _sharded(local, devices)(clf, bank, images, labels, groups)


@partial(jax.jit, static_argnames=("config", "devices"))
def explain_features(
    head: SearchHead,
    bank: Bank,
    cells: Float[Array, "B n n C"],
    labels: Int[Array, "B"],
    groups: Int[Array, "B"],
    *,
    config: SearchConfig,
    devices: tuple[jax.Device, ...],
) -> Explanation:
    """As `explain_images`, for features that are already there."""

    def local(head, bank, cells, labels, groups):
        return explain_cells(head, bank, cells, labels, config, groups)

    return _sharded(local, devices)(head, bank, cells, labels, groups)


def explain(
    clf: Classifier,
    bank: Bank,
    images: Float[Array, "B H W 3"],
    labels: Int[Array, "B"],
    *,
    sigma: float = 0.8,
    max_iterations: int = 100,
    lambda_sim: float = 1.0,
    lambda_cls: float = 1.0,
    chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Explanation:
    """Explain why each image is not classified as its label (FG-VCE, Section 3).

    An image that is classified as its label gets no edits and maps of zeros.

    Args:
        clf: The classifier.
        bank: Candidates, from `build_bank` with the same classifier.
        images: float32 in [0, 1].
        labels: The correct class of each image.
        sigma: Width of the contribution masks, in cells.
        max_iterations: Most edits of one image.
        lambda_sim: Weight of the similarity of a cell and its replacement.
        lambda_cls: Weight of the target's log-probability.
        chunk: Images searched together, see `SearchConfig`.
        devices: The devices that share the batch; all local ones by default.

    Raises:
        InputError: Images of the wrong rank, size or range, labels outside the classes or not one
            per image, logits that are NaN, or a bank of another classifier (other classes,
            channels or kind of head).
    """
    images, labels = np.asarray(images), np.asarray(labels)
    check_labelled(images, labels, clf)
    if len(bank.references) != clf.num_classes:
        raise InputError(
            f"bank: built for {len(bank.references)} classes, the classifier has {clf.num_classes}"
        )
    devices = tuple(devices or jax.local_devices())
    padded = -(-len(images) // len(devices)) * len(devices)
    labels = pad_batch(labels, padded)
    candidates, groups = bank.select(labels)
    out = explain_images(
        clf,
        candidates,
        pad_batch(images, padded),
        labels,
        groups,
        config=SearchConfig(sigma, max_iterations, lambda_sim, lambda_cls, chunk),
        devices=devices,
    )
    out = jax.tree.map(lambda leaf: leaf[: len(images)], out)
    check_logits("image", range(len(images)), np.asarray(out.p_target))
    return out
