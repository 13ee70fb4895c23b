"""Maps of other methods beside the explanations of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.methods import METHODS
from fgvce_jax.metrics.maps import at_cells
from fgvce_jax.models.classifier import Classifier

EXPLAINED_BY = {"fgvce_invariant": "invariant", "fgvce_dominant": "dominant"}
"""Methods whose maps an explanation holds already, and under which name."""


def check_methods(names: Sequence[str], clf: Classifier) -> tuple[str, ...]:
    """The methods named, in order and each once; InputError for one that the classifier lacks.

    Each is traced for one image, which takes a moment, so that this is known before anything is
    computed.
    """
    image = jax.ShapeDtypeStruct((1, clf.image_size, clf.image_size, 3), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    for method in (METHODS[name] for name in names):
        if not method.needs & {"bank", "all_cells"}:  # these take any classifier
            jax.eval_shape(method, clf, image, label, label)
    return tuple(dict.fromkeys(names))


def need_all_cells(names: Sequence[str]) -> bool:
    """Whether a method needs a bank of all cells of the references."""
    return any("all_cells" in METHODS[name].needs for name in names)


def method_maps(
    names: Sequence[str],
    clf: Classifier,
    images: Float[np.ndarray, "B H W 3"],
    predicted: Int[Any, "B"],
    targets: Int[Any, "B"],
    n: int,
    *,
    bank: Bank | None = None,
    all_cells: Bank | None = None,
) -> dict[str, Float[np.ndarray, "B n n"]]:
    """Each method's maps at cell resolution n: of P, against Q where it contrasts two classes.

    `images` are in [0, 1]; `all_cells` is a bank with `top_m=None`, for methods that need it.
    """
    maps = {}
    for name in names:
        method = METHODS[name]
        given = all_cells if "all_cells" in method.needs else bank
        out = method(clf, images, predicted, targets, bank=given)
        maps[name] = np.asarray(jax.vmap(partial(at_cells, n=n))(out))
    return maps
