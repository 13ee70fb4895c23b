"""Why one image is P and not Q: `explain` for a photograph as it comes."""

from __future__ import annotations

from os import PathLike

import jax
import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.config import SearchConfig
from fgvce_jax.data.decode import read_image
from fgvce_jax.data.labels import class_number
from fgvce_jax.data.pipeline import preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.explain import at_cut, explain
from fgvce_jax.explanation import Explanation
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.progress import notify


def why(
    clf: Classifier,
    image: str | PathLike[str] | np.ndarray,
    bank: Bank,
    label: str | int | None = None,
    config: SearchConfig = SearchConfig(),
) -> Explanation:
    """Explain why an image is classified as P and not as `label`, or not as the runner-up.

    Args:
        clf: The classifier.
        image: A file; or pixels, uint8 [H, W, 3] of any size, which are prepared as the
            classifier's images are, or float [S, S, 3] in [0, 1], which are taken as they are.
        bank: Candidates, from `build_bank`.
        label: Q: a class's name, WordNet id or number. By default the most probable class but P
            of those that have references.
        config: The options of the search.

    Returns:
        The explanation of one image: it prints in three lines, `plot()` draws it.

    Raises:
        InputError: An image that cannot be read, a label that is no class of the classifier's or
            has no references, or whatever `explain` finds wrong.
    """
    pixels = as_seen(clf, image)
    target = label_of(clf, label)
    if target is None:
        target = runner_up(clf, bank, pixels)
    elif target in bank.missing():
        raise InputError(
            f"label {clf.class_names[target]!r}: expected a class with references, which are "
            f"of {_with_references(clf, bank)}"
        )
    return explain(clf, bank, pixels[None], np.array([target], np.int32), config)[0]


def as_seen(
    clf: Classifier, image: str | PathLike[str] | np.ndarray, id: str | None = None
) -> Float[np.ndarray, "S S 3"]:
    """An image as the classifier takes it; `why` has the forms that it may come in.

    UnreadableImage, under `id` or the file's name, for a file that is no image.
    """
    if not isinstance(image, np.ndarray):
        image = read_image(image, id or str(image))
    if np.issubdtype(image.dtype, np.floating):
        return image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(
            "image: expected a file, uint8 [H, W, 3] or float [S, S, 3] in [0, 1], got "
            f"{image.dtype} {list(image.shape)}"
        )
    return preprocess(image, clf.image_size, clf.resize_to) / np.float32(255)


def label_of(clf: Classifier, label: str | int | None) -> int | None:
    """The classifier's number of a label; InputError for one that it does not know."""
    if label is None:
        return None
    try:
        return class_number(str(label), clf.class_names)
    except InputError as error:
        raise InputError(f"label {label!r}: {error}") from error


def runner_up(clf: Classifier, bank: Bank, pixels: Float[np.ndarray, "S S 3"]) -> int:
    """The most probable class but the predicted one, of those that have references.

    A note tells where that is not the runner-up of all classes.
    """
    # As `explain` will ask for it, so that one program serves both.
    logits = np.asarray(clf.logits(at_cut(clf, pixels[None], jax.local_devices())))[0]
    order: Int[np.ndarray, "K"] = np.argsort(-logits, kind="stable")
    names, missing = clf.class_names, set(bank.missing())
    others = [int(k) for k in order[1:] if int(k) not in missing]
    if not others:
        raise InputError(
            f"label: none given, and {names[order[0]]}, which is predicted, is the only "
            "class with references; expected those of another"
        )
    if others[0] != order[1]:
        p = np.exp(logits - np.logaddexp.reduce(logits))
        notify(
            f"the runner-up {names[order[1]]} ({p[order[1]]:.2f}) has no references; the most "
            f"probable class that has is {names[others[0]]} ({p[others[0]]:.2f})"
        )
    return others[0]


def _with_references(clf: Classifier, bank: Bank) -> str:
    names = [clf.class_names[k] for k in np.flatnonzero(np.asarray(bank.references))]
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)
