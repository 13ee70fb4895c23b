"""Visual counterfactuals by exhaustive search over pairs of cells.

CVE: "Counterfactual Visual Explanations" (Goyal et al., ICML 2019). CVE-semantic: "Making Heads or
Tails: Towards Semantically Consistent Visual Counterfactuals" (Vandenhende et al., ECCV 2022).
Greedily, the pair of a cell and a candidate whose exchange serves the target best, each cell and
each candidate at most once, until the classifier says the target. The bank for them is built with
`top_m=None`: all n^2 cells of the reference images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Bank, pad_batch
from fgvce_jax.heads import PooledLinear, SearchHead, searchable
from fgvce_jax.methods.scores import check_chunk
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.search import Counterfactual, cosine, edited_cells

TIE = 1e-5
"""Objectives closer than this are a tie: float32 sums over the classes do not tell them apart."""

PairScores = Callable[[Any], Any]
"""Rows [n^2, D] of the current feature map -> log p_target of every single edit, [n^2, N]."""


def pair_scores(
    head: SearchHead,
    target: Int[Array, ""],
    candidates: Float[Array, "N C"],
    prepared: Any,
    num_cells: int,
    chunk: int,
) -> PairScores:
    """How to score all pairs of a cell and a candidate: one matrix product, or in chunks."""
    if isinstance(head, PooledLinear):
        return _factored_scores(head, target, prepared, num_cells)
    return partial(_tried_scores, head, target, candidates, prepared, chunk)


def _factored_scores(
    head: PooledLinear, target: Int[Array, ""], prepared: Float[Array, "N K"], num_cells: int
) -> PairScores:
    """1 / p_target = sum_k exp(z_k - z_target), and z is a sum of a cell's and a candidate's part.

    So the sum over classes is a product of two matrices, each shifted to at most 1. It vanishes
    only if one candidate in place of another moves a logit by more than 80; such pairs are level.
    """
    gain = (prepared - prepared[:, [target]]) / num_cells
    most = gain.max(0)
    of_candidate = jnp.exp(gain - most)

    def scores(rows):
        left = head.logits(rows) - rows / num_cells
        gap = left - left[:, [target]] + most
        widest = gap.max(1, keepdims=True)
        of_cell = jnp.exp(gap - widest)
        return -widest - jnp.log(jnp.maximum(of_cell @ of_candidate.T, jnp.exp(-80.0)))

    return scores


def _tried_scores(
    head: SearchHead,
    target: Int[Array, ""],
    candidates: Float[Array, "N C"],
    prepared: Any,
    chunk: int,
    rows: Float[Array, "n*n D"],
) -> Float[Array, "n*n N"]:
    """Every pair through the head, cell by cell, `chunk` candidates at a time."""

    def of_cell(cell):
        def of_candidate(candidate):
            own, prepared = jax.tree.map(lambda leaf: leaf[None], candidate)
            logits = head.substituted(rows, cell, head.place(own, prepared, cell))[0]
            return jax.nn.log_softmax(logits)[target]

        return jax.lax.map(of_candidate, (candidates, prepared), batch_size=chunk)

    return jax.lax.map(of_cell, jnp.arange(len(rows)))


class _State(NamedTuple):
    """What the loop carries.

    Attributes:
        rows: The current feature map as the head holds it, [n^2, D].
        source: The candidate each cell now holds, -1 for its original, int32 [n^2].
        allowed: Pairs that may still be exchanged, bool [n^2, N].
        predicted: argmax f(h), int32.
        num_edits: Edits so far, int32.
        edit_cell, edit_candidate, p_target: as in `Counterfactual`.
    """

    rows: Float[Array, "n*n D"]
    source: Int[Array, "n*n"]
    allowed: Bool[Array, "n*n N"]
    predicted: Int[Array, ""]
    num_edits: Int[Array, ""]
    edit_cell: Int[Array, "T"]
    edit_candidate: Int[Array, "T"]
    p_target: Float[Array, "T + 1"]


def exhaustive_edits(
    head: SearchHead,
    cells: Float[Array, "n n C"],
    target: Int[Array, ""],
    candidates: Float[Array, "N C"],
    prepared: Any,
    allowed: Bool[Array, "n*n N"],
    bonus: Float[Array, "n*n N"],
    max_iterations: int,
    chunk: int,
) -> Counterfactual:
    """Greedy edits, each the allowed pair with the highest log p_target + bonus.

    Ties go to the lowest index, cells before candidates.
    """
    check_chunk(chunk)
    num_cells, num_candidates = allowed.shape
    limit = min(max_iterations, num_cells)
    scores = pair_scores(head, target, candidates, prepared, num_cells, chunk)

    def searching(state: _State) -> Bool[Array, ""]:
        return (state.predicted != target) & (state.num_edits < limit) & state.allowed.any()

    def edit(state: _State) -> _State:
        total = jnp.where(state.allowed, scores(state.rows) + bonus, -jnp.inf)
        cell, best = jnp.divmod(jnp.argmax(total >= total.max() - TIE), num_candidates)
        one = jax.tree.map(lambda leaf: leaf[best][None], (candidates, prepared))
        rows = state.rows.at[cell].set(head.place(*one, cell)[0])
        logits = head.logits(rows)
        step = state.num_edits
        p_target = jax.nn.softmax(logits)[target]
        return _State(
            rows=rows,
            source=state.source.at[cell].set(best),
            allowed=state.allowed.at[cell].set(False).at[:, best].set(False),
            predicted=jnp.argmax(logits),
            num_edits=step + 1,
            edit_cell=state.edit_cell.at[step].set(cell),
            edit_candidate=state.edit_candidate.at[step].set(best),
            p_target=jnp.where(jnp.arange(limit + 1) > step, p_target, state.p_target),
        )

    rows = head.rows(cells)
    logits = head.logits(rows)
    start = _State(
        rows=rows,
        source=jnp.full(num_cells, -1),
        allowed=allowed,
        predicted=jnp.argmax(logits),
        num_edits=jnp.array(0),
        edit_cell=jnp.full(limit, -1),
        edit_candidate=jnp.full(limit, -1),
        p_target=jnp.full(limit + 1, jax.nn.softmax(logits)[target]),
    )
    end = jax.lax.while_loop(searching, edit, start)
    old = cells.reshape(num_cells, -1)[end.edit_cell]
    new = candidates[end.edit_candidate]
    similarity = jax.vmap(lambda u, v: cosine(u[None], v[None], jnp.linalg.norm(v[None]))[0, 0])
    return Counterfactual(
        cells=edited_cells(cells, candidates, end.source),
        edit_cell=end.edit_cell,
        edit_candidate=end.edit_candidate,
        edit_similarity=jnp.where(end.edit_cell < 0, 0, similarity(old, new)),
        num_edits=end.num_edits,
        flipped=end.predicted == target,
        p_target=end.p_target,
    )


def semantic_terms(
    cells: Float[Array, "n*n A"],
    candidates: Float[Array, "N A"],
    valid: Bool[Array, "N"],
    weight: float,
    temperature: float,
    share: float,
) -> tuple[Bool[Array, "n*n N"], Float[Array, "n*n N"]]:
    """(allowed, bonus) of CVE-semantic from auxiliary features.

    The bonus is `weight` * log softmax over the candidates of cosine / `temperature`; allowed is
    the `share` of pairs with the highest cosine, ties to the lowest index.
    """
    alike = jnp.where(valid, cosine(cells, candidates, jnp.linalg.norm(candidates, axis=-1)), -2)
    bonus = weight * jax.nn.log_softmax(alike / temperature, axis=-1, where=valid)
    order = jnp.argsort(-alike.reshape(-1), stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
    kept = jnp.round(share * len(cells) * valid.sum())
    return (rank.reshape(alike.shape) < kept) & valid, jnp.where(valid, bonus, 0)


def cve_edits(
    head: Callable[[Any], Any],
    cells: Float[Array, "n n C"],
    target: int | Int[Array, ""],
    candidates: Float[Array, "N C"],
    *,
    valid: Bool[Array, "N"] | None = None,
    prepared: Any = None,
    max_iterations: int = 100,
    chunk: int = 128,
) -> Counterfactual:
    """The edits of Goyal et al. for one feature map: the highest p_target, pair by pair.

    Args:
        head: Cells [..., n, n, C] to logits [..., K].
        cells: The feature map of one image.
        target: The class that should be predicted.
        candidates: Cells of reference images of the target class.
        valid: Which candidates may be used; all by default.
        prepared: What the bank holds of the candidates in advance; computed here if not given.
        max_iterations: Most edits.
        chunk: Candidates tried together with heads other than `PooledLinear`, which needs none.
    """
    head = searchable(head)
    with jax.default_matmul_precision("highest"):
        prepared = head.prepare(candidates) if prepared is None else prepared
        usable = jnp.ones(len(candidates), bool) if valid is None else valid
        shape = (cells.shape[0] * cells.shape[1], len(candidates))
        return exhaustive_edits(
            head,
            cells,
            target,
            candidates,
            prepared,
            jnp.broadcast_to(usable, shape),
            jnp.zeros(shape),
            max_iterations,
            chunk,
        )


def cve_semantic_edits(
    head: Callable[[Any], Any],
    cells: Float[Array, "n n C"],
    target: int | Int[Array, ""],
    candidates: Float[Array, "N C"],
    *,
    auxiliary_cells: Float[Array, "n n A"] | None = None,
    auxiliary_candidates: Float[Array, "N A"] | None = None,
    valid: Bool[Array, "N"] | None = None,
    prepared: Any = None,
    weight: float = 0.4,
    temperature: float = 0.1,
    share: float = 0.2,
    max_iterations: int = 100,
    chunk: int = 128,
) -> Counterfactual:
    """The edits of Vandenhende et al. for one feature map: p_target and semantic consistency.

    Args:
        head, cells, target, candidates, valid, prepared, max_iterations, chunk: As in `cve_edits`.
        auxiliary_cells: Features that tell parts apart, at each cell; by default the cells.
        auxiliary_candidates: The same of each candidate; by default the candidates.
        weight: Lambda, of the semantic term.
        temperature: Of its softmax over the candidates.
        share: Of all pairs, how many may be exchanged: those most alike, in (0, 1].
    """
    head = searchable(head)
    auxiliary_cells = cells if auxiliary_cells is None else auxiliary_cells
    auxiliary_candidates = candidates if auxiliary_candidates is None else auxiliary_candidates
    with jax.default_matmul_precision("highest"):
        prepared = head.prepare(candidates) if prepared is None else prepared
        usable = jnp.ones(len(candidates), bool) if valid is None else valid
        allowed, bonus = semantic_terms(
            auxiliary_cells.reshape(-1, auxiliary_cells.shape[-1]),
            auxiliary_candidates,
            usable,
            weight,
            temperature,
            share,
        )
        return exhaustive_edits(
            head, cells, target, candidates, prepared, allowed, bonus, max_iterations, chunk
        )


def edit_map(found: Counterfactual, n: int) -> Float[Array, "n n"]:
    """What each edit added to p_target, at the cell it replaced; 0 where nothing was."""
    gains = jnp.where(found.edit_cell < 0, 0, jnp.diff(found.p_target))
    return jnp.zeros(n * n).at[found.edit_cell].add(gains).reshape(n, n)


@partial(jax.jit, static_argnames=("max_iterations", "chunk"))
def cve_counterfactuals(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    targets: Int[Array, "B"],
    *,
    bank: Bank,
    **options: Any,
) -> Counterfactual:
    """`cve_edits` of a batch, with the bank's candidates; every field gains a leading axis B.

    Searched one image after another, so that no image waits for the longest search.
    """

    def one(sample):
        cells, target = sample
        return cve_edits(clf.head, cells, target, **_candidates(bank, target), **options)

    return jax.lax.map(one, (clf.features(images), targets))


@partial(jax.jit, static_argnames=("share", "max_iterations", "chunk"))
def cve_semantic_counterfactuals(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    targets: Int[Array, "B"],
    *,
    bank: Bank,
    auxiliary: Callable[[Any], Any] | None = None,
    auxiliary_candidates: Float[Array, "G N A"] | None = None,
    **options: Any,
) -> Counterfactual:
    """`cve_semantic_edits` of a batch, with the bank's candidates; every field gains an axis B.

    Args:
        clf: The classifier.
        images: float32 in [0, 1].
        targets: The class each should be classified as.
        bank: Candidates, built with `top_m=None`.
        auxiliary: Images [B, H, W, 3] to features [B, n, n, A] that tell parts apart, on the
            classifier's own grid of cells: a pytree callable such as a `Backbone`, or a function
            as `jax.tree_util.Partial`. By default the classifier's features.
        auxiliary_candidates: The same features of the bank's candidates, from `auxiliary_bank`.
        options: Of `cve_semantic_edits`.
    """
    cells = clf.features(images)
    if auxiliary is None:
        auxiliary_cells, auxiliary_candidates = cells, bank.cells
    else:
        auxiliary_cells = auxiliary(images)

    def one(sample):
        cells, auxiliary_cells, target = sample
        return cve_semantic_edits(
            clf.head,
            cells,
            target,
            auxiliary_cells=auxiliary_cells,
            auxiliary_candidates=auxiliary_candidates[bank.group(target)],
            **_candidates(bank, target),
            **options,
        )

    return jax.lax.map(one, (cells, auxiliary_cells, targets))


def auxiliary_bank(
    auxiliary: Callable[[Any], Any],
    bank: Bank,
    images: Float[Array, "M H W 3"],
    batch_size: int = 32,
) -> Float[Array, "G N A"]:
    """Auxiliary features of every candidate, 0 where there is none.

    Args:
        auxiliary: Images [B, H, W, 3] to features [B, n, n, A], n as in the bank.
        bank: The bank.
        images: The reference images that the bank was built from.
        batch_size: Images in one call of `auxiliary`.
    """
    used, place = np.unique(np.maximum(bank.image, 0), return_inverse=True)
    features = []
    for start in range(0, len(used), batch_size):
        batch = np.asarray(images[used[start : start + batch_size]])
        grid = auxiliary(pad_batch(batch, batch_size))[: len(batch)]
        features.append(np.asarray(grid).reshape(len(batch), -1, grid.shape[-1]))
    chosen = np.concatenate(features)[place.reshape(bank.image.shape), np.maximum(bank.cell, 0)]
    return jnp.where(bank.valid[..., None], chosen, 0)


def _candidates(bank: Bank, target: Int[Array, ""]) -> dict[str, Any]:
    cells, _, prepared, valid = bank.candidates(bank.group(target))
    return {"candidates": cells, "prepared": prepared, "valid": valid}


@partial(jax.jit, static_argnames=("max_iterations", "chunk"))
def cve(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    **options: Any,
) -> Float[Array, "B n n"]:
    """What each edit of Goyal et al. added to p_Q, at the cell it replaced; explains Q.

    Args:
        clf: The classifier.
        images: float32 in [0, 1].
        classes: P; the edits do not depend on it.
        contrast_classes: Q, the class each image should be classified as.
        options: `bank` and those of `cve_edits`.

    Raises:
        InputError: A chunk below 1.
    """
    found = cve_counterfactuals(clf, images, contrast_classes, **options)
    return jax.vmap(partial(edit_map, n=found.cells.shape[1]))(found)


@partial(jax.jit, static_argnames=("share", "max_iterations", "chunk"))
def cve_semantic(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    **options: Any,
) -> Float[Array, "B n n"]:
    """As `cve`, with the edits of Vandenhende et al.; options of `cve_semantic_counterfactuals`."""
    found = cve_semantic_counterfactuals(clf, images, contrast_classes, **options)
    return jax.vmap(partial(edit_map, n=found.cells.shape[1]))(found)
