"""Callable pytrees of other libraries, made fit for `jax.jit`: arrays on one side, the rest on the
other."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import jax

from fgvce_jax.errors import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Opened:
    """A callable pytree whose array leaves are arguments of a compiled program, the rest constants.

    Attributes:
        arrays: Its array leaves, in order.
        others: Its other leaves (activations, flags, ...), each with its place among all.
        structure: How the leaves make up the callable.
    """

    arrays: tuple[Any, ...]
    others: tuple[tuple[int, Hashable], ...] = field(metadata={"static": True})
    structure: Any = field(metadata={"static": True})

    def __call__(self, *arguments: Any) -> Any:
        """Call the original."""
        arrays, others = iter(self.arrays), dict(self.others)
        leaves = [
            others[i] if i in others else next(arrays) for i in range(self.structure.num_leaves)
        ]
        return jax.tree.unflatten(self.structure, leaves)(*arguments)


def fit_for_jit(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a pytree of arrays that can be called, so that it can enter `jax.jit`.

    A plain function becomes a `Partial`; a pytree that holds other things beside arrays, such as
    an Equinox module with its activation, is opened; any other is returned as it is.

    Args:
        name: For the error.
        function: The callable.

    Raises:
        InputError: A leaf that is neither an array nor hashable.
    """
    if jax.tree_util.all_leaves([function]):
        return jax.tree_util.Partial(function)
    leaves, structure = jax.tree.flatten(function)
    arrays = tuple(leaf for leaf in leaves if _is_array(leaf))
    # Without any array, JAX itself is filling the tree with something else.
    if not arrays or len(arrays) == len(leaves):
        return function
    others = tuple((i, leaf) for i, leaf in enumerate(leaves) if not _is_array(leaf))
    for _, leaf in others:
        if not isinstance(leaf, Hashable):
            raise InputError(
                f"{name}: holds a {type(leaf).__name__} that is neither an array nor hashable; "
                f"expected jax.tree_util.Partial(function, weights)"
            )
    return Opened(arrays, others, structure)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")
