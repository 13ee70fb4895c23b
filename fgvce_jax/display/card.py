"""All that is shown of one explanation, whatever it is drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True, eq=False)
class ShownEdit:
    """One replaced cell.

    Attributes:
        cell: The cell of the image, row-major.
        candidate_cell: The cell that took its place, in its reference image.
        similarity: Cosine similarity of the two.
        reference: That image, as the classifier sees it; None where it is not at hand.
    """

    cell: int
    candidate_cell: int
    similarity: float
    reference: UInt8[np.ndarray, "S S 3"] | None = None


@dataclass(frozen=True, eq=False)
class Card:
    """Why an image is P and not Q.

    Attributes:
        image: As the classifier sees it.
        predicted, target: The names of P and Q.
        p_predicted: Probability of P before the first edit and after each.
        p_target: That of Q; likewise.
        invariant, dominant: The two maps, signed.
        edits: In order.
        flipped: Whether the edited image is classified as Q.
    """

    image: UInt8[np.ndarray, "S S 3"]
    predicted: str
    target: str
    p_predicted: Sequence[float]
    p_target: Sequence[float]
    invariant: Float[np.ndarray, "n n"]
    dominant: Float[np.ndarray, "n n"]
    edits: Sequence[ShownEdit]
    flipped: bool

    @property
    def n(self) -> int:
        """Cells along a side of the image."""
        return len(self.invariant)


def answer(
    predicted: str,
    target: str,
    p_predicted: Sequence[float],
    p_target: Sequence[float],
    cells: Sequence[int],
    n: int,
    flipped: bool,
) -> str:
    """An explanation in three lines: the two classes, what the edits did, where they are.

    The arguments are as in `Card`; `cells` are those replaced.
    """
    if predicted == target:
        return (
            f"predicted {predicted} ({p_predicted[0]:.2f}), the class asked about: no edit needed"
        )
    count = len(cells)
    edits = f"{count} edit{'s' * (count != 1)} of {n * n} cells"
    effect = f"flipped by {edits}" if flipped else f"not flipped by {edits}"
    rows = ", ".join(f"({cell // n}, {cell % n})" for cell in cells[:8]) + ", ..." * (count > 8)
    return "\n".join(
        [
            f"predicted {predicted} ({p_predicted[0]:.2f}), not {target} ({p_target[0]:.2f})",
            f"{effect}: {target} {p_target[0]:.2f} -> {p_target[-1]:.2f}, "
            f"{predicted} {p_predicted[0]:.2f} -> {p_predicted[-1]:.2f}",
            f"cells replaced, by row and column: {rows or 'none'}",
        ]
    )
