"""Matched evidence: what the references of two classes show where the image shows this.

This project's own choice of the query cell. Two classes P and Q are told apart in the direction w
of their margin's gradient. Of every cell, the reference cells of P, and those of Q, that are most
like it in all other directions are looked up, wherever they lie; what they hold along w is what
such a place holds in a bird of P, or of Q. Where the two differ, the classes differ. Where they do
not, a cell is no reason, however much it adds to the margin: the background's cells, say.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.bank import Candidates
from fgvce_jax.heads import PooledLinear, SearchHead

TEMPERATURE = 0.03
"""Of the softmax over cosines that weighs the reference cells."""

OWN = 0.3
"""How much of P's side is the cell's own share of the margin, not its references'."""


def matched_evidence(
    head: SearchHead,
    cells: Float[Array, "n n C"],
    predicted: Int[Array, ""],
    target: Int[Array, ""],
    of_predicted: Candidates,
    of_target: Candidates,
) -> Float[Array, "cells"]:
    """How much more of the margin such a place holds in P than in Q, of every cell, row-major.

    OWN * w h_k + (1 - OWN) * E_P[w u] - E_Q[w u], in units of the logits, w the gradient of the
    margin z_P - z_Q with respect to the cell, and E an average over the references of a class,
    weighted by softmax(cosine / TEMPERATURE) of what u and h_k have apart from w.

    Args:
        head: The head of this image.
        cells: Its feature map.
        predicted: P.
        target: Q.
        of_predicted: Cells of P's references, all of them; where there is none, E_P is w h_k.
        of_target: Likewise of Q; where there is none, E_Q is 0.
    """
    flat = cells.reshape(-1, cells.shape[-1])

    def margin(flat: Float[Array, "cells C"]) -> Float[Array, ""]:
        logits = head.logits(head.rows(flat.reshape(cells.shape)))
        return logits[predicted] - logits[target]

    direction = jax.grad(margin)(flat)
    if isinstance(head, PooledLinear):
        direction = direction[:1]  # the same for all cells
    own = (flat * direction).sum(-1)
    in_p = expected(flat, direction, of_predicted)
    in_q = expected(flat, direction, of_target)
    in_p = jnp.where(of_predicted.valid.any(), in_p, own)
    return OWN * own + (1 - OWN) * in_p - in_q


def expected(
    flat: Float[Array, "cells C"], direction: Float[Array, "#cells C"], references: Candidates
) -> Float[Array, "cells"]:
    """The reference cells' part along `direction`, averaged over those like each cell otherwise."""
    length = jnp.linalg.norm(direction, axis=-1, keepdims=True)
    unit = direction / jnp.where(length > 0, length, 1)
    vectors, valid = references.cells, references.valid
    own, theirs = (flat * unit).sum(-1, keepdims=True), unit @ vectors.T
    product = flat @ vectors.T - own * theirs
    squared = (flat**2).sum(-1, keepdims=True), (vectors**2).sum(-1)[None]
    lengths = rest(squared[0], own) * rest(squared[1], theirs)
    alike = jnp.where(lengths > 0, product / jnp.where(lengths > 0, lengths, 1), 0)
    weight = jax.nn.softmax(alike / TEMPERATURE, axis=-1, where=valid)
    return length[:, 0] * jnp.where(valid, weight * theirs, 0).sum(-1)


def rest(squared: Float[Array, "#M #N"], along: Float[Array, "#M #N"]) -> Float[Array, "#M #N"]:
    """The lengths of what vectors have apart from a direction, from their squared lengths.

    Less than a thousandth of the vector is rounding, and 0.
    """
    left = squared - along**2
    return jnp.sqrt(jnp.where(left > 1e-6 * squared, left, 0))
