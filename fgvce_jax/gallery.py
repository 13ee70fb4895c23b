"""Other methods' maps beside the explanations of a run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from fgvce_jax.bank import Bank
from fgvce_jax.methods import find_method
from fgvce_jax.metrics.maps import at_cells
from fgvce_jax.models import Classifier

if TYPE_CHECKING:
    from jaxtyping import Float, Int

OWN = ("fgvce", "fgvce_invariant", "fgvce_dominant")
"""What every explanation holds anyway."""


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The methods to run of those named; raises InputError for one that is unknown."""
    return tuple(name for name in names if name not in OWN and find_method(name))


def gallery(
    names: Sequence[str],
    clf: Classifier,
    bank: Bank,
    images: Float[np.ndarray, "B H W 3"],
    predicted: Int[np.ndarray, "B"],
    targets: Int[np.ndarray, "B"],
    n: int,
) -> dict[str, Float[np.ndarray, "B n n"]]:
    """Each method's maps at cell resolution: of P, against Q where it contrasts two classes."""
    maps = {}
    for name in names:
        method = find_method(name)
        takes = inspect.signature(inspect.unwrap(method)).parameters
        options = {}
        if "contrast_classes" in takes:
            options["contrast_classes"] = targets
        if name in ("cve", "cve_semantic"):
            options["bank"] = bank
        out = method(clf, images, predicted, **options)
        maps[name] = np.asarray(jax.vmap(partial(at_cells, n=n))(out))
    return maps
