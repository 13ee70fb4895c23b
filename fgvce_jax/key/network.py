"""A classifier under test, and its banks of candidates from the pictures that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.bank import Bank, build_bank
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.data.birds import CHUNK, Birds
from fgvce_jax.key.samples import class_numbers, viewed
from fgvce_jax.models import Classifier

PER_CLASS = 20
_TOGETHER = 50


class _References:
    """The pictures that classifiers are trained on, a chunk rendered when it is first wanted."""

    def __init__(self, clf: Classifier):
        self.clf, self.birds = clf, Birds("train")
        self.labels = class_numbers(clf)[self.birds.labels]
        self._chunks: dict[int, np.ndarray] = {}

    def images(self, indices: Int[np.ndarray, "B"]) -> Float[np.ndarray, "B S S 3"]:
        """As the classifier takes them."""
        for number in np.unique(indices // CHUNK).tolist():
            if number not in self._chunks:
                chunk = np.arange(number * CHUNK, (number + 1) * CHUNK)
                self._chunks[number] = viewed(self.birds.images(chunk), self.clf)
        pixels = np.stack([self._chunks[i // CHUNK][i % CHUNK] for i in indices.tolist()])
        return pixels / np.float32(255)

    def loader(
        self, index: Int[np.ndarray, "M"]
    ) -> Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]:
        """`build_bank`'s view of the pictures at `index`, numbered anew."""

        def load(places):
            for start in range(0, len(places), _TOGETHER):
                part = np.asarray(places[start : start + _TOGETHER])
                yield part, self.images(index[part])

        return load


class Network:
    """A classifier under test, and its banks of candidates, made when they are first asked for.

    Args:
        clf: The classifier.
        trained: That from whose references the banks are made where `clf` has random weights.
    """

    def __init__(self, clf: Classifier, trained: Network | None = None):
        self.clf, self.trained = clf, trained
        self._banks: dict[tuple[int | None, float], Bank] = {}
        self.references: _References = trained.references if trained else _References(clf)

    def bank(self, top_m: int | None = BankConfig.top_m, sigma: float = SearchConfig.sigma) -> Bank:
        """The best `top_m` cells of 20 pictures of every class (all cells, if it is None)."""
        kind = top_m, sigma
        if kind not in self._banks:
            config = BankConfig(PER_CLASS, top_m, sigma=sigma)
            labels, trained = self.references.labels, self.trained
            index = np.arange(len(labels))
            if trained is not None:
                used = trained.bank(top_m, sigma)
                index = np.unique(used.image[used.valid])
            self._banks[kind] = build_bank(
                self.clf,
                self.references.loader(index),
                labels[index],
                config,
                batch_size=_TOGETHER,
                correct=trained is None,
            )
        return self._banks[kind]
