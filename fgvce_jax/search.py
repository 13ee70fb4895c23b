"""Counterfactual search: edits that make the target the prediction (FG-VCE, Section 3.2, Eq. 5-9).

FG-VCE's choice of the next edit, for the loop of `fgvce_jax.greedy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Candidates
from fgvce_jax.checks import check_cells, check_class
from fgvce_jax.config import SearchConfig
from fgvce_jax.errors import InputError
from fgvce_jax.greedy import (
    Problem,
    Proposal,
    Propose,
    SearchState,
    edit_similarity,
    edited_cells,
    greedy_edits,
    relative_distances,
    similarities,
)
from fgvce_jax.heads import SearchHead, of_one_image
from fgvce_jax.matched import matched_evidence
from fgvce_jax.partition import contributions_of_masks, gaussian_kernels, with_no_mask


def matched_weight(
    problem: Problem,
    cells: Float[Array, "n n C"],
    predicted: Int[Array, ""],
    *,
    of_target: bool = False,
) -> Float[Array, "n n"]:
    """Matched evidence in a feature map of the problem's, for P over Q, or for Q over P."""
    if problem.rivals is None:
        raise InputError("rivals: expected cells of the predicted class with matched evidence")
    sides = (predicted, problem.rivals), (problem.target, problem.candidates)
    (of, own), (against, theirs) = sides[::-1] if of_target else sides
    return matched_evidence(problem.head, cells, of, against, own, theirs).reshape(cells.shape[:2])


def fgvce_proposal(
    problem: Problem,
    similarity: Float[Array, "cells N"],
    kernels: Float[Array, "masks cells"],
    config: SearchConfig,
    order: Float[Array, "cells"] | None = None,
) -> Propose:
    """The steps of Section 3.2, for one edit; the feature map under the `kernels` is carried.

    A query cell is always an original one, since each is replaced at most once, so `similarity` of
    the original cells with the candidates serves every iteration. An `order` of the cells, the
    first the highest, takes the place of the contributions.
    """
    head, target, candidates = problem.head, problem.target, problem.candidates
    against = target if config.evidence == "margin" else None
    distance = relative_distances(problem, similarity)
    shortlist = config.shortlist
    if shortlist is not None and shortlist >= len(candidates.valid):
        shortlist = None

    def propose(state: SearchState) -> Proposal:
        # 1. Each cell's contribution to the class that is predicted now (Eq. 1-4).
        scores = order
        if scores is None:
            scores = contributions_of_masks(state.carried.logits, state.predicted, against)
        # 2. The cell that contributes most, among those not yet replaced (Eq. 5).
        cell = jnp.argmax(jnp.where(state.source < 0, scores, -jnp.inf))
        # 3. Every candidate in its place: similar to it, and evidence for the target (Eq. 6-8).
        tried, valid = (candidates.cells, candidates.prepared), state.allowed[cell]
        alike = similarity[cell]
        cost = distance[cell] if config.lambda_distance else jnp.zeros_like(alike)
        if shortlist is not None:
            _, index = jax.lax.top_k(jnp.where(valid, alike, -jnp.inf), shortlist)
            index = jnp.sort(index)  # so that ties still go to the lowest index
            tried, valid, alike, cost = jax.tree.map(
                lambda leaf: leaf[index], (tried, valid, alike, cost)
            )
        vectors, prepared = tried
        placed = head.place(vectors, prepared, cell)
        logits = head.substituted(state.rows, cell, placed)
        log_p = jax.nn.log_softmax(logits)[:, target]
        total = config.lambda_sim * alike + config.lambda_cls * log_p
        total = total - config.lambda_distance * cost
        # 4. The best one stays (Eq. 9).
        best = jnp.argmax(jnp.where(valid, total, -jnp.inf))
        candidate = best if shortlist is None else index[best]
        row = placed[best]
        masks = None
        if order is None:
            masks = head.under_masks_after(state.carried, state.rows, kernels, cell, row)
        return Proposal(cell, candidate, row, logits[best], masks)

    return propose


class Found(NamedTuple):
    """FG-VCE's search of one image.

    Attributes:
        end: Its last state.
        similarity: The cosine similarity of each edit's cell and candidate, [T]; 0 where unused.
        masked_before, masked_after: Logits of the feature map before the first edit and after the
            last, under no mask and under each cell's, [n^2 + 1, K]; None where an order of the
            cells was given, or made by matched evidence, which asks no masks.
    """

    end: SearchState
    similarity: Float[Array, "T"]
    masked_before: Float[Array, "masks K"] | None
    masked_after: Float[Array, "masks K"] | None


def search(
    problem: Problem, config: SearchConfig, order: Float[Array, "cells"] | None = None
) -> Found:
    """Edits by `fgvce_proposal`."""
    similarity = similarities(problem)
    allowed = jnp.broadcast_to(problem.candidates.valid, similarity.shape)
    if order is None and config.evidence == "matched":
        predicted = jnp.argmax(problem.head.logits(problem.rows))
        order = matched_weight(problem, problem.cells, predicted).reshape(-1)
    kernels = with_no_mask(gaussian_kernels(len(problem.cells), config.sigma))
    propose = fgvce_proposal(problem, similarity, kernels, config, order)
    if order is not None:
        end = greedy_edits(problem, propose, allowed, config.max_iterations)
        return Found(end, edit_similarity(end, similarity), None, None)
    masks = problem.head.under_masks(problem.rows, kernels)
    end = greedy_edits(problem, propose, allowed, config.max_iterations, carried=masks)
    return Found(end, edit_similarity(end, similarity), masks.logits, end.carried.logits)


class Counterfactual(NamedTuple):
    """The edits of one image, in order; T = min(max_iterations, n^2), unused entries are -1.

    Attributes:
        cells: The edited feature map h*, [n, n, C].
        edit_cell: The replaced cell of each edit, row-major, int32 [T].
        edit_candidate: The candidate that replaced it, int32 [T].
        edit_similarity: Their cosine similarity, float32 [T]; 0 where unused.
        num_edits: Number of edits, int32.
        flipped: Whether argmax f(h*) is the target.
        p_predicted: The probability of the class predicted at first, before the first edit and
            after each, float32 [T + 1]; the last value is repeated to the end.
        p_target: The target's; likewise.
    """

    cells: Float[Array, "n n C"]
    edit_cell: Int[Array, "T"]
    edit_candidate: Int[Array, "T"]
    edit_similarity: Float[Array, "T"]
    num_edits: Int[Array, ""]
    flipped: Bool[Array, ""]
    p_predicted: Float[Array, "T+1"]
    p_target: Float[Array, "T+1"]


def result(problem: Problem, end: SearchState, similarity: Float[Array, "T"]) -> Counterfactual:
    """The end of a search as its result."""
    return Counterfactual(
        cells=edited_cells(problem.cells, problem.candidates.cells, end.source),
        edit_cell=end.edit_cell,
        edit_candidate=end.edit_candidate,
        edit_similarity=similarity,
        num_edits=end.num_edits,
        flipped=end.predicted == problem.target,
        p_predicted=end.p_predicted,
        p_target=end.p_target,
    )


def counterfactual(
    head: Callable[[Any], Any],
    cells: ArrayLike,
    target: ArrayLike,
    candidates: ArrayLike,
    config: SearchConfig = SearchConfig(),
    *,
    valid: ArrayLike | None = None,
    rivals: ArrayLike | None = None,
) -> Counterfactual:
    """Edit one feature map until `target` is predicted (FG-VCE, Section 3.2, Eq. 5-9).

    Each iteration takes the cell that contributes most to the class now predicted and replaces it
    by the candidate u that maximises lambda_sim * cosine + lambda_cls * log p_target. It ends when
    the prediction is the target, when every cell has been replaced once, or at `max_iterations`,
    which gives `flipped = False`. Ties go to the lowest index.

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        cells: The feature map of one image, [n, n, C].
        target: The class that should be predicted.
        candidates: Cells of correctly classified images of the target class, [N, C].
        config: The options of the search.
        valid: Which candidates may be used, bool [N]; all by default. Without any, no edits are
            made.
        rivals: Cells of reference images of the class that is predicted, [M, C]: for matched
            evidence.

    Raises:
        InputError: Cells that are not [n, n, C] or not the head's, a target outside its classes
            (where its value is known), no candidates or of other channels, or matched evidence
            without rivals.
    """
    with jax.default_matmul_precision("highest"):
        problem = search_problem(head, cells, target, candidates, valid, rivals)
        found = search(problem, config)
        return result(problem, found.end, found.similarity)


def search_problem(
    head: Callable[[Any], Any],
    cells: ArrayLike,
    target: ArrayLike,
    candidates: ArrayLike,
    valid: ArrayLike | None = None,
    rivals: ArrayLike | None = None,
) -> Problem:
    """The search of one image among candidates that nothing was prepared for; see there."""
    head = of_one_image(head)
    cells = jnp.asarray(cells)
    check_class(target, check_cells(head, cells))
    own = _group(head, cells, "candidates", candidates, valid)
    theirs = None if rivals is None else _group(head, cells, "rivals", rivals)
    return Problem(head, cells, head.rows(cells), jnp.asarray(target), own, theirs)


def _group(
    head: SearchHead,
    cells: Float[Array, "n n C"],
    name: str,
    vectors: ArrayLike,
    valid: ArrayLike | None = None,
) -> Candidates:
    vectors = jnp.asarray(vectors)
    if vectors.shape[1:] != cells.shape[2:] or not len(vectors):
        raise InputError(
            f"{name}: expected [N, {cells.shape[2]}], N of 1 or more, got {list(vectors.shape)}"
        )
    return Candidates(
        cells=vectors,
        norms=jnp.linalg.norm(head.compared(vectors), axis=-1),
        prepared=head.prepare(vectors),
        valid=jnp.ones(len(vectors), bool) if valid is None else jnp.asarray(valid),
        group=jnp.array(0),
    )
