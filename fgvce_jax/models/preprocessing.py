"""How images are brought to a network: what its weights were evaluated with, by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgvce_jax.models.architecture import Architecture

PUBLISHED = "as the published weights of this network are evaluated"


@dataclass(frozen=True)
class Preprocessing:
    """From a photograph to a network's input.

    Attributes:
        image_size: Side of the input in pixels.
        resize_to: To which the short side is resized before the centre is cut out; None resizes
            the whole image to a square.
        mean: Per channel, in units of [0, 1]; None is the architecture's.
        std: Likewise.
        source: Where this is from, for the user.
    """

    image_size: int
    resize_to: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    source: str

    def __str__(self) -> str:
        side = self.image_size
        if self.resize_to is None:
            taken = f"the whole image resized to {side} x {side} px"
        else:
            taken = f"short side resized to {self.resize_to} px, centre of {side} x {side} px"
        numbers = [
            " ".join(f"{value:.4g}" for value in c) for c in (self.mean or (), self.std or ())
        ]
        return f"{taken}, mean {numbers[0]}, std {numbers[1]}"


def published(known: Architecture, trained_size: int | None = None) -> Preprocessing:
    """What an architecture's published weights were evaluated with.

    Args:
        known: The architecture.
        trained_size: The side of the images that the weights themselves ask for; at another than
            the architecture's own, images are cut out without a border, as is usual there.
    """
    size, resize_to = known.evaluated
    if trained_size is not None and trained_size != size:
        size = resize_to = trained_size
    return Preprocessing(size, resize_to, known.mean, known.std, PUBLISHED)
