"""A dataset's classes as the classifier numbers them.

The two are trained and collected apart: a folder sorts its classes by name and may have but a few
of them, which would shift every later label. So classes correspond by name, by WordNet id, by a
number that the folder states, or as the user maps them.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Int

from fgvce_jax.data.example import Dataset
from fgvce_jax.errors import InputError
from fgvce_jax.imagenet import imagenet_classes, wordnet_ids
from fgvce_jax.models.classifier import Classifier

_SHOWN = 3  # names or pairs in a message
_MOST_MATCHES = 20  # classes in the note on which of them a dataset has


@dataclass(frozen=True)
class Matched:
    """A dataset's labels and the classifier's class names, which belong together.

    Attributes:
        labels: int32 [N], the dataset's labels as the classifier numbers its classes.
        class_names: K names, the classifier's own; or the dataset's, where it has none.
        classes: The classifier's number of each class of the dataset, by its name there.
        note: One line for the user on a correspondence that is not the same names; else None.
    """

    labels: Int[np.ndarray, " N"]
    class_names: tuple[str, ...]
    classes: Mapping[str, int]
    note: str | None = None


def match_labels(
    dataset: Dataset, clf: Classifier, class_map: str | os.PathLike[str] | None = None
) -> Matched:
    """Number a dataset's classes, all of the classifier's or some, as the classifier does.

    A class in `class_map` (see `read_class_map`) has the number given there, and every other one
    that which `class_number` finds. A classifier whose class names are "0", "1", ... has no names:
    it takes those of a dataset with as many classes, in order, unless the dataset's names are such
    numbers themselves. `InputError` where classes do not correspond: one that the classifier has
    not, or twice; another number of classes without names; a `class_map` that cannot be read or
    names a class that is not there.
    """
    ours, theirs = tuple(dataset.class_names), clf.class_names
    indices = list(range(len(theirs)))
    unnamed = theirs == tuple(map(str, indices))
    by_name = not unnamed or set(ours) <= set(theirs)
    note = None
    if class_map is not None:
        numbers = _mapped(ours, theirs, by_name, class_map)
        if unnamed and sorted(numbers) == indices:
            theirs = tuple(ours[numbers.index(k)] for k in indices)
    elif by_name:
        # A name that both have twice is no question where all names are the same.
        numbers = indices if ours == theirs else _found(ours, theirs)
        if unnamed and numbers != indices:
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
        ids = ours[0] in imagenet_classes()
        raise InputError(
            f"class names: expected those of the classifier, which has {len(theirs)} classes "
            f"without names, for a dataset of {len(ours)} classes ({_first(ours)}); give "
            f"--model.class_names {'imagenet' if ids else 'names.txt'}, or port it with "
            "--class_names"
        )
    if note is None and set(ours) != set(theirs):
        note = _correspondence(ours, numbers, theirs)
    classes = dict(zip(ours, numbers, strict=True))
    return Matched(np.array(numbers, np.int32)[dataset.labels], theirs, classes, note)


def class_number(name: str, class_names: Sequence[str]) -> int:
    """The classifier's number of a class that somebody calls `name`.

    That is, in this order: the class of that name; for one of ImageNet's WordNet ids the class of
    its name (or the other way round); the class of the same words, in capitals or not, with spaces,
    underscores or hyphens between them; the class of that number, as 207.
    `InputError` with the nearest names where there is none, or more than one.
    """
    found = _numbers_of(name, class_names)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            "expected a name that the classifier has once, got that of its classes "
            f"{', '.join(map(str, found))}"
        )
    raise InputError(
        f"expected one of the classifier's {len(class_names)} classes, such as "
        f"{_nearest(imagenet_classes().get(name, name), class_names)}"
    )


def _numbers_of(name: str, class_names: Sequence[str]) -> list[int]:
    synonym = imagenet_classes().get(name) or wordnet_ids().get(name)
    words = _words(name)
    for same in (
        lambda other: other == name,
        lambda other: other == synonym,
        lambda other: _words(other) == words,
    ):
        if found := [k for k, other in enumerate(class_names) if same(other)]:
            return found
    is_number = name.isdecimal() and name == str(int(name)) and int(name) < len(class_names)
    return [int(name)] if is_number else []


@cache
def _words(name: str) -> tuple[str, ...]:
    return tuple(name.casefold().replace("_", " ").replace("-", " ").split())


def dataset_fingerprint(ids: Sequence[str], labels: Int[np.ndarray, " N"]) -> str:
    """A hash of the images' ids and of their labels, 16 hexadecimal digits."""
    digest = hashlib.sha256(b"[")
    for i, id in enumerate(ids):  # as the list's text, which of a million ids takes much memory
        digest.update(f"{', ' if i else ''}{id!r}".encode())
    digest.update(b"]")
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


def _found(ours: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """The number of each class by `class_number`; InputError for the first that has none."""
    found = {name: _numbers_of(name, theirs) for name in ours}
    wrong = [name for name in ours if len(found[name]) != 1]
    if not wrong:
        return [found[name][0] for name in ours]
    others = f" (and {len(wrong) - 1} more of {len(ours)})" if len(wrong) > 1 else ""
    twice = "to a number " if found[wrong[0]] else ""
    try:
        class_number(wrong[0], theirs)
    except InputError as error:
        raise InputError(
            f"class {wrong[0]!r} of the dataset{others}: {error}; or map it {twice}with "
            "--data.class_map"
        ) from error
    raise AssertionError  # it has no number


def _mapped(
    ours: Sequence[str],
    theirs: Sequence[str],
    by_name: bool,
    class_map: str | os.PathLike[str],
) -> list[int]:
    """By the map; a class without an entry by its name, if names are to be trusted."""
    chosen = read_class_map(class_map)
    for name in chosen:
        if name not in ours:
            raise InputError(
                f"class_map {class_map}: class {name!r}: expected one of the dataset's {len(ours)} "
                f"classes, such as {_nearest(name, ours)}"
            )
    numbers = []
    for name in ours:
        where = f"class_map {class_map}: "
        where += f"class {chosen[name]!r}" if name in chosen else f"no entry for class {name!r}"
        if name not in chosen and not by_name:
            raise InputError(
                f"{where}; expected one for every class, as the classifier has no class names"
            )
        try:
            numbers.append(class_number(chosen.get(name, name), theirs))
        except InputError as error:
            twice = "; map it to a number" if "once" in str(error) else ""
            raise InputError(f"{where}: {error}{twice}") from error
    return numbers


def _correspondence(ours: Sequence[str], numbers: Sequence[int], theirs: Sequence[str]) -> str:
    """Which of the classifier's classes a dataset has, and what it calls them."""
    pairs = [
        name if name == theirs[k] else f"{name} = {theirs[k]}"
        for name, k in zip(ours, numbers, strict=True)
    ]
    shown = ", ".join(pairs[:_MOST_MATCHES] + ["..."] * (len(pairs) > _MOST_MATCHES))
    return f"{len(set(numbers))} of the classifier's {len(theirs)} classes: {shown}"


def _nearest(name: str, names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))  # each once
    return _first(difflib.get_close_matches(name, names, _SHOWN) or names)


def _first(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN])


def _pairs(numbers: Sequence[int], names: Sequence[str]) -> str:
    shown = [f"{k} = {name}" for k, name in zip(numbers, names, strict=True)]
    return ", ".join(shown[:_SHOWN] + ["..."] * (len(shown) > _SHOWN))
