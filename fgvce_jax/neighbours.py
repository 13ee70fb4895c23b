"""The reference images nearest to an image in feature space, and the classes they are of.

An image's feature is the mean of its cells, a reference's the mean of its cells in the bank; both
are centred on the references' mean and compared by the cosine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.bank import Bank

NEIGHBOURS = 10


class References(NamedTuple):
    """The reference images of a bank.

    Attributes:
        feature: Unit vectors, float32 [R, C].
        label: The class of each, int32 [R].
        mean: Of the features before they were centred, float32 [C].
    """

    feature: Float[np.ndarray, "R C"]
    label: Int[np.ndarray, "R"]
    mean: Float[np.ndarray, "C"]


def reference_features(bank: Bank) -> References | None:
    """The references of a bank; None where it does not hold which class each is of."""
    if bank.config.reference != "class":
        return None
    group, cells = np.asarray(bank.group), np.asarray(bank.cells)
    features, labels = [], []
    for label in np.flatnonzero(group >= 0):
        images = np.asarray(bank.image[group[label]])
        for image in np.unique(images[images >= 0]):
            features.append(cells[group[label]][images == image].mean(0))
            labels.append(label)
    stacked = np.stack(features)
    mean = stacked.mean(0)
    return References(_unit(stacked - mean), np.array(labels, np.int32), mean)


def nearest_classes(
    references: References, cells: Float[np.ndarray, "B n n C"], k: int = NEIGHBOURS
) -> Int[np.ndarray, "B k"]:
    """The classes of the k references most similar to each image, the nearest first."""
    queries = _unit(np.asarray(cells).mean((1, 2)) - references.mean)
    order = np.argsort(-queries @ references.feature.T, axis=1, kind="stable")
    return references.label[order[:, :k]]


def _unit(vectors: Float[np.ndarray, "M C"]) -> Float[np.ndarray, "M C"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
