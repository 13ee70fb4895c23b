"""Single deletion: does a map rank the parts as the network does? (FunnyBirds, ICCV 2023.)

A part is worth to the network the drop of the class's logit when the part is left out of the image,
and to a map the sum of the map inside the part.
"""

from __future__ import annotations

from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.metrics.maps import at_pixels
from fgvce_jax.metrics.spearman import spearman


def logit_drops(
    logits: Float[Array, "K"],
    ablated_logits: Float[Array, "M K"],
    class_index: int | Int[Array, ""],
) -> Float[Array, "M"]:
    """True importance of every part: the drop of the class's logit without it, of either sign.

    Args:
        logits: Of the image.
        ablated_logits: Of the image without each part.
        class_index: The class that is explained.
    """
    return logits[class_index] - ablated_logits[:, class_index]


def part_sums(values: Float[Array, "m m"], part_masks: Bool[Array, "M H W"]) -> Float[Array, "M"]:
    """Importance of every part to a map: its sum over the part's pixels, of either sign.

    Args:
        values: The map; it is upsampled bilinearly and not clipped.
        part_masks: The visible pixels of each part.
    """
    _, height, width = part_masks.shape
    return (at_pixels(values, (height, width)) * part_masks).sum((1, 2))


def single_deletion(
    drops: Float[Array, "M"], values: Float[Array, "m m"], part_masks: Bool[Array, "M H W"]
) -> Float[Array, ""]:
    """Spearman's rank correlation of true importance and the map's, over the visible parts.

    In [-1, 1]; NaN where fewer than two parts are visible or either is the same for all of them.

    Args:
        drops: True importance of the parts, from `logit_drops`.
        values: The map of the class that the drops belong to.
        part_masks: The visible pixels of each part; a part without any is left out.
    """
    return spearman(drops, part_sums(values, part_masks), part_masks.any((1, 2)))
