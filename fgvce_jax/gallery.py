"""Other methods' maps beside the explanations of a run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.errors import InputError
from fgvce_jax.methods import METHODS
from fgvce_jax.metrics.maps import at_cells
from fgvce_jax.models import Classifier

OWN = {"fgvce_invariant": "invariant", "fgvce_dominant": "dominant"}
"""Methods whose maps every explanation holds anyway, and what they are called there."""
EXHAUSTIVE = ("cve", "cve_semantic")
"""Methods that choose from all cells of the references, not from the best of each."""


def listed(names: Sequence[str]) -> tuple[str, ...]:
    """The methods that a config names, in its order and each once; "fgvce" stands for its two."""
    pairs = (tuple(OWN) if name == "fgvce" else (name,) for name in names)
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))


def check_methods(names: Sequence[str], clf: Classifier) -> tuple[str, ...]:
    """The methods to run of those named, which leaves out FG-VCE's own.

    Each is traced for one image, which takes a moment, so that what the classifier lacks is known
    before anything is computed.

    Raises:
        InputError: An unknown name, or a method that needs what the classifier lacks.
    """
    image = jax.ShapeDtypeStruct((1, clf.image_size, clf.image_size, 3), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    others = tuple(name for name in listed(names) if name not in OWN)
    for name in others:
        method = METHODS[name]
        if name not in EXHAUSTIVE:  # which take any classifier, and a bank that is not there yet
            jax.eval_shape(method, clf, image, label, *[label] * _contrasts(name))
    return others


def _contrasts(name: str) -> bool:
    """Whether the method takes a second class."""
    return "contrast_classes" in inspect.signature(METHODS[name]).parameters


def gallery(
    names: Sequence[str],
    clf: Classifier,
    bank: Bank | None,
    images: Float[np.ndarray, "B H W 3"],
    predicted: Int[np.ndarray, "B"],
    targets: Int[np.ndarray, "B"],
    n: int,
) -> dict[str, Float[np.ndarray, "B n n"]]:
    """Each method's maps at cell resolution: of P, against Q where it contrasts two classes.

    Args:
        names: Methods, from `check_methods`.
        clf: The classifier.
        bank: All cells of the references, from `build_bank(..., top_m=None)`; only the methods of
            `EXHAUSTIVE` need it.
        images: float32 in [0, 1].
        predicted: P.
        targets: Q.
        n: Cells per side.

    Raises:
        InputError: One of `EXHAUSTIVE` without a bank of all cells.
    """
    maps = {}
    for name in names:
        contrast = [targets] * _contrasts(name)
        options = {}
        if name in EXHAUSTIVE:
            if bank is None or bank.config.top_m is not None:
                raise InputError(f"{name}: expected a bank of all cells, built with top_m None")
            options["bank"] = bank
        out = METHODS[name](clf, images, predicted, *contrast, **options)
        maps[name] = np.asarray(jax.vmap(partial(at_cells, n=n))(out))
    return maps
