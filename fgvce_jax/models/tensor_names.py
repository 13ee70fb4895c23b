"""The names and shapes that tensors have in torch, under an architecture's published names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from fgvce_jax.errors import InputError
from fgvce_jax.models.architecture import Renames
from fgvce_jax.models.named import named
from fgvce_jax.models.spec import ModelSpec, template

# Around a network: Lightning modules, DataParallel, torch.compile, wrappers of people's own.
PREFIXES = {
    *("model", "module", "net", "network", "backbone", "_orig_mod"),
    *("resnet", "vgg", "convnext", "vit", "deit", "dinov2", "dinov2_with_registers", "swin"),
}
TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
VGG_CELLS = 7  # the side of the cells that torchvision's VGG pools to before its dense layers

Found = dict[str, tuple[str, ...]]
"""Tensors in a file, by the name that an architecture has for them: one, or those to be joined."""


def published_names(names: Iterable[str], renames: Renames = ()) -> Found:
    """Names as found in a file by the name that the architecture has for them.

    Prefixes are taken off, other libraries' names are changed by `renames`, and BatchNorm's step
    counters, which inference has no use for, are left out.

    Raises:
        InputError: Two of them come to the same name.
    """
    found: dict[str, dict[str, str]] = {}
    for original in names:
        parts = original.split(".")
        while parts[0] in PREFIXES:
            parts = parts[1:]
        if parts[-1:] == ["num_batches_tracked"]:
            continue
        name = ".".join(parts)
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if not name:
            continue
        name, _, place = name.partition("#")
        others = found.setdefault(name, {})
        if place in others or (others and "" in (place, *others)):
            raise InputError(
                f"weights: {next(iter(others.values()))} and {original} are both {name}"
            )
        others[place] = original
    return {name: tuple(parts[place] for place in sorted(parts)) for name, parts in found.items()}


def joined(tensors: Mapping[str, np.ndarray], parts: tuple[str, ...]) -> np.ndarray:
    """The tensor that these make, one below the other."""
    return tensors[parts[0]] if len(parts) == 1 else np.concatenate([tensors[p] for p in parts])


def joined_shape(tensors: Mapping[str, np.ndarray], parts: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of `joined`, without the work."""
    shapes = [tensors[part].shape for part in parts]
    return shapes[0] if len(parts) == 1 else (sum(s[0] for s in shapes if s), *shapes[0][1:])


def torch_name(name: str) -> str:
    """A name of ours as torch has it: `weight` for `kernel` and `scale`."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.{TORCH_NAMES.get(kind, kind)}"


def torch_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an array of ours, of this name, has in torch."""
    if name == "classifier.0.kernel":
        return (shape[-1], shape[-2] * VGG_CELLS**2)
    if not name.endswith(".kernel"):
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def shapes_of(originals: Found, tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The shapes in torch, by the architecture's names."""
    return {name: joined_shape(tensors, parts) for name, parts in originals.items()}


def num_classes_of(spec: ModelSpec, originals: Found, tensors: Mapping[str, np.ndarray]) -> int:
    """The number of classes of a file's tensors, or 0 where it has no such layer."""
    *_, last = spec.architecture.head_names.values()
    return joined(tensors, originals[last]).size if last in originals else 0


@lru_cache
def expected_shapes(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an architecture's tensors in torch by name."""
    ours = named(template(ModelSpec(arch), num_classes, 224))
    return {
        torch_name(name): torch_shape(name, leaf.shape)
        for name, leaf in ours.items()
        if name not in ("mean", "std")
    }
