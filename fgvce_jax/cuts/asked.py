"""The images that every cut is asked about, and what is known of birds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fgvce_jax.cuts.config import CutsConfig
from fgvce_jax.data.birds import DIFFERING, Birds
from fgvce_jax.data.pipeline import warn_skipped
from fgvce_jax.errors import InputError
from fgvce_jax.inference import Predictor
from fgvce_jax.key.samples import class_numbers, viewed, viewed_masks
from fgvce_jax.models import Classifier
from fgvce_jax.run_inputs import RunInputs


class Asked(NamedTuple):
    """N images and what is asked of them; classes as the classifier numbers them.

    Attributes:
        index: In the split.
        images: As the classifier takes them, but for the division by 255.
        predicted, target: P and Q.
    """

    index: Int[np.ndarray, "N"]
    images: UInt8[np.ndarray, "N S S 3"]
    predicted: Int[np.ndarray, "N"]
    target: Int[np.ndarray, "N"]

    @property
    def pixels(self) -> Float[np.ndarray, "N S S 3"]:
        """The images in [0, 1]."""
        return self.images / np.float32(255)


class Truth(NamedTuple):
    """What is known of N birds.

    Attributes:
        twins: Each bird as one of the other class: of Q or, where Q is true, of P.
        part: The visible pixels of the part in which P and Q differ, in the image or in the twin;
            none where they differ in several.
    """

    twins: UInt8[np.ndarray, "N S S 3"]
    part: Bool[np.ndarray, "N S S"]


def ask(config: CutsConfig, inputs: RunInputs) -> Asked:
    """The first images of the split that are misclassified, or correct, as the config says.

    InputError where there is none.
    """
    predictor, found, left = Predictor(inputs.clf, config.batch_size), [], config.images
    indices = np.arange(len(inputs.labels))
    for batch in predictor.batches(inputs.dataset, indices, warn_skipped):
        _, logits = predictor(batch)
        labels = inputs.labels[batch.index]
        second, said = np.argsort(logits, axis=-1).astype(np.int32).T[-2:]
        of_mistakes = config.asked == "mistakes"
        at = np.flatnonzero((said != labels) == of_mistakes)[:left]
        target = labels if of_mistakes else second
        found.append((batch.index[at], batch.image[at], said[at], target[at]))
        left -= len(at)
        if not left:
            break
    asked = Asked(*map(np.concatenate, zip(*found, strict=True)))
    if not len(asked.index):
        kind = "misclassified" if config.asked == "mistakes" else "correctly classified"
        raise InputError(f"split {config.split}: expected some {kind} images, got none")
    return asked


def truth_of(clf: Classifier, birds: Birds, asked: Asked) -> Truth:
    """Twins and parts; InputError where the classifier has other classes than the birds."""
    number = class_numbers(clf)
    predicted, target = (np.argsort(number)[of] for of in (asked.predicted, asked.target))
    other = np.where(birds.labels[asked.index] == predicted, target, predicted)
    own, twins = birds.render_batch(asked.index), birds.twins(asked.index, other)
    differing = DIFFERING[predicted, target]
    differing = differing & (differing.sum(1, keepdims=True) == 1)
    masks = viewed_masks(own["part_masks"] | twins["part_masks"], clf)
    part = np.any(masks & differing[:, :, None, None], axis=1)
    return Truth(viewed(twins["image"], clf), part)
