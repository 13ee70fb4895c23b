"""Controls: answers without knowledge, the truth, and classifiers that know nothing.

A method that scores on random weights as before does not look at the network (Adebayo et al.,
"Sanity Checks for Saliency Maps", NeurIPS 2018).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fgvce_jax.config import SearchConfig
from fgvce_jax.key.explainers import Answer, Edits, Explainer
from fgvce_jax.key.network import Network
from fgvce_jax.key.samples import Samples
from fgvce_jax.methods.fgvce import fgvce_edits
from fgvce_jax.metrics import truly_changed
from fgvce_jax.models import Classifier, build, named
from fgvce_jax.models.named import with_named
from fgvce_jax.models.spec import require_spec


def _random_cells(network: Network, batch: Samples) -> Answer:
    """Cells in a random order, a sample's the same whatever the batch; the paper's candidates."""
    n = batch.change.shape[-1]
    orders = np.stack([np.random.default_rng(i).permutation(n * n) + 1.0 for i in batch.index])
    orders = orders.astype(np.float32) / (n * n)
    candidates = network.bank().for_targets(batch.target)
    question = network.clf, batch.pixels, batch.target, candidates, SearchConfig()
    found = fgvce_edits(*question, orders)
    return Answer(orders.reshape(-1, n, n), Edits.of(found))


def _random_class(network: Network, batch: Samples) -> Answer:
    """The paper's search for Q among the candidates of a class that is neither P nor Q."""
    classes = []
    for index, p, q in zip(batch.index, batch.predicted, batch.target, strict=True):
        others = np.setdiff1d(np.arange(network.clf.num_classes), [p, q])
        classes.append(np.random.default_rng(index).choice(others))
    candidates = network.bank().for_targets(np.array(classes, np.int32))
    found = fgvce_edits(network.clf, batch.pixels, batch.target, candidates, SearchConfig())
    return Answer(edits=Edits.of(found))


@partial(jax.jit, static_argnames="n")
def _oracle_edits(clf: Classifier, images, twins, change, target, n: int) -> Edits:
    """The twin's cells in the place of those that truly changed, the most changed first."""
    feature_map, twin_map = clf.feature_map(images), clf.feature_map(twins)
    changed = jax.vmap(truly_changed)(change)
    cells = jnp.where(changed[..., None], twin_map.cells, feature_map.cells)
    order = jnp.argsort(-change.reshape(-1, n * n), axis=-1, stable=True)
    count = changed.sum((1, 2))
    used = jnp.arange(n * n) < count[:, None]
    predicted = clf.logits(feature_map._replace(cells=cells)).argmax(-1)
    edit_cell = jnp.where(used, order, -1).astype(jnp.int32)
    return Edits(edit_cell, cells, count, predicted == target)


def _oracle(network: Network, batch: Samples) -> Answer:
    asked = batch.pixels, batch.twin_pixels, batch.change, batch.target
    edits = _oracle_edits(network.clf, *asked, n=batch.change.shape[-1])
    return Answer(batch.change, edits)


CONTROLS: dict[str, Explainer] = {
    "random_cells": Explainer("random cells", "P", _random_cells, _random_cells),
    "random_class": Explainer("candidates of a random class", "P", _random_class, _random_class),
    "oracle": Explainer("oracle", "P", _oracle, _oracle),
}
"""What a measure says of no knowledge and of the truth; they stand in every table."""


# --- random weights -----------------------------------------------------------------------------

_MOST_STEPS = 4  # of the backbone, however many blocks it has
_BLOCK = re.compile(r"^(layer\d+|stages?\.\d+|blocks\.\d+|features\.\d+)\b")


def randomised(clf: Classifier, seed: int = 0) -> Iterator[tuple[str, Classifier]]:
    """The classifier with fresh weights in its head, then from there down to its first layer.

    Each is named by the lowest stage that is fresh: "head", a block or stage, "all".

    Raises:
        InputError: A classifier of the user's own functions, whose layers are not known.
    """
    spec, key = require_spec(clf), jax.random.key(seed)
    fresh = named(build(spec, clf.num_classes, clf.image_size, key))
    fresh = {name: _not_zero(name, array) for name, array in fresh.items()}
    weights = named(clf)
    for stage, names in _stages(clf).items():
        weights |= {name: fresh[name] for name in names}
        yield stage, with_named(clf, weights)


def _not_zero(name: str, array: Array) -> Array:
    """A scale of 1 where a network starts with 0, by which a branch would add nothing."""
    return jnp.where(array.any() | ("scale" not in name), array, 1)


def _stages(clf: Classifier) -> dict[str, list[str]]:
    """The names of the weights by stage, the head first."""
    names = [name for name in named(clf) if name not in ("mean", "std")]
    leaves = jax.tree_util.tree_leaves_with_path(clf)
    of_head = {
        name
        for name, (path, _) in zip(named(clf), leaves, strict=True)
        if jax.tree_util.keystr(path[:1]) == ".head"
    }
    found = {name: match[0] for name in names if (match := _BLOCK.match(name))}
    blocks = sorted(set(found.values()), key=_number, reverse=True)
    steps = [part.tolist() for part in np.array_split(blocks, min(_MOST_STEPS, len(blocks)))]
    out = {"head": [name for name in names if name in of_head]}
    for step in steps:
        out[step[-1]] = [n for n in names if found.get(n) in step and n not in of_head]
    taken = set().union(*out.values())
    return out | {"all": [name for name in names if name not in taken]}


def _number(block: str) -> int:
    (digits,) = re.findall(r"\d+", block)
    return int(digits)
