"""Checks at the border: what the public functions are given, before anything is made of it.

Shapes are always checked, values where they are there: under `jax.jit` and `vmap` they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float

from fgvce_jax.errors import InputError


def check_devices() -> None:
    """Raise InputError unless JAX has the devices that JAX_PLATFORMS asks for, if it asks for any.

    Where nothing is asked for, JAX takes what is there.
    """
    asked = jax.config.values["jax_platforms"]
    if not asked or asked == "cpu":
        return
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # without its plugin JAX merely asserts
        why = " ".join(str(error).split()) or "the plugin for it is not installed"
        raise InputError(
            f"JAX_PLATFORMS {asked}: expected such a device, found none ({why})"
        ) from error


def check_images(images: np.ndarray, size: int) -> None:
    """Raise InputError unless `images` are float [B, size, size, 3], B > 0, values in [0, 1]."""
    if images.shape[1:] != (size, size, 3) or not len(images):
        raise InputError(f"images: expected [B, {size}, {size}, 3], got {list(images.shape)}")
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images: expected float values in [0, 1], got {images.dtype}")
    if not (images.min() >= 0 and images.max() <= 1):
        raise InputError(
            f"images: expected values in [0, 1], got {images.min():.3g} to {images.max():.3g}"
        )


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Raise InputError unless `labels` are whole numbers from 0 to num_classes - 1, one axis."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels: expected integers [B], got {labels.dtype} {list(labels.shape)}")
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise InputError(f"label {outside[0]}: expected 0 to {num_classes - 1}")


def check_labelled(
    images: np.ndarray, labels: np.ndarray, image_size: int, num_classes: int
) -> None:
    """Raise InputError unless the images fit a classifier, and each has a label of its classes."""
    check_images(images, image_size)
    check_labels(labels, num_classes)
    if len(images) != len(labels):
        raise InputError(f"labels: expected {len(images)}, one per image, got {len(labels)}")


def check_logits(
    name: str, ids: Sequence[Any] | np.ndarray, values: Float[np.ndarray, "B _"]
) -> None:
    """Raise InputError, with the name and id, for logits (or what came of them) that are NaN."""
    broken = np.flatnonzero(~np.isfinite(values.max(-1)))
    if broken.size:
        raise InputError(
            f"{name} {ids[broken[0]]}: the classifier's logits are NaN or infinite, "
            f"expected numbers"
        )


def check_class(index: ArrayLike, num_classes: int) -> None:
    """Raise InputError unless `index` is a whole number from 0 to num_classes - 1."""
    if jnp.shape(index) or not jnp.issubdtype(jnp.result_type(index), jnp.integer):
        raise InputError(
            f"class: expected an integer, got {jnp.result_type(index)} {list(jnp.shape(index))}"
        )
    if not isinstance(index, Tracer) and not 0 <= np.asarray(index).item() < num_classes:
        raise InputError(f"class {index}: expected 0 to {num_classes - 1}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise InputError unless an option has one of its values."""
    if value not in choices:
        raise InputError(f"{name} {value!r}: expected {', '.join(choices[:-1])} or {choices[-1]}")


def check_chunk(chunk: int) -> None:
    """Raise InputError unless `chunk` is 1 or more."""
    if chunk < 1:
        raise InputError(f"chunk {chunk}: expected 1 or more")


def check_cells(head: Callable[..., Any], cells: Any, context: Any = None) -> int:
    """The number of classes K; InputError unless `cells` are [n, n, C] and logits [K] follow."""
    shape = list(cells.shape)
    if len(shape) != 3 or shape[0] != shape[1]:
        raise InputError(f"cells: expected [n, n, C], got {shape}")
    try:
        logits = jax.eval_shape(head, cells, *(() if context is None else (context,)))
    except (TypeError, ValueError) as error:
        why = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"cells {shape}: expected what the head takes ({why})") from error
    if len(logits.shape) != 1:
        raise InputError(f"head: expected logits [K] of one feature map, got {list(logits.shape)}")
    return logits.shape[0]
