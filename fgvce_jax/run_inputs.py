"""The classifier and the two splits of a run, opened and matched, with their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from fgvce_jax.config import DataConfig, ExplainConfig
from fgvce_jax.data import open_dataset
from fgvce_jax.data.example import Dataset
from fgvce_jax.data.labels import dataset_fingerprint, match_labels
from fgvce_jax.errors import InputError
from fgvce_jax.files import fingerprint
from fgvce_jax.models import Classifier, open_classifier
from fgvce_jax.progress import notify


@dataclass(frozen=True)
class RunInputs:
    """All that a run reads; labels are classes as the classifier numbers them.

    Attributes:
        clf: The classifier, in the run's precision, with the dataset's class names if it had none.
        dataset: The split that is explained.
        labels: Of the images in it.
        references: The split that candidates come from.
        reference_labels: Of the images in it.
        classes: The classifier's number of each class of the dataset, by its name there; empty
            where it was not opened to be explained.
        notes: Lines for the user on how the data was read and matched.
    """

    clf: Classifier
    dataset: Dataset
    labels: Int[np.ndarray, "N"]
    references: Dataset
    reference_labels: Int[np.ndarray, "M"]
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def asked(self, pairs: str) -> Int[np.ndarray, "k"]:
        """The classes that can be a target Q (`ExplainConfig.pairs`), ascending.

        Those of the split's images; of a pair of confused classes, any that occurs.
        """
        if pairs == "misclassified":
            return np.unique(self.labels)
        return np.union1d(self.labels, self.reference_labels)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the weights, with all that the classifier does to an image, and of both splits."""
        clf = self.clf
        return {
            "classifier": fingerprint(clf.spec, clf.image_size, clf.resize_to, weights_of(clf)),
            "dataset": dataset_fingerprint(self.dataset.ids, self.labels),
            "reference dataset": dataset_fingerprint(self.references.ids, self.reference_labels),
        }

    def to_send(self, config: ExplainConfig) -> SentInputs:
        """Them, as they travel to another process."""
        names = self.clf.class_names
        clf = None if config.model.factory else jax.device_get(self.clf)
        return SentInputs(config, clf, names, self.labels, self.reference_labels, self.fingerprints)


def weights_of(clf: Classifier) -> Any:
    """All arrays of a classifier; of functions of the user's own also those that they capture."""
    if clf.spec is not None:
        return clf
    size = clf.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.make_jaxpr(lambda images: clf(images))(images).consts


@dataclass(frozen=True)
class SentInputs:
    """Inputs on their way to another process: the images stay, and are opened again there.

    Attributes:
        config: Of the run.
        clf: The classifier, with NumPy's arrays; None where each process asks the factory for it.
        class_names: Its class names.
        labels, reference_labels: As in `RunInputs`.
        fingerprints: Of the inputs.
    """

    config: ExplainConfig
    clf: Classifier | None
    class_names: tuple[str, ...]
    labels: Int[np.ndarray, "N"]
    reference_labels: Int[np.ndarray, "M"]
    fingerprints: dict[str, str]

    def open(self) -> RunInputs:
        """The inputs again; InputError where others are found than those they were made of.

        Without this an image that is missing would be skipped as if it were damaged.
        """
        config, clf = self.config, jax.tree.map(jnp.asarray, self.clf)
        if clf is None:
            clf = replace(_open_classifier(config), class_names=self.class_names)
        dataset, references = open_splits(config.data, config.split, config.reference_split)
        found = {
            "dataset": dataset_fingerprint(dataset.ids, self.labels),
            "reference dataset": dataset_fingerprint(references.ids, self.reference_labels),
        }
        for name, value in found.items():
            if value != self.fingerprints[name]:
                where = config.data.path or config.data.name
                raise InputError(f"{where}: holds another {name}, expected that of the driver")
        opened = RunInputs(clf, dataset, self.labels, references, self.reference_labels)
        if self.clf is None and opened.fingerprints != self.fingerprints:
            raise InputError(
                f"model.factory {config.model.factory}: makes other weights than for the driver"
            )
        return opened


def open_inputs(config: ExplainConfig) -> RunInputs:
    """Open what a config names.

    Raises:
        InputError: Something is not there, cannot be read, or has classes that the other has not.
    """
    clf = _open_classifier(config)
    dataset, references = open_splits(config.data, config.split, config.reference_split)
    matched = match_labels(dataset, clf, config.data.class_map)
    notes = (*getattr(dataset, "notes", ()), *filter(None, [matched.note]))
    for note in notes:
        notify(note)
    clf = replace(clf, class_names=matched.class_names)
    labels = match_labels(references, clf, config.data.class_map).labels
    return RunInputs(clf, dataset, matched.labels, references, labels, matched.classes, notes)


def _open_classifier(config: ExplainConfig) -> Classifier:
    """The config's classifier in its precision."""
    clf = open_classifier(config.model)
    return clf if config.dtype == "float32" else clf.astype(config.dtype)


def open_splits(data: DataConfig, *splits: str) -> list[Dataset]:
    """Splits of a config's dataset."""
    options = {"max_pixels": data.max_pixels, "test_share": data.test_share}
    return [open_dataset(data.name, split, data.path, **options) for split in splits]


def preprocessing(clf: Classifier) -> dict[str, Any]:
    """What an image goes through before the network, as JSON values; `text` is a line of it.

    `mean` and `std` are of the values in [0, 1], None where the features are a user's function.
    """
    size, short = clf.image_size, clf.resize_to
    channels = {name: getattr(clf.features, name, None) for name in ("mean", "std")}
    values = {
        name: None if value is None else np.round(np.asarray(value, float), 6).tolist()
        for name, value in channels.items()
    }
    text = f"squashed to {size} x {size} pixels"
    if short is not None:
        text = f"short side to {short} pixels, the central {size} x {size} cut out"
    for name, value in values.items():
        if value is not None:
            text += f", {name} {' '.join(f'{v:.3f}' for v in value)}"
    return {"text": text, "image_size": size, "resize_to": short, **values}
