"""Weights made with torch, turned into a checkpoint that describes itself (`fgvce port`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fgvce_jax.config import LARGEST_SIDE
from fgvce_jax.errors import InputError
from fgvce_jax.models.architecture import Architecture
from fgvce_jax.models.checkpoint import (
    holds,
    is_checkpoint,
    is_new,
    read_class_names,
    save_classifier,
)
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.convert import classifier_from_tensors
from fgvce_jax.models.description import check_channels
from fgvce_jax.models.hugging_face import Described, described
from fgvce_jax.models.positions import NAME as POSITIONS
from fgvce_jax.models.preprocessing import Preprocessing, published
from fgvce_jax.models.recognise import recognised
from fgvce_jax.models.spec import ModelSpec
from fgvce_jax.models.tensor_names import published_names
from fgvce_jax.models.weights_file import read_weights

CHOSEN = "as chosen"


def port(
    weights: str | Path,
    out: str | Path,
    arch: str | None = None,
    *,
    cut: str | None = None,
    image_size: int | None = None,
    resize_to: int | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    std: Sequence[float] | np.ndarray | None = None,
    class_names: str | Path | None = None,
) -> Classifier:
    """Turn weights into a checkpoint folder (`fgvce port`), and return its classifier.

    Args:
        weights: A .safetensors, .pth, .pt, .ckpt or .bin file, with names as torchvision's, timm's
            or Hugging Face's (all but the first need torch); or a folder of Hugging Face's, whose
            labels and preprocessing are taken too, as where config.json lies beside the file.
        out: Folder of the checkpoint. The same checkpoint there already is simply left.
        arch: The architecture, as resnet50; a wrong name lists them all. By default it is found
            from the tensors' names and shapes.
        cut: Where features end and the head begins, as in `fgvce explain --help`.
        image_size: Height and width of the images in pixels; by default, as the options below,
            that of the folder, or what the architecture's published weights are evaluated with.
        resize_to: Pixels to which an image's short side is resized before its centre is cut out;
            0 resizes the whole image to a square.
        mean: Means of red, green and blue that images were normalised with, in units of [0, 1].
        std: Standard deviations; likewise.
        class_names: A text file with a name a line.

    Raises:
        InputError: Weights or names that cannot be used, or a folder that holds something else.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            check_channels(name, values)
    beside = described(Path(weights).expanduser())
    tensors, source = read_weights(beside.weights), f"weights {beside.weights}"
    if arch is None:
        arch = recognised(tensors, source)
    spec = ModelSpec(arch, cut)
    spec = replace(spec, epsilon=_epsilon(beside, spec.architecture))
    chosen = _preprocessing(beside, spec.architecture, tensors)
    chosen = _with_options(chosen, image_size, resize_to, mean, std)
    names = beside.class_names if class_names is None else read_class_names(class_names)
    clf = classifier_from_tensors(
        tensors,
        f"{source} for {arch}",
        spec,
        chosen.image_size,
        class_names=names,
        mean=chosen.mean,
        std=chosen.std,
        resize_to=chosen.resize_to,
    )
    _save(clf, Path(out).expanduser())
    from fgvce_jax.progress import notify  # which `import fgvce_jax` does without

    notify(f"images: {chosen} ({chosen.source})")
    return clf


def _save(clf: Classifier, folder: Path) -> None:
    if is_new(folder):
        save_classifier(clf, folder)
    elif not (is_checkpoint(folder) and holds(folder, clf)):
        raise InputError(
            f"folder {folder}: holds something else than these weights ported with these "
            "options, expected a new folder"
        )


def _epsilon(beside: Described, known: Architecture) -> Any:
    """The constant of the norms where it is said and varies; InputError for what nothing can be.

    Attention heads are not seen in the weights either, but those of a network are always the same.
    """
    if known.heads is not None and beside.heads is not None:
        heads = tuple(beside.heads) if isinstance(beside.heads, list) else beside.heads
        if heads != known.heads:
            raise InputError(
                f"{beside.weights.parent}: {heads} attention heads, expected {known.heads}"
            )
    return None if known.with_epsilon is None else beside.epsilon


def _preprocessing(
    beside: Described, known: Architecture, tensors: Mapping[str, np.ndarray]
) -> Preprocessing:
    """What stands beside the weights, else what such weights are evaluated with."""
    usual = published(known, _trained_size(known, tensors))
    found = beside.preprocessing
    if found is None:
        return usual
    for name in ("mean", "std"):
        values = getattr(found, name)
        if values is None:
            found = replace(found, **{name: getattr(usual, name)})
        else:
            check_channels(name, values)
    return found


def _trained_size(known: Architecture, tensors: Mapping[str, np.ndarray]) -> int | None:
    """The side of the images that position embeddings were made for, where that is the only one."""
    positions = known.positions
    if positions is None or positions.interpolated:
        return None
    found = published_names(tensors, known.renames).get(POSITIONS)
    shape = tensors[found[0]].shape if found else ()
    return positions.patch * positions.side(shape[1]) if len(shape) == 3 else None


def _with_options(
    chosen: Preprocessing,
    image_size: int | None,
    resize_to: int | None,
    mean: Any,
    std: Any,
) -> Preprocessing:
    """The options in the place of what was found; a new size keeps the border's share."""
    if image_size is not None and image_size != chosen.image_size:
        old, border = chosen.image_size, chosen.resize_to
        scaled = None if border is None else max(image_size, round(border * image_size / old))
        chosen = replace(chosen, image_size=image_size, resize_to=scaled, source=CHOSEN)
    if resize_to is not None:
        if resize_to != 0 and not chosen.image_size <= resize_to <= LARGEST_SIDE:
            raise InputError(
                f"resize_to {resize_to}: expected 0, or at least the image size, "
                f"{chosen.image_size}"
            )
        chosen = replace(chosen, resize_to=resize_to or None, source=CHOSEN)
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            values = tuple(float(value) for value in values)
            chosen = replace(chosen, source=CHOSEN, **{name: values})
    return chosen
