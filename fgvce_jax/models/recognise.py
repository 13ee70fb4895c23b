"""Which network a file's tensors are of."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from fgvce_jax.errors import InputError
from fgvce_jax.models.architecture import Renames
from fgvce_jax.models.named import compare_shapes
from fgvce_jax.models.positions import NAME as POSITIONS
from fgvce_jax.models.spec import NETWORKS, ModelSpec
from fgvce_jax.models.tensor_names import (
    Found,
    expected_shapes,
    joined_shape,
    num_classes_of,
    published_names,
    shapes_of,
)

# Names as people write them, by patterns of ours.
TITLES = (
    (r"^resnet(\d+)$", r"ResNet-\1"),
    (r"^vgg(\d+)$", r"VGG-\1"),
    (r"^vgg(\d+)_bn$", r"VGG-\1 with batch norm"),
    (r"^convnext_(\w+)$", r"ConvNeXt-\1"),
    (r"^efficientnet_lite0$", "EfficientNet-Lite0"),
    (r"^(vit|deit)_(\w+?)_(\d+)", lambda m: f"{_CASES[m[1]]}-{m[2].title()}/{m[3]}"),
    (r"^dinov2_(\w+?)_(\d+)", lambda m: f"DINOv2-{m[1].title()}/{m[2]}"),
    (r"^swin_t$", "Swin-T"),
    (r"_distilled(_cls)?$", " (distilled)"),
    (r"_reg$", " with registers"),
)
_CASES = {"vit": "ViT", "deit": "DeiT"}


def title(arch: str) -> str:
    """An architecture's name in a sentence, as "a ResNet-18"."""
    for pattern, name in TITLES:
        arch = re.sub(pattern, name, arch)
    return f"{'an' if arch.startswith('E') else 'a'} {arch}"


def recognised(tensors: Mapping[str, np.ndarray], source: str) -> str:
    """The architecture whose weights these are.

    Raises:
        InputError: None is known whose weights these are; where they look like some network's, the
            first differences.
    """
    marked = _marked(tensors)
    exact = [arch for arch in marked if _is(arch, tensors)]
    if exact:
        return exact[0]
    if not marked:
        some = ", ".join(list(tensors)[:3])
        raise InputError(
            f"{source}: {some}, ... are the tensors of no network that is known here, expected one "
            "of those that --arch takes"
        )
    nearest = min(marked, key=lambda arch: len(set.symmetric_difference(*_names(arch, tensors))))
    expected, found = _compared(nearest, tensors)
    compare_shapes(f"{source}: these look like {title(nearest)}'s, but", expected, found)
    raise AssertionError("the shapes differ")  # or it were exact


def refuse_another(
    source: str, spec: ModelSpec, expected: set[str], tensors: Mapping[str, np.ndarray]
) -> None:
    """Raise an `InputError` in a word where the file holds another architecture altogether."""
    ours, marked = title(spec.arch), _marked(tensors)
    others = [arch for arch in marked if arch != spec.arch and _is(arch, tensors)]
    if not others and spec.arch not in marked and spec.arch in NETWORKS:
        others = marked
    if others:
        raise InputError(
            f"{source}: these look like {title(others[0])}'s (--arch {others[0]}); expected "
            f"{ours}'s"
        )
    if not expected & set(published_names(tensors, spec.architecture.renames)):
        some = ", ".join(list(tensors)[:3])
        raise InputError(
            f"{source}: {some}, ... are another network's; expected {ours}'s, of {len(expected)} "
            "tensors"
        )


def _marked(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Those whose mark is among the tensors; the others' shapes need not be worked out."""
    by_renames: dict[Renames, Found] = {}
    marked = []
    for arch, known in NETWORKS.items():
        if known.renames not in by_renames:
            try:
                by_renames[known.renames] = published_names(tensors, known.renames)
            except InputError:
                by_renames[known.renames] = {}
        name, shape = known.mark
        originals = by_renames[known.renames]
        if name in originals and joined_shape(tensors, originals[name]) == shape:
            marked.append(arch)
    return marked


def _is(arch: str, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether these are an architecture's weights, by names and shapes."""
    expected, found = _compared(arch, tensors)
    return found == expected


def _names(arch: str, tensors: Mapping[str, np.ndarray]) -> tuple[set[str], set[str]]:
    expected, found = _compared(arch, tensors)
    return set(expected), set(found)


def _compared(
    arch: str, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The shapes of an architecture's tensors and of these, of any size of images."""
    known = NETWORKS[arch]
    originals = published_names(tensors, known.renames)
    num_classes = num_classes_of(ModelSpec(arch), originals, tensors) or 1
    expected = dict(expected_shapes(arch, num_classes))
    found = shapes_of(originals, tensors)
    if known.positions is not None and POSITIONS in found:
        expected[POSITIONS] = found[POSITIONS]
    return expected, found
