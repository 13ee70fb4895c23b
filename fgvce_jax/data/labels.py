"""A dataset's classes as the classifier numbers them.

The two are trained and collected apart: a folder sorts its classes by name and may lack one, which
would shift every later label. So classes correspond by name, or as the user maps them.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Int

from fgvce_jax.data.example import Dataset
from fgvce_jax.errors import InputError
from fgvce_jax.models.classifier import Classifier

_SHOWN = 3  # names or pairs in a message


@dataclass(frozen=True)
class Matched:
    """A dataset's labels and the classifier's class names, which belong together.

    Attributes:
        labels: int32 [N], the dataset's labels as the classifier numbers its classes.
        class_names: K names, the classifier's own; or the dataset's, where it has none.
        note: One line for the user on a correspondence that no name confirms; else None.
    """

    labels: Int[np.ndarray, " N"]
    class_names: tuple[str, ...]
    note: str | None = None


def match_labels(
    dataset: Dataset, clf: Classifier, class_map: str | os.PathLike[str] | None = None
) -> Matched:
    """Number a dataset's classes as the classifier does.

    A class in `class_map` (see `read_class_map`) has the number given there, and every other one
    that of its name. A classifier whose class names are "0", "1", ... has no names: it takes those
    of a dataset with as many classes, in order, unless the dataset's names are the same numbers.
    `InputError` where classes do not correspond: one that the classifier has not, or twice; another
    number of classes without names; a `class_map` that cannot be read or names a class that is not
    there.
    """
    ours, theirs = tuple(dataset.class_names), clf.class_names
    indices = list(range(len(theirs)))
    unnamed = theirs == tuple(map(str, indices))
    by_name = not unnamed or set(ours) == set(theirs)
    note = None
    if class_map is not None:
        numbers = _numbers(ours, theirs, by_name, class_map)
        if unnamed and sorted(numbers) == indices:
            theirs = tuple(ours[numbers.index(k)] for k in indices)
    elif by_name:
        # A name that both have twice is no question where all names are the same.
        numbers = indices if ours == theirs else _numbers(ours, theirs)
        if unnamed and numbers != sorted(numbers):
            note = (
                f"the dataset's {len(ours)} class names are numbers and taken as the "
                f"classifier's: {_pairs(numbers, ours)}"
            )
    elif len(ours) == len(theirs):
        numbers, theirs = indices, ours
        note = (
            f"the classifier's {len(ours)} classes have no names and take those of the dataset, "
            f"in order: {_pairs(numbers, ours)}"
        )
    else:
        raise InputError(
            f"class names: expected those of the classifier, which has {len(theirs)} classes "
            f"without names, for a dataset of {len(ours)} classes ({_first(ours)}); give "
            "--model.class_names names.txt, or port it with --class_names"
        )
    return Matched(np.array(numbers, np.int32)[dataset.labels], theirs, note)


def dataset_fingerprint(ids: Sequence[str], labels: Int[np.ndarray, " N"]) -> str:
    """A hash of the images' ids and of their labels, 16 hexadecimal digits."""
    digest = hashlib.sha256(repr(list(ids)).encode())
    digest.update(np.ascontiguousarray(labels, "<i4").tobytes())
    return digest.hexdigest()[:16]


def read_class_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """A YAML or, by its suffix, JSON file: class of the dataset -> the classifier's name or index.

    Everything in it is taken as text, so that classes called 001, no or 1.0 stay what they are.
    `InputError` if it cannot be read, holds anything else, or has a class twice.
    """
    try:
        text = Path(path).expanduser().read_text("utf-8")
        if Path(path).suffix == ".json":  # pairs, since a dict would drop a class's first entry
            pairs = json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str)
        else:  # a node holds a scalar's own text, before YAML makes a number or a truth value of it
            root = yaml.compose(text, yaml.SafeLoader)
            nodes = root.value if isinstance(root, yaml.MappingNode) else ()
            pairs = tuple((key.value, value.value) for key, value in nodes)
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"class_map {path}: cannot be read ({why})") from error
    words = itertools.chain(*pairs) if pairs and isinstance(pairs, tuple) else (None,)
    if not all(isinstance(word, str) for word in words):
        raise InputError(
            f"class_map {path}: expected a class name or a number for each class, as in `owl: 3`"
        )
    chosen: dict[str, str] = {}
    for name, target in pairs:
        if name in chosen:
            raise InputError(f"class_map {path}: class {name!r}: expected once, got it again")
        chosen[name] = target
    return chosen


def _numbers(
    ours: Sequence[str],
    theirs: Sequence[str],
    by_name: bool = True,
    class_map: str | os.PathLike[str] | None = None,
) -> list[int]:
    """By the map; a class without an entry by name, if names are to be trusted."""
    chosen = {} if class_map is None else read_class_map(class_map)
    for name in chosen:
        if name not in ours:
            raise InputError(
                f"class_map {class_map}: class {name!r}: expected one of the dataset's {len(ours)} "
                f"classes, such as {_nearest(name, ours)}"
            )
    numbers = []
    for name in ours:
        target, hint = chosen.get(name, name), ""
        if name in chosen:
            where = f"class_map {class_map}: class {target!r}"
        elif class_map is None:
            where, hint = f"class {name!r} of the dataset", "; or map it with --data.class_map"
        else:
            where = f"class_map {class_map}: no entry for class {name!r}"
            if not by_name:
                raise InputError(
                    f"{where}; expected one for every class, as the classifier has no class names"
                )
        found = [k for k, other in enumerate(theirs) if other == target]  # ImageNet has some twice
        if not found and name in chosen and target.isdecimal() and int(target) < len(theirs):
            found = [int(target)]
        if not found:
            raise InputError(
                f"{where}: expected one of the classifier's {len(theirs)} classes, such as "
                f"{_nearest(target, theirs)}{hint}"
            )
        if len(found) > 1:
            raise InputError(
                f"{where}: expected a name that the classifier has once, got that of its classes "
                f"{', '.join(map(str, found))}; map it to a number with --data.class_map"
            )
        numbers += found
    return numbers


def _nearest(name: str, names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))  # each once
    return _first(difflib.get_close_matches(name, names, _SHOWN) or names)


def _first(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN])


def _pairs(numbers: Sequence[int], names: Sequence[str]) -> str:
    shown = [f"{k} = {name}" for k, name in zip(numbers, names, strict=True)]
    return ", ".join(shown[:_SHOWN] + ["..."] * (len(shown) > _SHOWN))
