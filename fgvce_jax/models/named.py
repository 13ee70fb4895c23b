"""A classifier's weights by name.

The names do not depend on where the network is cut: they are those that the architecture's weights
are published with (torchvision's, or timm's for what torchvision lacks), the last part as Flax has
it (`layer4.0.bn1.scale`, `classifier.0.kernel`), and `mean` and `std`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fgvce_jax.errors import InputError
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.spec import ModelSpec, require_spec, template

MOST_NAMED = 5  # tensors of each kind in an error


def _name(path: Any, spec: ModelSpec) -> str:
    parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    if "units" in parts:  # a layer of the network, in the features or in a cut-off rest
        parts = parts[parts.index("units") + 1 :]
        return ".".join(parts[:-1] if parts[-1] == "value" else parts)
    if parts[0] == "features":
        return parts[-1]
    if spec.head == "calm":
        return f"calm.{parts[-1]}"
    while parts[0] == "head":  # twice where the head follows a cut-off rest
        parts = parts[1:]
    return spec.architecture.head_names["/".join(parts)]


def _names(clf: Classifier) -> list[str]:
    spec = require_spec(clf)
    return [_name(path, spec) for path, _ in jax.tree_util.tree_leaves_with_path(clf)]


def named(clf: Classifier) -> dict[str, Any]:
    """Every array of a classifier of this package (or its shape, of a `template`) by name."""
    return dict(zip(_names(clf), jax.tree.leaves(clf), strict=True))


def with_named(clf: Classifier, weights: Mapping[str, Array | np.ndarray]) -> Classifier:
    """The classifier with its arrays replaced.

    Args:
        clf: A classifier, or the `template` of one.
        weights: For every name an array; each takes the dtype that `clf` has there.

    Raises:
        InputError: Missing, unexpected or misshapen arrays, all of them in one line.
    """
    expected = named(clf)
    compare_shapes(
        "weights",
        {name: leaf.shape for name, leaf in expected.items()},
        {name: array.shape for name, array in weights.items()},
    )
    leaves = [jnp.asarray(weights[name], leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(clf), leaves)


def compare_shapes(
    source: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare shapes by name.

    Raises:
        InputError: They differ; one line that names the first differences of each kind.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {tuple(found[name])}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    problems = [
        f"{what}: {first_of(which, separator)}"
        for what, separator, which in (
            ("missing", ", ", missing),
            ("unexpected", ", ", unexpected),
            ("of another shape", "; ", misshapen),
        )
        if which
    ]
    if problems:
        raise InputError(f"{source}: {' | '.join(problems)}")


def first_of(which: Sequence[str], separator: str = ", ") -> str:
    """The first few of many, and how many more there are."""
    more = len(which) - MOST_NAMED
    return separator.join(which[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def recut(clf: Classifier, cut: str | None) -> Classifier:
    """The same classifier and weights, cut elsewhere.

    Args:
        clf: A classifier of this package.
        cut: As in `ModelSpec`.

    Raises:
        InputError: An unknown cut, or a classifier of the user's own functions.
    """
    spec = replace(require_spec(clf), cut=cut)
    other = template(spec, clf.num_classes, clf.image_size)
    other = replace(other, class_names=clf.class_names, resize_to=clf.resize_to)
    return with_named(other, named(clf))
