"""Weights made with torch, read by name: torchvision's, timm's or Hugging Face's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fgvce_jax.errors import InputError
from fgvce_jax.models.architecture import FC_WIDTH, Architecture
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.named import compare_shapes, first_of, named, with_named
from fgvce_jax.models.positions import NAME as POSITIONS
from fgvce_jax.models.recognise import refuse_another
from fgvce_jax.models.spec import ModelSpec, template
from fgvce_jax.models.tensor_names import (
    VGG_CELLS,
    Found,
    joined,
    num_classes_of,
    published_names,
    shapes_of,
    torch_name,
    torch_shape,
)
from fgvce_jax.models.weights_file import read_weights


def classifier_from_weights(
    path: str | Path,
    spec: ModelSpec,
    image_size: int = 224,
    *,
    class_names: Sequence[str] = (),
    mean: Sequence[float] | np.ndarray | None = None,
    std: Sequence[float] | np.ndarray | None = None,
    resize_to: int | None = None,
) -> Classifier:
    """A classifier with the weights of a file; the number of classes is theirs.

    A VGG at another size than 224 pools its cells to 7 x 7 as torchvision does, inside its head.

    Args:
        path: As in `read_weights`.
        spec: The architecture.
        image_size: Height and width of the images, in pixels.
        class_names, mean, std, resize_to: As in `build`.

    Raises:
        InputError: A file that cannot be read, weights of another architecture, or missing,
            unexpected, misshapen or non-finite tensors, the first of each in one line.
    """
    return classifier_from_tensors(
        read_weights(path),
        f"weights {path} for {spec.arch}",
        spec,
        image_size,
        class_names=class_names,
        mean=mean,
        std=std,
        resize_to=resize_to,
    )


def classifier_from_tensors(
    tensors: Mapping[str, np.ndarray],
    source: str,
    spec: ModelSpec,
    image_size: int,
    *,
    class_names: Sequence[str],
    mean: Sequence[float] | np.ndarray | None,
    std: Sequence[float] | np.ndarray | None,
    resize_to: int | None,
) -> Classifier:
    """`classifier_from_weights` of tensors that were read already, from what is called `source`."""
    known = spec.architecture
    originals = published_names(tensors, known.renames)
    clf = template(spec, num_classes_of(spec, originals, tensors) or 1, image_size)
    ours = {name: leaf.shape for name, leaf in named(clf).items() if name not in ("mean", "std")}
    expected = {torch_name(name): torch_shape(name, shape) for name, shape in ours.items()}
    fitted = _fitted_positions(known, originals, tensors, image_size)
    found = shapes_of(originals, tensors) | {name: leaf.shape for name, leaf in fitted.items()}
    if found != expected:
        refuse_another(source, spec, set(expected), tensors)
    compare_shapes(source, expected, found)
    wrong = [part for parts in originals.values() for part in parts]
    wrong = [name for name in wrong if not np.isfinite(tensors[name]).all()]
    if wrong:
        raise InputError(f"{source}: not finite: {first_of(wrong)}")

    cells = ours.get("classifier.0.kernel", (0,))[0]
    arrays = {
        name: _from_torch(name, joined(tensors, originals[torch_name(name)]), cells)
        for name in ours
        if name not in fitted
    }
    arrays |= fitted
    arrays["mean"] = np.asarray(known.mean if mean is None else mean, np.float32)
    arrays["std"] = np.asarray(known.std if std is None else std, np.float32)
    return replace(with_named(clf, arrays), class_names=tuple(class_names), resize_to=resize_to)


def _fitted_positions(
    known: Architecture, originals: Found, tensors: Mapping[str, np.ndarray], image_size: int
) -> dict[str, np.ndarray]:
    """The position embeddings for images of this size, where the network and the file have any."""
    if known.positions is None or POSITIONS not in originals:
        return {}
    embedding = joined(tensors, originals[POSITIONS])
    if embedding.ndim != 3:
        return {}
    return {POSITIONS: known.positions.fitted(embedding, image_size)}


def _from_torch(name: str, array: np.ndarray, cells: int) -> np.ndarray:
    """An array of torch in our layout: kernels [H, W, I, O] and [I, O]."""
    if name == "classifier.0.kernel":
        kernel = array.reshape(FC_WIDTH, -1, VGG_CELLS, VGG_CELLS).transpose(2, 3, 1, 0)
        return fold_adaptive_pool(kernel, cells)
    if not name.endswith(".kernel"):
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def fold_adaptive_pool(
    kernel: Float[np.ndarray, "m m C D"], n: int
) -> Float[np.ndarray, "n n C D"]:
    """A dense kernel on m x m cells that were average-pooled from n x n, as one on the latter.

    The pooling is torch's AdaptiveAvgPool2d: output i averages the cells from floor(i n / m) up
    to ceil((i + 1) n / m). It is linear in the cells, so it can be part of the kernel.
    """
    m = len(kernel)
    if n == m:
        return kernel
    pool = np.zeros((m, n), kernel.dtype)
    for i in range(m):
        window = slice(i * n // m, -(-(i + 1) * n // m))
        pool[i, window] = 1 / (window.stop - window.start)
    return np.einsum("ip,jq,ijcd->pqcd", pool, pool, kernel, optimize=True)
