"""Counterfactual search: replace cells until the classifier says the target (Eq. 5-9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.checks import check_cells, check_class
from fgvce_jax.errors import InputError
from fgvce_jax.heads import SearchHead, searchable
from fgvce_jax.partition import gaussian_kernels, row_contributions


class Counterfactual(NamedTuple):
    """The edits of one image, in order; T = min(max_iterations, n^2), unused entries are -1.

    Attributes:
        cells: The edited feature map h*, [n, n, C].
        edit_cell: The replaced cell of each edit, row-major, int32 [T].
        edit_candidate: The candidate that replaced it, int32 [T].
        edit_similarity: Their cosine similarity, float32 [T]; 0 where unused.
        num_edits: Number of edits, int32.
        flipped: Whether argmax f(h*) is the target.
        p_target: The target's probability before the first edit and after each, float32 [T + 1];
            the last value is repeated to the end.
    """

    cells: Float[Array, "n n C"]
    edit_cell: Int[Array, "T"]
    edit_candidate: Int[Array, "T"]
    edit_similarity: Float[Array, "T"]
    num_edits: Int[Array, ""]
    flipped: Bool[Array, ""]
    p_target: Float[Array, "T + 1"]


class SearchState(NamedTuple):
    """What the loop carries.

    Attributes:
        rows: The current feature map as the head holds it, [n^2, D].
        source: The candidate each cell now holds, -1 for its original, int32 [n^2].
        predicted: argmax f(h), int32.
        num_edits: Edits so far, int32.
        edit_cell, edit_candidate, edit_similarity, p_target: as in `Counterfactual`.
    """

    rows: Float[Array, "n*n D"]
    source: Int[Array, "n*n"]
    predicted: Int[Array, ""]
    num_edits: Int[Array, ""]
    edit_cell: Int[Array, "T"]
    edit_candidate: Int[Array, "T"]
    edit_similarity: Float[Array, "T"]
    p_target: Float[Array, "T + 1"]


def cosine(
    cells: Float[Array, "M C"], candidates: Float[Array, "N C"], norms: Float[Array, "N"]
) -> Float[Array, "M N"]:
    """Cosine similarity of every cell with every candidate; 0 where either is all zero."""
    product = jnp.linalg.norm(cells, axis=-1)[:, None] * norms
    return jnp.where(product > 0, cells @ candidates.T / jnp.where(product > 0, product, 1), 0)


def search_rows(
    head: SearchHead,
    rows: Float[Array, "n*n D"],
    target: Int[Array, ""],
    candidates: Float[Array, "N C"],
    prepared: Any,
    valid: Bool[Array, "N"],
    similarity: Float[Array, "n*n N"],
    kernels: Float[Array, "n*n n*n"],
    max_iterations: int,
    lambda_sim: float,
    lambda_cls: float,
) -> SearchState:
    """The loop of Section 3.2 on a feature map held as rows.

    A target cell is always an original one, since each is replaced at most once, so `similarity`
    of the original cells with the candidates serves every iteration.
    """
    num_cells = rows.shape[0]
    limit = min(max_iterations, num_cells)

    def searching(state: SearchState) -> Bool[Array, ""]:
        return (state.predicted != target) & (state.num_edits < limit) & valid.any()

    def edit(state: SearchState) -> SearchState:
        # 1. What speaks for the class that the model says now.
        scores = row_contributions(head, state.rows, state.predicted, kernels)
        # 2. The cell that speaks loudest, among those not yet replaced.
        cell = jnp.argmax(jnp.where(state.source < 0, scores, -jnp.inf))
        # 3. Every candidate in its place: alike, and speaking for the target.
        placed = head.place(candidates, prepared, cell)
        logits = head.substituted(state.rows, cell, placed)
        log_p = jax.nn.log_softmax(logits)[:, target]
        total = lambda_sim * similarity[cell] + lambda_cls * log_p
        # 4. The best one stays.
        best = jnp.argmax(jnp.where(valid, total, -jnp.inf))
        step = state.num_edits
        p_target = jnp.exp(log_p[best])
        return SearchState(
            rows=state.rows.at[cell].set(placed[best]),
            source=state.source.at[cell].set(best),
            predicted=jnp.argmax(logits[best]),
            num_edits=step + 1,
            edit_cell=state.edit_cell.at[step].set(cell),
            edit_candidate=state.edit_candidate.at[step].set(best),
            edit_similarity=state.edit_similarity.at[step].set(similarity[cell, best]),
            p_target=jnp.where(jnp.arange(limit + 1) > step, p_target, state.p_target),
        )

    logits = head.logits(rows)
    start = SearchState(
        rows=rows,
        source=jnp.full(num_cells, -1),
        predicted=jnp.argmax(logits),
        num_edits=jnp.array(0),
        edit_cell=jnp.full(limit, -1),
        edit_candidate=jnp.full(limit, -1),
        edit_similarity=jnp.zeros(limit),
        p_target=jnp.full(limit + 1, jax.nn.softmax(logits)[target]),
    )
    return jax.lax.while_loop(searching, edit, start)


def edited_cells(
    cells: Float[Array, "n n C"], candidates: Float[Array, "N C"], source: Int[Array, "n*n"]
) -> Float[Array, "n n C"]:
    """The feature map with each cell's source put in its place."""
    source = source.reshape(*cells.shape[:2], 1)
    return jnp.where(source < 0, cells, candidates[source[..., 0]])


def counterfactual(
    head: Callable[[Any], Any],
    cells: Float[Array, "n n C"],
    target: int | Int[Array, ""],
    candidates: Float[Array, "N C"],
    sigma: float = 0.8,
    max_iterations: int = 100,
    *,
    valid: Bool[Array, "N"] | None = None,
    lambda_sim: float = 1.0,
    lambda_cls: float = 1.0,
) -> Counterfactual:
    """Edit one feature map until the head says `target` (FG-VCE, Section 3.2, Eq. 5-9).

    Each iteration takes the cell that contributes most to the class now predicted and replaces it
    by the candidate u that maximises lambda_sim * cosine + lambda_cls * log p_target. It ends when
    the prediction is the target, when every cell has been replaced once, or at `max_iterations`.
    Ties go to the lowest index.

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        cells: The feature map of one image.
        target: The class that should be predicted.
        candidates: Cells of correctly classified images of the target class.
        sigma: Width of the contribution masks, in cells.
        max_iterations: Most edits; reaching it gives `flipped = False`.
        valid: Which candidates may be used; all by default. With none, there are no edits.
        lambda_sim: Weight of the similarity.
        lambda_cls: Weight of the target's log-probability.

    Raises:
        InputError: Cells that are not [n, n, C] or not the head's, a target outside its classes
            (where its value is known), no candidates or of other channels, sigma below 0, or
            max_iterations below 1.
    """
    head = searchable(head)
    cells, candidates = jnp.asarray(cells), jnp.asarray(candidates)
    check_class(target, check_cells(head, cells))
    if candidates.shape[1:] != cells.shape[2:] or not len(candidates):
        raise InputError(
            f"candidates: expected [N, {cells.shape[2]}], N of 1 or more, "
            f"got {list(candidates.shape)}"
        )
    if not max_iterations >= 1:
        raise InputError(f"max_iterations: expected 1 or more, got {max_iterations}")
    with jax.default_matmul_precision("highest"):
        state = search_rows(
            head,
            head.rows(cells),
            target,
            candidates,
            head.prepare(candidates),
            jnp.ones(len(candidates), bool) if valid is None else valid,
            cosine(
                cells.reshape(-1, cells.shape[-1]),
                candidates,
                jnp.linalg.norm(candidates, axis=-1),
            ),
            gaussian_kernels(cells.shape[0], sigma),
            max_iterations,
            lambda_sim,
            lambda_cls,
        )
    return Counterfactual(
        cells=edited_cells(cells, candidates, state.source),
        edit_cell=state.edit_cell,
        edit_candidate=state.edit_candidate,
        edit_similarity=state.edit_similarity,
        num_edits=state.num_edits,
        flipped=state.predicted == target,
        p_target=state.p_target,
    )
