"""The result of `explain`: why the prediction is P and not Q, and how it shows itself."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.display.card import Card, ShownEdit, answer
from fgvce_jax.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CARDS = 4  # that a notebook draws of a batch


@dataclass(frozen=True, eq=False)
class Seen:
    """The pictures and names behind an explanation's numbers.

    Attributes:
        images: As the classifier was given them, float [B, S, S, 3] in [0, 1]; of one explanation
            [S, S, 3].
        class_names: The classifier's.
        bank: The candidates.
    """

    images: Any
    class_names: Sequence[str]
    bank: Bank


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why the prediction is P and not Q, for a batch; T = min(max_iterations, n^2).

    `out[i]` is the explanation of one image: its fields lack the axis B, it prints as three lines,
    and `out[i].plot()` draws it, as a notebook does by itself.

    Attributes:
        predicted: P, the class that is predicted, int32 [B].
        target: Q, the correct class, int32 [B].
        flipped: Whether the edited feature map is classified as Q, bool [B]: true as well where the
            image itself is (P = Q) and nothing was edited. `flipped & (num_edits > 0)` are the
            predictions that edits changed.
        num_edits: Replaced cells, int32 [B]; 0 where P = Q, and where the bank has no candidate.
        edit_cell: The cell of each edit in order, row-major, int32 [B, T], -1 where unused.
        edit_candidate: The bank's candidate that replaced it, int32 [B, T], -1 where unused.
        edit_similarity: Cosine similarity of the two, float32 [B, T], 0 where unused.
        p_predicted: Probability of P before the first edit and after each, float32 [B, T + 1]; the
            last value is repeated to the end.
        p_target: Probability of Q; likewise.
        contributions_before: Each cell's contribution to P in the image, [B, n, n], in [-1, 1]; of
            `evidence="margin"`, to the logit of P less that of Q; of "matched", what such a cell
            holds of that in P's references and less in Q's.
        contributions_after: Each cell's contribution to Q (over P) after the edits, [B, n, n].
        invariant: Map of the evidence for P that was replaced (Eq. 10), [B, n, n], signed.
        dominant: Map of the evidence for Q that replaced it (Eq. 11), [B, n, n], signed.
    """

    predicted: Int[Array, "B"]
    target: Int[Array, "B"]
    flipped: Bool[Array, "B"]
    num_edits: Int[Array, "B"]
    edit_cell: Int[Array, "B T"]
    edit_candidate: Int[Array, "B T"]
    edit_similarity: Float[Array, "B T"]
    p_predicted: Float[Array, "B T+1"]
    p_target: Float[Array, "B T+1"]
    contributions_before: Float[Array, "B n n"]
    contributions_after: Float[Array, "B n n"]
    invariant: Float[Array, "B n n"]
    dominant: Float[Array, "B n n"]

    # No field: what JAX does to an explanation, it does to the numbers alone.
    seen: ClassVar[Seen | None] = None

    def with_seen(self, seen: Seen) -> Explanation:
        """The same explanation, which can be drawn."""
        copy = jax.tree.map(lambda leaf: leaf, self)
        object.__setattr__(copy, "seen", seen)
        return copy

    def __len__(self) -> int:
        """B."""
        if not np.ndim(self.predicted):
            raise TypeError("the explanation of one image has no length")
        return len(self.predicted)

    def __getitem__(self, index: SupportsIndex | slice) -> Explanation:
        """The explanation of one image, or those of some."""
        if not isinstance(index, slice) and not -len(self) <= operator.index(index) < len(self):
            raise IndexError(f"explanation {index} of {len(self)}")
        part = jax.tree.map(lambda leaf: leaf[index], jax.device_get(self))
        seen = self.seen
        if seen is None:
            return part
        return part.with_seen(Seen(np.asarray(seen.images)[index], seen.class_names, seen.bank))

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self, is_leaf=lambda leaf: leaf is None)
        held = (np.ndarray, np.generic, jax.Array)
        if not all(isinstance(leaf, held) and not isinstance(leaf, Tracer) for leaf in leaves):
            return object.__repr__(self)  # of a transformation's placeholders
        return self._of_batch() if np.ndim(self.predicted) else self._of_one()

    def _repr_html_(self) -> str | None:
        """The card of one image, or of a batch's first few whose prediction is not the target.

        None, which leaves a notebook the text, where the images are not known.
        """
        from fgvce_jax.display.html import card_html

        if self.seen is None:
            return None
        if not np.ndim(self.predicted):
            return card_html(self.card())
        asked = np.flatnonzero(np.asarray(self.predicted) != np.asarray(self.target))
        cards = [card_html(self[i].card()) for i in asked[:_MOST_CARDS]]
        return "".join([*cards, f"<pre>{self!r}</pre>"])

    def plot(self, max_edits: int = 5) -> Figure:
        """The card of one image as a matplotlib figure, with the first `max_edits` edits.

        A notebook shows it; `plot().savefig("why.png")` keeps it. InputError as for `card`.
        """
        from fgvce_jax.display.figure import card_figure

        return card_figure(self.card(), max_edits)

    def card(self) -> Card:
        """All that is drawn of one image.

        InputError for a batch, or where the images are not known: an explanation that went through
        a JAX transformation is numbers alone.
        """
        if np.ndim(self.predicted):
            raise InputError(f"explanation: expected one, as out[0], got {len(self)} of a batch")
        if self.seen is None:
            raise InputError("explanation: expected one that `explain` returned, with its images")
        one, names = jax.device_get(self), self.seen.class_names
        count = int(one.num_edits)
        pixels = np.asarray(self.seen.images)
        return Card(
            image=np.round(pixels * 255).astype(np.uint8),
            predicted=names[int(one.predicted)],
            target=names[int(one.target)],
            p_predicted=one.p_predicted[: count + 1].tolist(),
            p_target=one.p_target[: count + 1].tolist(),
            invariant=one.invariant,
            dominant=one.dominant,
            edits=[self._edit(k) for k in range(count)],
            flipped=bool(one.flipped),
        )

    def _edit(self, k: int) -> ShownEdit:
        assert self.seen is not None
        bank = self.seen.bank
        images, cells = bank.provenance(int(self.target))
        candidate = int(self.edit_candidate[k])
        reference = None if bank.pictures is None else bank.pictures(int(images[candidate]))
        similarity = float(self.edit_similarity[k])
        return ShownEdit(int(self.edit_cell[k]), int(cells[candidate]), similarity, reference)

    def _name(self, k: Any) -> str:
        return f"class {int(k)}" if self.seen is None else self.seen.class_names[int(k)]

    def _of_one(self) -> str:
        count, n = int(self.num_edits), len(self.invariant)
        p, q = (np.asarray(p)[: count + 1].tolist() for p in (self.p_predicted, self.p_target))
        cells = np.asarray(self.edit_cell)[:count].tolist()
        names = self._name(self.predicted), self._name(self.target)
        return answer(*names, p, q, cells, n, bool(self.flipped))

    def _of_batch(self) -> str:
        wrong = np.asarray(self.predicted) != np.asarray(self.target)
        flipped = wrong & np.asarray(self.flipped)
        edits, n = np.asarray(self.num_edits)[flipped], np.shape(self.invariant)[-1]
        spread = f"median {np.median(edits):.0f}, most {edits.max()}" if len(edits) else "none"
        return (
            f"{len(self)} images, {wrong.sum()} predicted as another class than the target, "
            f"{flipped.sum()} of them flipped\n"
            f"edits of those: {spread}, of {n * n} cells\n"
            "out[i] is one of them, out[i].plot() its card"
        )
