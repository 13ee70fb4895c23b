"""classifier.json: what a checkpoint says of its classifier, and which values that may have."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgvce_jax.config import LARGEST_SIDE, MOST
from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json, sha256
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.spec import ModelSpec, require_spec

FORMAT = 2
DESCRIPTION = "classifier.json"


def describe(clf: Classifier) -> dict[str, Any]:
    """A checkpoint's description of its classifier, as JSON values.

    InputError where it could not be read again: class names that are not each there once.
    """
    described = {
        "format": FORMAT,
        "model": require_spec(clf).to_dict(),
        "num_classes": clf.num_classes,
        "class_names": list(clf.class_names),
        "image_size": clf.image_size,
        "resize_to": clf.resize_to,
        "mean": np.asarray(clf.features.mean).tolist(),
        "std": np.asarray(clf.features.std).tolist(),
    }
    _check_fields(described)
    return described


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of the weights, by its name in the checkpoint folder."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _of_weights(path.relative_to(folder))
    }


def _of_weights(path: Path) -> bool:
    """Whether a file is Orbax's; others at the top are notes, a log, a training's config."""
    return len(path.parts) > 1 or path.name.startswith("_") or path.suffix == ".ocdbt"


def read_description(folder: Path) -> dict[str, Any]:
    """The description in a checkpoint folder, without `files`, which the weights agree with.

    InputError, in one line, where the folder holds no checkpoint, or a field is not what `describe`
    writes, or a file of the weights is missing, changed, or not among `files`.
    """
    if not (folder / DESCRIPTION).is_file():
        raise InputError(f"checkpoint {folder}: no {DESCRIPTION} in it")
    try:
        described = read_json(folder / DESCRIPTION)
        if "format" in described and described["format"] != FORMAT:
            found = described["format"]
            raise InputError(f"checkpoint {folder}: format {found!r}, expected {FORMAT}")
        files = described.pop("files", None)
        _check_files(files)
        _check_fields(described)
    except InputError as error:
        if str(error).startswith("checkpoint"):
            raise
        raise InputError(f"checkpoint {folder}: {DESCRIPTION} is damaged ({error})") from error
    # Orbax reports a damaged file only as some array that cannot be read, and that at length.
    present = checksums(folder)
    if wrong := [name for name, digest in files.items() if present.get(name) != digest]:
        raise InputError(f"checkpoint {folder}: missing or damaged files: {', '.join(wrong)}")
    if unchecked := sorted(present.keys() - files.keys()):
        raise InputError(
            f"checkpoint {folder}: files: expected all of the weights, {unchecked[0]} is not among "
            "them"
        )
    return described


def check_weights(described: Mapping[str, Any], clf: Classifier) -> None:
    """Raise InputError unless mean and std are those that the weights hold."""
    for name in ("mean", "std"):
        held = np.asarray(getattr(clf.features, name)).tolist()
        if not np.allclose(held, described[name], rtol=1e-6, atol=0):
            raise InputError(f"{name}: expected that of the weights, {held}, got {described[name]}")


def _check_files(files: Any) -> None:
    digests = files.values() if isinstance(files, dict) else ()
    if not digests or not all(
        isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in digests
    ):
        raise InputError("files: expected the SHA-256 of each file of the weights, by its name")


# --- the fields ---------------------------------------------------------------------------------


def _check_fields(described: Mapping[str, Any]) -> None:
    """Raise InputError for the first field that no classifier has, or that is missing."""
    if unknown := sorted(described.keys() - _FIELDS.keys()):
        raise InputError(f"{unknown[0]}: expected no such field")
    for name, check in _FIELDS.items():
        check(name, described.get(name), described)


def _format(name: str, value: Any, described: Mapping[str, Any]) -> None:
    if value != FORMAT:
        raise InputError(f"{name}: expected {FORMAT}, got {value!r}")


def _model(name: str, value: Any, described: Mapping[str, Any]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{name}: expected fields and their values, got {value!r}")
    ModelSpec.from_dict(value)


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")


def _num_classes(name: str, value: Any, described: Mapping[str, Any]) -> None:
    _whole(name, value, 1, MOST)


def _class_names(name: str, value: Any, described: Mapping[str, Any]) -> None:
    listed = value if isinstance(value, list) else [None]
    if not all(isinstance(word, str) and word.strip() for word in listed):
        raise InputError(f"{name}: expected a list of texts, a name for each class")
    word, times = Counter(listed).most_common(1)[0] if listed else ("", 1)
    if times > 1:
        raise InputError(f"{name}: expected each once, got {word!r} {times} times")


def _image_size(name: str, value: Any, described: Mapping[str, Any]) -> None:
    _whole(name, value, 1, LARGEST_SIDE)


def _resize_to(name: str, value: Any, described: Mapping[str, Any]) -> None:
    if value is not None:
        _whole(name, value, described["image_size"], LARGEST_SIDE)


def _mean(name: str, value: Any, described: Mapping[str, Any]) -> None:
    check_channels(name, value)


_Check = Callable[[str, Any, Mapping[str, Any]], None]
# In the order in which they are checked: resize_to refers to image_size.
_FIELDS: dict[str, _Check] = {
    "format": _format,
    "model": _model,
    "num_classes": _num_classes,
    "class_names": _class_names,
    "image_size": _image_size,
    "resize_to": _resize_to,
    "mean": _mean,
    "std": _mean,
}


def check_channels(name: str, values: Any) -> None:
    """Raise InputError unless `values` are three numbers, for a std above 0."""
    listed = np.asarray(values).tolist() if not isinstance(values, list | tuple) else list(values)
    above = " above 0" if name == "std" else ""
    good = isinstance(listed, list) and len(listed) == 3
    if not good or not all(_is_number(value) and (not above or value > 0) for value in listed):
        raise InputError(f"{name} {listed!r}: expected three numbers{above}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
