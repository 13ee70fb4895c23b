"""The change of the logits by each edit alone: enough to undo any of them without the network.

Where the logits are linear in the cells' rows, edits of different cells do not interact: the logits
after any subset of them are those before plus the changes of the subset.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.bank import Candidates
from fgvce_jax.heads import Head, PooledLinear


def why_not_linear(head: Head) -> str | None:
    """Why the logits are not linear in the rows of a head; None where they are."""
    if isinstance(head, PooledLinear):
        return None
    return f"the head ({type(head).__name__}) is not linear in the cells, so edits interact"


@jax.jit
def logit_changes(
    head: PooledLinear,
    candidates: Candidates,
    cells: Float[Array, "B n n C"],
    edit_cell: Int[Array, "B T"],
    edit_candidate: Int[Array, "B T"],
) -> tuple[Float[Array, "B K"], Float[Array, "B T K"]]:
    """The logits before the first edit, and the change by each edit; 0 where unused (-1)."""

    def one(
        cells: Float[Array, "n n C"],
        group: Int[Array, ""],
        cell: Int[Array, "T"],
        candidate: Int[Array, "T"],
    ) -> tuple[Float[Array, "K"], Float[Array, "T K"]]:
        rows, serving = head.rows(cells), candidates.serving(group)
        placed = jax.vmap(partial(_placed, head, serving))(cell, candidate)
        changes = (placed - rows[cell]) / len(rows)
        return head.logits(rows), jnp.where(cell[:, None] < 0, 0, changes)

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(cells, jnp.asarray(candidates.group), edit_cell, edit_candidate)


def _placed(
    head: PooledLinear, serving: Candidates, cell: Int[Array, ""], candidate: Int[Array, ""]
) -> Float[Array, "K"]:
    """The row of one candidate in the place of one cell."""
    vectors, prepared = (
        jax.tree.map(lambda leaf: leaf[candidate][None], held)
        for held in (serving.cells, serving.prepared)
    )
    return head.place(vectors, prepared, cell)[0]
