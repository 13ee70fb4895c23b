"""Counterfactual search: edits that make the target the prediction (FG-VCE, Section 3.2, Eq. 5-9).

Greedy search over edits is one loop, `greedy_edits`, with the choice of the next edit as an
argument: a *proposal* of a query cell and the candidate that replaces it. FG-VCE's is here, those
of the exhaustive searches that it is compared with in `fgvce_jax.methods.cve`.
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
from fgvce_jax.heads import SearchHead, of_one_image
from fgvce_jax.matched import matched_evidence
from fgvce_jax.partition import contributions_of_masks, gaussian_kernels, with_no_mask


class Problem(NamedTuple):
    """One image's search: which edits turn its feature map into one of the target class?

    Attributes:
        head: The head that the edits should convince.
        cells: The image's feature map.
        rows: The same as the head holds it.
        target: The class to reach, int32.
        candidates: The cells that may replace the image's own, without the axes of a batch.
        rivals: Those of the class that is predicted, for matched evidence.
    """

    head: SearchHead
    cells: Float[Array, "n n C"]
    rows: Float[Array, "cells D"]
    target: Int[Array, ""]
    candidates: Candidates
    rivals: Candidates | None = None


class SearchState(NamedTuple):
    """The state of the loop; T = min(max_iterations, n^2), unused entries are -1.

    Attributes:
        rows: The current feature map as the head holds it, [n^2, D].
        source: The candidate each cell now holds, -1 for its original, int32 [n^2].
        allowed: Which edits are left, bool [n^2, N].
        predicted: argmax f(h), int32.
        num_edits: Edits so far, int32.
        edit_cell, edit_candidate: The cell and the candidate of each, int32 [T].
        p_predicted: The probability of the class predicted at first, before the first edit and
            after each, float32 [T + 1]; the last value is repeated to the end.
        p_target: The target's; likewise.
        carried: The proposal's own, from one edit to the next.
    """

    rows: Float[Array, "cells D"]
    source: Int[Array, "cells"]
    allowed: Bool[Array, "cells N"]
    predicted: Int[Array, ""]
    num_edits: Int[Array, ""]
    edit_cell: Int[Array, "T"]
    edit_candidate: Int[Array, "T"]
    p_predicted: Float[Array, "T+1"]
    p_target: Float[Array, "T+1"]
    carried: Any


class Proposal(NamedTuple):
    """The next edit and its consequence.

    Attributes:
        cell: The cell to be replaced, int32.
        candidate: The candidate that replaces it, int32.
        row: The candidate as the head holds it in that place, [D].
        logits: Of the feature map after the edit, [K].
        carried: Becomes the state's.
    """

    cell: Int[Array, ""]
    candidate: Int[Array, ""]
    row: Float[Array, "D"]
    logits: Float[Array, "K"]
    carried: Any = None


Propose = Callable[[SearchState], Proposal]


def greedy_edits(
    problem: Problem,
    propose: Propose,
    allowed: Bool[Array, "cells N"],
    max_iterations: int,
    *,
    reuse: bool = True,
    carried: Any = None,
) -> SearchState:
    """Make one proposed edit after another, until the target is predicted or none is left.

    Args:
        problem: The image and its candidates.
        propose: Chooses the next edit among those that are left.
        allowed: The edits (cell, candidate) to choose from. A cell is replaced at most once.
        max_iterations: Most edits.
        reuse: Whether a candidate may replace several cells.
        carried: The proposal's own before the first edit, a pytree.
    """
    head, target = problem.head, problem.target
    num_cells = len(problem.rows)
    limit = min(max_iterations, num_cells)

    def searching(state: SearchState) -> Bool[Array, ""]:
        return (state.predicted != target) & (state.num_edits < limit) & state.allowed.any()

    def edit(state: SearchState) -> SearchState:
        cell, candidate, row, logits, carried = propose(state)
        step, left = state.num_edits, state.allowed.at[cell].set(False)
        later, p = jnp.arange(limit + 1) > step, jax.nn.softmax(logits)
        return SearchState(
            rows=state.rows.at[cell].set(row),
            source=state.source.at[cell].set(candidate),
            allowed=left if reuse else left.at[:, candidate].set(False),
            predicted=jnp.argmax(logits),
            num_edits=step + 1,
            edit_cell=state.edit_cell.at[step].set(cell),
            edit_candidate=state.edit_candidate.at[step].set(candidate),
            p_predicted=jnp.where(later, p[first], state.p_predicted),
            p_target=jnp.where(later, p[target], state.p_target),
            carried=carried,
        )

    logits = head.logits(problem.rows)
    first, p = jnp.argmax(logits), jax.nn.softmax(logits)
    start = SearchState(
        rows=problem.rows,
        source=jnp.full(num_cells, -1),
        allowed=allowed,
        predicted=first,
        num_edits=jnp.array(0),
        edit_cell=jnp.full(limit, -1),
        edit_candidate=jnp.full(limit, -1),
        p_predicted=jnp.full(limit + 1, p[first]),
        p_target=jnp.full(limit + 1, p[target]),
        carried=carried,
    )
    return jax.lax.while_loop(searching, edit, start)


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


def similarities(problem: Problem) -> Float[Array, "cells N"]:
    """Cosine similarity of every original cell with every candidate; 0 where either is all zero."""
    compared, candidates = problem.head.compared, problem.candidates
    cells = problem.cells.reshape(len(problem.rows), -1)
    return cosine(compared(cells), compared(candidates.cells), candidates.norms)


def relative_distances(
    problem: Problem, similarity: Float[Array, "cells N"]
) -> Float[Array, "cells N"]:
    """Euclidean distance of every original cell and every candidate, over the mean cell's length.

    Of the vectors by which they are compared.
    """
    own = jnp.linalg.norm(problem.head.compared(problem.cells), axis=-1).reshape(-1, 1)
    theirs = problem.candidates.norms
    squared = own**2 + theirs**2 - 2 * similarity * own * theirs
    return jnp.sqrt(jnp.maximum(squared, 0)) / jnp.maximum(own.mean(), 1e-12)


def cosine(
    cells: Float[Array, "M C"], candidates: Float[Array, "N C"], norms: Float[Array, "N"]
) -> Float[Array, "M N"]:
    """Cosine similarity of every cell with every candidate; 0 where either is all zero."""
    product = jnp.linalg.norm(cells, axis=-1)[:, None] * norms
    return jnp.where(product > 0, cells @ candidates.T / jnp.where(product > 0, product, 1), 0)


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


def edit_similarity(state: SearchState, similarity: Float[Array, "cells N"]) -> Float[Array, "T"]:
    """The similarity of each edit's cell and candidate; 0 where unused."""
    of_edits = similarity[state.edit_cell, state.edit_candidate]
    return jnp.where(state.edit_cell < 0, 0, of_edits)


def edited_cells(
    cells: Float[Array, "n n C"], candidates: Float[Array, "N C"], source: Int[Array, "cells"]
) -> Float[Array, "n n C"]:
    """The feature map with each cell's source put in its place."""
    source = source.reshape(*cells.shape[:2], 1)
    return jnp.where(source < 0, cells, candidates[source[..., 0]])


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
