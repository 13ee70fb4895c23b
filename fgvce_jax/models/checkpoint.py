"""Classifiers on disk: an Orbax checkpoint folder that describes itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax import assets
from fgvce_jax.config import ModelConfig
from fgvce_jax.errors import InputError
from fgvce_jax.files import writing
from fgvce_jax.imagenet import imagenet_classes
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.description import (
    DESCRIPTION,
    check_channels,
    check_weights,
    checksums,
    describe,
    read_description,
)
from fgvce_jax.models.factory import from_factory
from fgvce_jax.models.named import named, with_named
from fgvce_jax.models.positions import NAME as POSITIONS
from fgvce_jax.models.spec import ARCHITECTURES, ModelSpec, template


def _checkpointer() -> Any:
    """One process reads or writes; the others of a distributed run are not waited for."""
    import orbax.checkpoint as ocp

    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def save_classifier(clf: Classifier, folder: str | Path) -> None:
    """Write a checkpoint folder, whole or not at all; an earlier checkpoint there is replaced.

    It is an Orbax checkpoint of `named(clf)` in float32, with everything else in `classifier.json`
    beside its files. Of several processes, one should call this.

    InputError for a classifier of the user's own functions, or a folder that holds other files or
    cannot be made.
    """
    import orbax.checkpoint as ocp

    description = describe(clf)
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    if not is_checkpoint(folder) and not is_new(folder):
        raise InputError(f"folder {folder}: holds other files, expected a new or empty folder")
    weights = {name: np.asarray(array, np.float32) for name, array in named(clf).items()}
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    with writing(f"folder {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    new = staging / "new"
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(new, args=ocp.args.PyTreeSave(weights))
        for receipt in new.rglob("commit_success.txt"):  # they name the staging folder
            receipt.unlink()
        description["files"] = checksums(new)
        (new / DESCRIPTION).write_text(json.dumps(description, indent=1), "utf-8")
        if folder.exists():
            folder.rename(staging / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(staging)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint."""
    return (folder / DESCRIPTION).is_file()


def is_new(folder: Path) -> bool:
    """Whether a checkpoint may be written there: nothing is lost."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the weights of a checkpoint."""
    import orbax.checkpoint as ocp

    description = read_description(folder)
    with _checkpointer() as checkpointer:
        return description, checkpointer.restore(folder.resolve(), args=ocp.args.PyTreeRestore())


def _load_folder(folder: Path, cut: str | None, image_size: int | None) -> Classifier:
    description, weights = _read(folder)
    try:
        spec = ModelSpec.from_dict(description["model"])
        clf = template(
            spec if cut is None else replace(spec, cut=cut),
            description["num_classes"],
            description["image_size"] if image_size is None else image_size,
        )
        clf = with_named(clf, _for_size(weights, spec, clf.image_size))
        check_weights(description, clf)
        return replace(
            clf,
            class_names=tuple(description["class_names"]),
            resize_to=description["resize_to"],
        )
    except InputError as error:
        raise InputError(f"checkpoint {folder}: {error}") from error


def _for_size(
    weights: dict[str, np.ndarray], spec: ModelSpec, image_size: int
) -> dict[str, np.ndarray]:
    """The weights, with position embeddings (where there are any) for images of this size."""
    positions = spec.architecture.positions
    if positions is None or weights.get(POSITIONS, np.zeros(0)).ndim != 3:
        return weights
    return weights | {POSITIONS: positions.fitted(weights[POSITIONS], image_size)}


def load_classifier(
    path_or_arch: str | Path,
    weights: str | Path | None = None,
    *,
    cut: str | None = None,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    std: Sequence[float] | np.ndarray | None = None,
    resize_to: int | None = None,
) -> Classifier:
    """A classifier from a checkpoint folder, or from an architecture's name and a weights file.

    `load_classifier("checkpoints/birds")` needs nothing else: the folder describes itself, and one
    that the working directory lacks is looked for among those that the package ships.
    `load_classifier("resnet50", weights="my.safetensors")` reads weights of torchvision or Hugging
    Face (see `fgvce_jax.models.convert`).

    Args:
        path_or_arch: A checkpoint folder; with `weights`, one of `ARCHITECTURES`.
        weights: A .safetensors file, or with torch installed .pth, .pt, .ckpt or .bin.
        cut: Where features end and the head begins, as in `ModelSpec`; None: where it was saved.
        image_size: Height and width of the images in pixels; 224, or the checkpoint's own.
        class_names: K names, in place of the checkpoint's.
        mean: Per channel, in units of [0, 1]; the architecture's, or the checkpoint's own.
        std: Likewise.
        resize_to: Short side in pixels before the centre crop.

    Raises:
        InputError: An unknown architecture, no such folder or file, one that cannot be read,
            weights that do not fit, or a size, mean or std out of range.
    """
    pairs = (("mean", mean), ("std", std))
    for name, values in pairs:
        if values is not None:
            check_channels(name, values)
    if weights is not None:
        from fgvce_jax.models.convert import classifier_from_weights

        clf = classifier_from_weights(
            weights,
            ModelSpec(str(path_or_arch), cut),
            224 if image_size is None else image_size,
            class_names=class_names or (),
            mean=mean,
            std=std,
            resize_to=resize_to,
        )
    else:
        clf = _load_folder(_find_folder(path_or_arch), cut, image_size)
        features: Any = clf.features  # a Backbone, as every checkpoint's
        given = {name: jnp.float32(value) for name, value in pairs if value is not None}
        clf = replace(
            clf,
            features=replace(features, **given),
            class_names=clf.class_names if class_names is None else tuple(class_names),
            resize_to=clf.resize_to if resize_to is None else resize_to,
        )
    _check_resize(clf)
    return clf


def _check_resize(clf: Classifier) -> None:
    if clf.resize_to is not None and clf.resize_to < clf.image_size:
        raise InputError(
            f"resize_to {clf.resize_to}: expected at least the image size, {clf.image_size}"
        )


def open_classifier(config: ModelConfig) -> Classifier:
    """The classifier that a config names: its checkpoint, or its weights for its architecture, or
    what its factory returns."""
    names = config.class_names
    if config.factory:
        clf = from_factory(config.factory)
        if config.image_size not in (None, clf.image_size):
            raise InputError(
                f"image_size {config.image_size}: expected that of the factory, {clf.image_size}"
            )
        given = {"resize_to": config.resize_to} if config.resize_to else {}
        clf = replace(
            clf, **given, class_names=read_class_names(names) if names else clf.class_names
        )
        _check_resize(clf)
        return clf
    source = config.checkpoint or (config.weights and config.arch)
    if not source:
        raise InputError(
            "model: expected --model.checkpoint, --model.arch and --model.weights, or "
            "--model.factory"
        )
    clf = load_classifier(
        source,
        config.weights,
        cut=config.cut,
        image_size=config.image_size,
        resize_to=config.resize_to,
        class_names=None if names is None else read_class_names(names),
    )
    if config.arch not in (None, clf.spec.arch):
        raise InputError(f"checkpoint {config.checkpoint}: a {clf.spec.arch}, not {config.arch}")
    return clf


def _find_folder(path_or_arch: str | Path) -> Path:
    folder = assets.find(path_or_arch)
    if folder is None and str(path_or_arch) in ARCHITECTURES:
        raise InputError(f"architecture {path_or_arch}: expected a file of weights for it")
    if folder is None:
        raise InputError(
            f"classifier {path_or_arch}: no such checkpoint folder, "
            f"and not one of the architectures {', '.join(ARCHITECTURES)}"
        )
    if folder.is_file():
        raise InputError(f"checkpoint {folder}: a file, expected a folder, or an architecture too")
    return folder


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Class names of a text file, one a line; numbers in front, as CUB has them, are left out.

    "imagenet" stands for ImageNet's 1000 names, which are in the package.
    """
    if str(path) == "imagenet":
        return tuple(imagenet_classes().values())
    try:
        lines = [line.strip() for line in Path(path).expanduser().read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"class names {path}: cannot be read ({error})") from error
    names = [line for line in lines if line]
    if not names:
        raise InputError(f"class names {path}: empty, expected one name a line")
    if all(name.startswith(f"{number} ") for number, name in enumerate(names, 1)):
        names = [name.split(maxsplit=1)[1] for name in names]
    return tuple(names)


def holds(folder: Path, clf: Classifier) -> bool:
    """Whether a checkpoint folder is the one that `save_classifier` would write."""
    description, weights = _read(folder)
    ours = named(clf)
    return (
        description == describe(clf)
        and set(weights) == set(ours)
        and all(np.array_equal(weights[name], ours[name]) for name in ours)
    )
