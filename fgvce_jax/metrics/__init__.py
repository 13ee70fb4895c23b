"""Measures of explanations, a file each.

Every measure is written for one sample and batched by `jax.vmap`, but for insertion and deletion,
which fill whole forward passes with the steps of many maps.
"""

from fgvce_jax.metrics.compactness import compactness
from fgvce_jax.metrics.distance import counterfactual_distance
from fgvce_jax.metrics.edits_in_part import edits_in_part
from fgvce_jax.metrics.extent import Extent, extent
from fgvce_jax.metrics.faithfulness import Curves, faithfulness, score
from fgvce_jax.metrics.importance import logit_drops, part_sums, single_deletion
from fgvce_jax.metrics.keypoints import (
    chance_agreement,
    keypoint_agreement,
    merged_sides,
    summarise_agreement,
)
from fgvce_jax.metrics.localisation import Localisation, localisation
from fgvce_jax.metrics.maps import at_cells, at_pixels, unit
from fgvce_jax.metrics.precision import average_precision, edit_order
from fgvce_jax.metrics.spearman import spearman
from fgvce_jax.metrics.true_change import true_change, truly_changed

__all__ = [
    "Curves",
    "Extent",
    "Localisation",
    "at_cells",
    "at_pixels",
    "average_precision",
    "chance_agreement",
    "compactness",
    "counterfactual_distance",
    "edit_order",
    "edits_in_part",
    "extent",
    "faithfulness",
    "keypoint_agreement",
    "localisation",
    "logit_drops",
    "merged_sides",
    "part_sums",
    "score",
    "single_deletion",
    "spearman",
    "summarise_agreement",
    "true_change",
    "truly_changed",
    "unit",
]
