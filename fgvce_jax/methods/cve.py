"""Visual counterfactuals by exhaustive search over pairs of cells: two papers, two proposals.

CVE: "Counterfactual Visual Explanations" (Goyal et al., ICML 2019) takes the pair of a cell and a
candidate whose exchange raises the target's probability most. CVE-semantic: "Making Heads or Tails:
Towards Semantically Consistent Visual Counterfactuals" (Vandenhende et al., ECCV 2022) adds the
similarity of the two, and considers the most similar pairs only. Each cell and each candidate is
used at most once, in the loop of `fgvce_jax.greedy`. The bank for them is built with
`top_m=None`: all n^2 cells of the reference images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Bank, Candidates, pad_batch
from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import each_problem
from fgvce_jax.greedy import (
    Problem,
    Proposal,
    SearchState,
    cosine,
    edit_similarity,
    greedy_edits,
    similarities,
)
from fgvce_jax.heads import PooledLinear, searchable
from fgvce_jax.methods.scores import check_chunk
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.search import Counterfactual, result

TIE = 1e-5
"""Objectives closer than this are a tie: float32 sums over the classes cannot separate them."""


def pair_scores(problem: Problem, chunk: int) -> Callable[[Any], Any]:
    """Rows [n^2, D] of the current feature map -> log p_target of every single edit, [n^2, N].

    1 / p_target = sum_k exp(z_k - z_target). Where z is a sum of a cell's and a candidate's part,
    the sum over classes is a product of two matrices, each shifted to at most 1. It vanishes only
    if one candidate in place of another moves a logit by more than 80; such pairs are level.
    """
    if not isinstance(problem.head, PooledLinear):
        return partial(_tried_scores, problem, chunk)
    target, num_cells, prepared = problem.target, len(problem.rows), problem.candidates.prepared
    gain = (prepared - prepared[:, target, None]) / num_cells
    most = gain.max(0)
    of_candidate = jnp.exp(gain - most)

    def scores(rows):
        left = problem.head.logits(rows) - rows / num_cells
        gap = left - left[:, target, None] + most
        widest = gap.max(1, keepdims=True)
        of_cell = jnp.exp(gap - widest)
        return -widest - jnp.log(jnp.maximum(of_cell @ of_candidate.T, jnp.exp(-80.0)))

    return scores


def _tried_scores(
    problem: Problem, chunk: int, rows: Float[Array, "cells D"]
) -> Float[Array, "cells N"]:
    """Every pair through the head, cell by cell, `chunk` candidates at a time."""
    head, candidates = problem.head, problem.candidates

    def of_cell(cell):
        def of_candidate(candidate):
            own, prepared = jax.tree.map(lambda leaf: leaf[None], candidate)
            logits = head.substituted(rows, cell, head.place(own, prepared, cell))[0]
            return jax.nn.log_softmax(logits)[problem.target]

        held = (candidates.cells, candidates.prepared)
        return jax.lax.map(of_candidate, held, batch_size=chunk)

    return jax.lax.map(of_cell, jnp.arange(len(rows)))


def pair_edits(
    problem: Problem,
    allowed: Bool[Array, "cells N"],
    bonus: Float[Array, "cells N"],
    max_iterations: int,
    chunk: int,
) -> Counterfactual:
    """Greedy edits, each the allowed pair with the highest log p_target + bonus.

    Ties go to the lowest index, cells before candidates.
    """
    check_chunk(chunk)
    head, candidates = problem.head, problem.candidates
    scores = pair_scores(problem, chunk)

    def propose(state: SearchState) -> Proposal:
        total = jnp.where(state.allowed, scores(state.rows) + bonus, -jnp.inf)
        cell, best = jnp.divmod(jnp.argmax(total >= total.max() - TIE), total.shape[1])
        held = (candidates.cells, candidates.prepared)
        vector, prepared = jax.tree.map(lambda leaf: leaf[best][None], held)
        row = head.place(vector, prepared, cell)[0]
        return Proposal(cell, best, row, head.logits(state.rows.at[cell].set(row)))

    end = greedy_edits(problem, propose, allowed, max_iterations, reuse=False)
    return result(problem, end, edit_similarity(end, similarities(problem)))


def cve_edits(
    problem: Problem, *, max_iterations: int = SearchConfig.max_iterations, chunk: int = 128
) -> Counterfactual:
    """The edits of Goyal et al. for one image: the highest p_target, pair by pair.

    Args:
        problem: The image and its candidates.
        max_iterations: Most edits.
        chunk: Candidates tried together with heads other than `PooledLinear`, which needs none.

    Raises:
        InputError: A chunk below 1.
    """
    bonus = jnp.zeros((len(problem.rows), len(problem.candidates.valid)))
    allowed = jnp.broadcast_to(problem.candidates.valid, bonus.shape)
    return pair_edits(problem, allowed, bonus, max_iterations, chunk)


def cve_semantic_edits(
    problem: Problem,
    auxiliary_cells: Float[Array, "n n A"] | None = None,
    auxiliary_candidates: Float[Array, "N A"] | None = None,
    *,
    weight: float = 0.4,
    temperature: float = 0.1,
    share: float = 0.2,
    max_iterations: int = SearchConfig.max_iterations,
    chunk: int = 128,
) -> Counterfactual:
    """The edits of Vandenhende et al. for one image: p_target and semantic consistency.

    Args:
        problem: The image and its candidates.
        auxiliary_cells: Features that distinguish parts, at each cell; by default the cells.
        auxiliary_candidates: The same of each candidate; by default the candidates.
        weight: Lambda, of the semantic term: the log softmax of the cosines over the candidates.
        temperature: Of that softmax.
        share: Of all pairs, how many may be exchanged, rounded down: those most alike, in (0, 1].
        max_iterations, chunk: As in `cve_edits`.

    Raises:
        InputError: A chunk below 1.
    """
    valid, compared = problem.candidates.valid, problem.head.compared
    cells = compared(problem.cells) if auxiliary_cells is None else auxiliary_cells
    cells = cells.reshape(len(problem.rows), -1)
    held = auxiliary_candidates
    if held is None:
        held = compared(problem.candidates.cells)
    alike = jnp.where(valid, cosine(cells, held, jnp.linalg.norm(held, axis=-1)), -2)
    bonus = weight * jax.nn.log_softmax(alike / temperature, axis=-1, where=valid)
    order = jnp.argsort(-alike.reshape(-1), stable=True)  # ties to the lowest index
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size)).reshape(alike.shape)
    allowed = (rank < jnp.asarray(kept_pairs(share, len(cells), len(valid)))[valid.sum()]) & valid
    return pair_edits(problem, allowed, jnp.where(valid, bonus, 0), max_iterations, chunk)


def kept_pairs(share: float, num_cells: int, most: int) -> Int[np.ndarray, "counts"]:
    """int(share * pairs) for 0, 1, ... `most` candidates, in double precision."""
    return (share * (num_cells * np.arange(most + 1))).astype(np.int32)


def auxiliary_bank(
    auxiliary: Callable[[Any], Any],
    bank: Bank,
    images: Float[Array | np.ndarray, "M H W 3"],
    batch_size: int = 32,
) -> Float[Array, "G N A"]:
    """Auxiliary features of every candidate, 0 where there is none.

    `auxiliary` maps images [B, H, W, 3] to features [B, n, n, A], n as in the bank, `batch_size` of
    `images` in one call, the references that the bank was built from.
    """
    used, place = np.unique(np.maximum(bank.image, 0), return_inverse=True)
    features = []
    for start in range(0, len(used), batch_size):
        batch = np.asarray(images[used[start : start + batch_size]])
        grid = auxiliary(pad_batch(batch, batch_size))[: len(batch)]
        features.append(np.asarray(grid).reshape(len(batch), -1, grid.shape[-1]))
    chosen = np.concatenate(features)[place.reshape(bank.image.shape), np.maximum(bank.cell, 0)]
    return jnp.where(bank.valid[..., None], chosen, 0)


# --- a batch ------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("edits", "share", "max_iterations", "chunk"))
def _batch(
    edits: Callable[..., Counterfactual],
    batch: tuple[Classifier, Any, Any, Candidates],
    *auxiliary: Any,
    **options: Any,
) -> Counterfactual:
    """`edits` of every image, one after another, so that none waits for the longest search."""
    clf, images, targets, candidates = batch
    head, feature_map = searchable(clf.head), clf.feature_map(images)
    search = partial(edits, **options)
    return each_problem(search, head, candidates, feature_map, targets, 1, *auxiliary)


def cve_counterfactuals(
    clf: Classifier,
    images: Float[Any, "B H W 3"],
    targets: Int[Any, "B"],
    *,
    bank: Bank,
    **options: Any,
) -> Counterfactual:
    """`cve_edits` of a batch, with the bank's candidates; every field gains a leading axis B."""
    return _batch(cve_edits, (clf, images, targets, bank.for_targets(targets)), **options)


def cve_semantic_counterfactuals(
    clf: Classifier,
    images: Float[Any, "B H W 3"],
    targets: Int[Any, "B"],
    *,
    bank: Bank,
    auxiliary: Callable[[Any], Any] | None = None,
    auxiliary_candidates: Float[Any, "G N A"] | None = None,
    **options: Any,
) -> Counterfactual:
    """`cve_semantic_edits` of a batch, with the bank's candidates; every field gains an axis B.

    Args:
        targets: The class each should be classified as.
        bank: Candidates, built with `top_m=None`.
        auxiliary: Images [B, H, W, 3] to features [B, n, n, A] that distinguish parts, on the
            classifier's own grid of cells: a pytree callable such as a `Backbone`, or a function
            as `jax.tree_util.Partial`. By default the classifier's features.
        auxiliary_candidates: The same features of the bank's candidates, from `auxiliary_bank`.
        options: Of `cve_semantic_edits`.
    """
    batch = clf, images, targets, bank.for_targets(targets)
    if auxiliary is None:
        return _batch(cve_semantic_edits, batch, **options)
    served = jnp.asarray(auxiliary_candidates)[np.maximum(np.asarray(bank.group)[targets], 0)]
    return _batch(cve_semantic_edits, batch, auxiliary(images), served, **options)


def edit_map(found: Counterfactual, n: int) -> Float[Array, "n n"]:
    """The gain of p_target by each edit, at the cell it replaced; 0 where nothing was."""
    gains = jnp.where(found.edit_cell < 0, 0, jnp.diff(found.p_target))
    return jnp.zeros(n * n).at[found.edit_cell].add(gains).reshape(n, n)


def cve(
    clf: Classifier,
    images: Float[Any, "B H W 3"],
    classes: Int[Any, "B"],
    contrast_classes: Int[Any, "B"],
    *,
    bank: Bank,
    **options: Any,
) -> Float[Array, "B n n"]:
    """The gain of p_Q by each edit of Goyal et al., at its cell; options of `cve_edits`."""
    found = cve_counterfactuals(clf, images, contrast_classes, bank=bank, **options)
    return jax.vmap(partial(edit_map, n=found.cells.shape[1]))(found)


def cve_semantic(
    clf: Classifier,
    images: Float[Any, "B H W 3"],
    classes: Int[Any, "B"],
    contrast_classes: Int[Any, "B"],
    *,
    bank: Bank,
    **options: Any,
) -> Float[Array, "B n n"]:
    """As `cve`, with the edits of Vandenhende et al.; options of `cve_semantic_counterfactuals`."""
    found = cve_semantic_counterfactuals(clf, images, contrast_classes, bank=bank, **options)
    return jax.vmap(partial(edit_map, n=found.cells.shape[1]))(found)
