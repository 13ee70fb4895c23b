"""A classifier that a function of the user's own makes, by its name on the command line."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from fgvce_jax.errors import InputError
from fgvce_jax.models.classifier import Classifier, feature_map_of


def from_factory(name: str) -> Classifier:
    """What the function `name`, written package.module:function, returns; checked.

    Modules are found as Python finds them, and in the working directory.

    Raises:
        InputError: No such function, one that raises or returns something else, cells that are not
            square, other logits than a vector for an image, or weights that are NaN.
    """
    where = f"model.factory {name}"
    function = _find(name, where)
    try:
        clf = function()
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"{where}: {_why(error)}") from error
    if not isinstance(clf, Classifier):
        raise InputError(f"{where}: expected a Classifier, got {type(clf).__name__}")
    try:
        check_classifier(clf)
    except Exception as error:
        raise InputError(f"{where}: {_why(error)}") from error
    return clf


def check_classifier(clf: Classifier) -> None:
    """Raise InputError unless its parts fit together and its weights are numbers.

    Whatever its functions raise comes through.
    """
    size = clf.image_size
    jax.eval_shape(feature_map_of, clf, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    for leaf in jax.tree.leaves(clf):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not jnp.isfinite(leaf).all():
            raise InputError(f"weights: expected numbers, an array {list(leaf.shape)} holds NaN")


def _find(name: str, where: str) -> Any:
    """The function of that name."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"{where}: expected package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{where}: no module {error.name}, from {os.getcwd()}") from error
        raise InputError(f"{where}: needs the package {error.name}, install it") from error
    except Exception as error:
        raise InputError(f"{where}: {_why(error)}") from error
    function = getattr(found, attribute, None)
    if not callable(function):
        raise InputError(f"{where}: expected a function {attribute} in {module}, found none")
    return function


def _why(error: Exception) -> str:
    """An error in a line: those of this package as they are."""
    lines = str(error).strip().split("\n", maxsplit=1)
    if isinstance(error, InputError):
        return lines[0]
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name}, install it"
    return f"it raised {type(error).__name__}: {lines[0]}"
