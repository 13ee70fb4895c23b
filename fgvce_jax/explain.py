"""From images to explanations: the four steps as one jitted, batched, device-sharded pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from fgvce_jax.bank import Bank, Candidates, check_candidates, pad_batch
from fgvce_jax.checks import check_labelled, check_logits
from fgvce_jax.config import SearchConfig
from fgvce_jax.contrast import weighted_difference
from fgvce_jax.explanation import Explanation, Seen
from fgvce_jax.greedy import Problem, edited_cells
from fgvce_jax.heads import Head, SearchHead, searchable
from fgvce_jax.models.classifier import Classifier, FeatureMap, feature_map_of
from fgvce_jax.partition import contributions_of_masks
from fgvce_jax.search import matched_weight, search


def explain_one(problem: Problem, config: SearchConfig) -> Explanation:
    """The explanation of one image."""
    head, cells, target = problem.head, problem.cells, problem.target
    n = cells.shape[0]
    state, similarity, masked_before, masked_after = search(problem, config)
    predicted = jnp.argmax(head.logits(problem.rows))
    edited = edited_cells(cells, problem.candidates.cells, state.source)
    if masked_before is None or masked_after is None:  # matched evidence
        before = matched_weight(problem, cells, predicted)
        after = matched_weight(problem, edited, predicted, of_target=True)
    else:
        margin = config.evidence == "margin"
        before, after = (
            contributions_of_masks(masked, of, against if margin else None).reshape(n, n)
            for masked, of, against in (
                (masked_before, predicted, target),
                (masked_after, target, predicted),
            )
        )
    invariant, dominant = weighted_difference(cells, edited, before, after)
    return Explanation(
        predicted=predicted,
        target=target,
        flipped=state.predicted == target,
        num_edits=state.num_edits,
        edit_cell=state.edit_cell,
        edit_candidate=state.edit_candidate,
        edit_similarity=similarity,
        p_predicted=state.p_predicted,
        p_target=state.p_target,
        contributions_before=before,
        contributions_after=after,
        invariant=invariant,
        dominant=dominant,
    )


def each_problem(
    function: Callable[..., Any],
    head: Head,
    candidates: Candidates,
    feature_map: FeatureMap,
    targets: Int[Array, "B"],
    chunk: int | None,
    *more: Any,
) -> Any:
    """`function` of every image's search problem (and of its rows of `more`), `chunk` together.

    By default one image after another on a CPU, where none waits for another's longer search, and
    the whole batch elsewhere. Results gain a leading axis B.
    """
    cells, context = feature_map
    check_candidates(candidates, head, cells.shape[-1])
    chunk = chunk or (1 if jax.default_backend() == "cpu" else len(targets))

    def one(sample):
        (cells, context, rows, target, (group, rival)), more = sample
        own = candidates.serving(group)
        rivals = None if rival is None else candidates.serving(rival)
        bound = head.bind(context, cells, own.prepared)
        rows = bound.rows(cells) if rows is None else rows
        return function(Problem(bound, cells, rows, target, own, rivals), *more)

    with jax.default_matmul_precision("highest"):
        # Without a context all at once: a dense head's first layer is large, and read once for
        # the whole batch.
        rows = (
            jax.vmap(head.rows)(cells) if context is None and isinstance(head, SearchHead) else None
        )
        groups = candidates.group, candidates.rival
        samples = (cells, context, rows, targets, groups), more
        return jax.lax.map(one, samples, batch_size=min(chunk, len(targets)))


@partial(jax.jit, static_argnames=("config", "devices"))
def explain_cells(
    head: Head,
    candidates: Candidates,
    feature_map: FeatureMap,
    targets: Int[Array, "B"],
    *,
    config: SearchConfig,
    devices: tuple[jax.Device, ...],  # pyright: ignore[reportInvalidTypeForm]
) -> Explanation:
    """Explanations of a batch of images at the cut, split over the devices (B a multiple).

    Every device runs its own searches to their own ends; nothing is exchanged.
    """
    mesh = Mesh(np.array(devices), ("images",))
    split, whole = PartitionSpec("images"), PartitionSpec()

    def local(head, held, feature_map, targets, groups):
        group, rival = groups
        return each_problem(
            lambda problem: explain_one(problem, config),
            head,
            held._replace(group=group, rival=rival),
            feature_map,
            targets,
            config.chunk,
        )

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, whole, split, split, split),
        out_specs=split,
        check_vma=False,
    )(
        head,
        candidates._replace(group=None, rival=None),
        feature_map,
        targets,
        (candidates.group, candidates.rival),
    )


@jax.jit
def _predicted(clf: Classifier, feature_map: FeatureMap) -> Int[Array, "B"]:
    return clf.logits(feature_map).argmax(-1)


def at_cut(
    clf: Classifier,
    images: Float[np.ndarray, "B H W 3"],
    devices: Sequence[jax.Device],  # pyright: ignore[reportInvalidTypeForm]
) -> FeatureMap:
    """The images at the cut, split over the devices, and the last repeated up to a multiple."""
    padded = -(-len(images) // len(devices)) * len(devices)
    sharding = NamedSharding(Mesh(np.array(devices), ("images",)), PartitionSpec("images"))
    return feature_map_of(clf, jax.device_put(pad_batch(images, padded), sharding))


def explain(
    clf: Classifier,
    bank: Bank,
    images: ArrayLike,
    labels: ArrayLike,
    config: SearchConfig = SearchConfig(),
    *,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Explanation:
    """Explain why each image is not classified as its label (FG-VCE, Section 3).

    An image that is classified as its label gets no edits and maps of zeros.

    Args:
        clf: The classifier.
        bank: Candidates, from `build_bank` with the same classifier and sigma.
        images: float32 [B, H, W, 3] in [0, 1].
        labels: The correct class of each image, int [B].
        config: The options of the search.
        devices: The devices that share the batch; all local ones by default.

    Raises:
        InputError: Images of the wrong rank, size or range, labels outside the classes or not one
            per image, logits that are NaN, a bank of another classifier (other classes, channels
            or kind of head), or one built with another sigma.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    check_labelled(images, labels, clf.image_size, clf.num_classes)
    bank.check(clf, config)
    devices = tuple(devices or jax.local_devices())
    feature_map = at_cut(clf, images, devices)
    targets = pad_batch(labels, len(feature_map.cells)).astype(np.int32)
    rivals = None
    if config.evidence == "matched":
        rivals = np.asarray(_predicted(clf, feature_map))
    out = explain_cells(
        searchable(clf.head),
        bank.for_targets(targets, rivals),
        feature_map,
        targets,
        config=config,
        devices=devices,
    )
    out = jax.tree.map(lambda leaf: leaf[: len(images)], out)
    check_logits("image", range(len(images)), np.asarray(out.p_target))
    return out.with_seen(Seen(images, clf.class_names, bank))
