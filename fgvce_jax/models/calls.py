"""How a model of another library is called: each on one image, by the words of its own library.

None of them is imported. A model says by the modules of its classes where it comes from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen, nnx
from jaxtyping import Array, Float

from fgvce_jax.errors import InputError

OfImage = Callable[[Float[Array, "S S 3"]], Any]
"""From one normalised image to all that the model returns for it."""

_FOR_INFERENCE = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "inference": True,
    "use_running_average": True,
    "rngs": None,
}
"""Arguments that tell a model that nothing is trained, by their names in its signature."""


def of_image(model: Any) -> OfImage:
    """The function from one image to what the model returns for it.

    Flax's NNX (jimm, bonsai) and bound Linen modules and Keras on JAX take batches of images, as
    plain functions do; Equinox (Equimo) takes one, channels first.

    Raises:
        InputError: Something else, or a model that lacks its weights.
    """
    if isinstance(model, nnx.Module):
        graph, state = nnx.split(model)
        ours = nnx.merge(graph, state, copy=True)
        ours.eval()
        return _of_batch(ours)
    if isinstance(model, linen.Module):
        if model.scope is None:
            raise InputError(
                "model: a Flax module without its weights, expected module.bind(variables)"
            )
        module, variables = model.unbind()
        options = _options(module.__call__)
        return lambda image: module.apply(variables, image[None], **options)
    libraries = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "keras" in libraries:
        return _keras(model)
    if "equinox" in libraries:
        options = _options(type(model).__call__)
        return lambda image: model(jnp.moveaxis(image, -1, 0), **options)
    if not callable(model):
        raise InputError(
            f"model: expected one of Flax, Equinox or Keras, or a function of images, "
            f"got {type(model).__name__}"
        )
    return lambda image: model(image[None])


def channels_first(model: Any) -> bool:
    """Whether the model's maps have their channels first where their sides do not tell."""
    return any(kind.__module__.startswith("equinox") for kind in type(model).__mro__)


def takes_batches(model: Any) -> bool:
    """Whether the model takes a batch, so that its values have a first axis of 1."""
    return not channels_first(model)


def _of_batch(model: Any) -> OfImage:
    options = _options(type(model).__call__)
    return lambda image: model(image[None], **options)


def _keras(model: Any) -> OfImage:
    variables = [[v.value for v in kind] for kind in _keras_variables(model)]
    if not all(isinstance(value, jnp.ndarray) for kind in variables for value in kind):
        raise InputError("model: Keras computes with another backend, expected KERAS_BACKEND=jax")
    return lambda image: model.stateless_call(*variables, image[None], training=False)[0]


def _keras_variables(model: Any) -> tuple[Any, Any]:
    if not model.built:
        raise InputError("model: a Keras model without its weights, expected one that is built")
    return model.trainable_variables, model.non_trainable_variables


def _options(call: Callable[..., Any]) -> dict[str, Any]:
    """Those of `_FOR_INFERENCE` that a call takes."""
    try:
        names = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in _FOR_INFERENCE.items() if name in names}
