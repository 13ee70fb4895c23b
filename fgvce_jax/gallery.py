"""Other methods' maps beside the explanations of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.methods import METHODS
from fgvce_jax.metrics.maps import at_cells
from fgvce_jax.models import Classifier


def check_methods(names: Sequence[str], clf: Classifier) -> tuple[str, ...]:
    """The methods named, each once, in the config's order.

    Each is traced for one image, which takes a moment, so that what the classifier lacks is known
    before anything is computed.

    Raises:
        InputError: An unknown name, or a method that needs what the classifier lacks.
    """
    image = jax.ShapeDtypeStruct((1, clf.image_size, clf.image_size, 3), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    for name in names:
        method = METHODS[name]
        if not method.needs & {"bank", "all_cells"}:  # the bank is not there yet
            jax.eval_shape(method, clf, image, label, label)
    return tuple(dict.fromkeys(names))


def gallery(
    names: Sequence[str],
    clf: Classifier,
    bank: Bank,
    all_cells: Bank | None,
    images: Float[np.ndarray, "B H W 3"],
    predicted: Int[np.ndarray, "B"],
    targets: Int[np.ndarray, "B"],
    n: int,
) -> dict[str, Float[np.ndarray, "B n n"]]:
    """Each method's maps at cell resolution: of P, against Q where it contrasts two classes.

    Args:
        names: Methods, from `check_methods`.
        clf: The classifier.
        bank: The run's candidates.
        all_cells: All cells of the references, where one of the methods needs them.
        images: float32 in [0, 1].
        predicted: P.
        targets: Q.
        n: Cells per side.

    Raises:
        InputError: See the methods.
    """
    maps = {}
    for name in names:
        given = all_cells if "all_cells" in METHODS[name].needs else bank
        out = METHODS[name](clf, images, predicted, targets, bank=given)
        maps[name] = np.asarray(jax.vmap(partial(at_cells, n=n))(out))
    return maps
