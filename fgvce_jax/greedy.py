"""Greedy search over edits: one loop, with the choice of the next edit as an argument.

A *proposal* is a query cell and the candidate that replaces it. FG-VCE's is in `fgvce_jax.search`,
those of the exhaustive searches that it is compared with in `fgvce_jax.methods.cve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Candidates
from fgvce_jax.heads import SearchHead


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


def edited_cells(
    cells: Float[Array, "n n C"], candidates: Float[Array, "N C"], source: Int[Array, "cells"]
) -> Float[Array, "n n C"]:
    """The feature map with each cell's source put in its place."""
    source = source.reshape(*cells.shape[:2], 1)
    return jnp.where(source < 0, cells, candidates[source[..., 0]])


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


def edit_similarity(state: SearchState, similarity: Float[Array, "cells N"]) -> Float[Array, "T"]:
    """The similarity of each edit's cell and candidate; 0 where unused."""
    of_edits = similarity[state.edit_cell, state.edit_candidate]
    return jnp.where(state.edit_cell < 0, 0, of_edits)
