"""The scores of an answer, of every sample (see `fgvce_jax.metrics`)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.key.explainers import Answer, Edits
from fgvce_jax.key.samples import Samples
from fgvce_jax.metrics import (
    at_cells,
    average_precision,
    counterfactual_distance,
    edit_order,
    edits_in_part,
    localisation,
    single_deletion,
    truly_changed,
)
from fgvce_jax.models import Classifier


class Measure(NamedTuple):
    """A column: its title, its unit, and whether a high value is good (None: neither)."""

    title: str
    percent: bool = True
    high: bool | None = True


OF_EDITS = {
    "edit_changed": Measure("First edit in the true change, %"),
    "edit_in_part": Measure("First edit in the part, %"),
    "edits_in_part": Measure("Edits in the part, %"),
    "edit_precision": Measure("AP of the edits, %"),
    "distance": Measure("Counterfactual distance", percent=False, high=False),
    "edits": Measure("Edits, median", percent=False, high=None),
    "flipped": Measure("Flipped, %"),
}
OF_MAPS = {
    "peak_in_part": Measure("Peak in the part, %"),
    "energy": Measure("Energy in the part, %"),
    "peak_changed": Measure("Peak in the true change, %"),
    "precision": Measure("AP of the map, %"),
    "single_deletion": Measure("Single deletion", percent=False),
}
MEASURES = OF_EDITS | OF_MAPS
"""Of all of them every sample has a score, NaN where it is not defined."""


def scores_of(
    clf: Classifier, answer: Answer, batch: Samples, explains: str
) -> dict[str, np.ndarray]:
    """The scores of a batch, float32 [B] each.

    Args:
        clf: The classifier that the key is about, trained.
        answer: Maps, edits or both.
        batch: The samples.
        explains: The class of the maps, P or Q.
    """
    out: dict[str, np.ndarray] = {}
    if answer.edits is not None:
        edits = Edits(*map(jnp.asarray, answer.edits))
        out |= jax.device_get(_of_edits(clf, edits, batch))
    if answer.maps is not None:
        maps = jnp.asarray(answer.maps, jnp.float32)
        drops = batch.drops[:, "PQ".index(explains)]
        out |= jax.device_get(_of_maps(maps, drops, batch))
    return out


@jax.jit
def _of_edits(clf, edits, batch):
    n = batch.change.shape[-1]
    scores = jax.vmap(partial(edit_scores, n=n))(edits.edit_cell, batch.change, batch.part)
    cells = clf.feature_map(batch.pixels).cells
    twin_cells = clf.feature_map(batch.twin_pixels).cells
    distance = jax.vmap(counterfactual_distance)(cells, edits.cells, twin_cells)
    # A mistake's twin is a bird of P: there is no picture that the edits towards Q should reach.
    right = ~batch.settings[:, 0] & batch.part.any((1, 2))
    return scores | {
        "distance": jnp.where(right, distance, jnp.nan),
        "edits": edits.num_edits.astype(jnp.float32),
        "flipped": edits.flipped.astype(jnp.float32),
    }


def edit_scores(edit_cell, change, part, n):
    """The scores of one sample's edits that need no features."""
    changed = truly_changed(change)
    inside = edits_in_part(edit_cell, part, n)
    used = edit_cell >= 0
    first = changed.reshape(-1)[edit_cell[0]].astype(jnp.float32)
    precision = average_precision(edit_order(edit_cell, n), changed)
    # Without an edit there is neither a first one nor an order, and where the part is hidden a
    # picture and its twin are the same but for rounding.
    scored = used[0] & part.any()
    return {
        "edit_changed": jnp.where(scored & changed.any(), first, jnp.nan),
        "edit_in_part": inside[0],
        "edits_in_part": jnp.where(scored, jnp.nanmean(inside), jnp.nan),
        "edit_precision": jnp.where(scored, precision, jnp.nan),
    }


@jax.jit
def _of_maps(maps, drops, batch):
    n = batch.change.shape[-1]
    return jax.vmap(partial(map_scores, n=n))(
        maps, batch.change, batch.part, batch.part_masks, drops
    )


def map_scores(values, change, part, part_masks, drops, n):
    """The scores of one sample's map; all NaN where it holds one."""
    changed = truly_changed(change) & part.any()
    whole = jnp.isfinite(values).all()
    values = jnp.where(whole, values, 0)
    located = localisation(values, part[None], jnp.ones(1, bool), n)
    cells = jnp.maximum(at_cells(values, n), 0)
    peak = changed.reshape(-1)[jnp.argmax(cells)] & cells.any()
    scores = {
        "peak_in_part": located.hit,
        "energy": located.energy,
        "peak_changed": jnp.where(changed.any(), peak.astype(jnp.float32), jnp.nan),
        "precision": average_precision(cells, changed),
        "single_deletion": single_deletion(drops, values, part_masks),
    }
    return {name: jnp.where(whole, score, jnp.nan) for name, score in scores.items()}


def chance(batch: Samples) -> dict[str, np.ndarray]:
    """The shares that a random cell, or a uniform map, has of every sample."""
    n = batch.change.shape[-1]
    changed = np.asarray(jax.vmap(truly_changed)(jnp.asarray(batch.change))).mean((1, 2))
    changed = np.where((changed > 0) & batch.part.any((1, 2)), changed, np.nan)

    @jax.jit
    @jax.vmap
    def shares(part):
        of_cells = edits_in_part(jnp.arange(n * n), part, n).mean()
        return of_cells, localisation(jnp.ones((n, n)), part[None], jnp.ones(1, bool), n).area

    in_part, of_pixels = map(np.asarray, shares(batch.part))
    return {
        "edit_changed": changed,
        "peak_changed": changed,
        "edit_precision": changed,
        "precision": changed,
        "edit_in_part": in_part,
        "edits_in_part": in_part,
        "peak_in_part": of_pixels,
        "energy": of_pixels,
    }
