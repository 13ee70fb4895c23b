"""Measures of explanations, a file each.

Every measure is written for one sample and batched by `jax.vmap`, but for insertion and deletion,
which fill whole forward passes with the steps of many maps.
"""

from fgvce_jax.metrics.compactness import compactness
from fgvce_jax.metrics.extent import Extent, extent
from fgvce_jax.metrics.faithfulness import Curves, faithfulness, score
from fgvce_jax.metrics.keypoints import keypoint_agreement, summarise_agreement
from fgvce_jax.metrics.localisation import Localisation, localisation
from fgvce_jax.metrics.maps import at_cells, at_pixels, unit

__all__ = [
    "Curves",
    "Extent",
    "Localisation",
    "at_cells",
    "at_pixels",
    "compactness",
    "extent",
    "faithfulness",
    "keypoint_agreement",
    "localisation",
    "score",
    "summarise_agreement",
    "unit",
]
