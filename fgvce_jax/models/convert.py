"""Weights made with torch, read by name: torchvision's, timm's or Hugging Face's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fgvce_jax.errors import InputError
from fgvce_jax.models.architecture import FC_WIDTH, Architecture, Renames
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.named import compare_shapes, named, with_named
from fgvce_jax.models.positions import NAME as POSITIONS
from fgvce_jax.models.spec import NETWORKS, ModelSpec, template

# Around a network: Lightning modules, DataParallel, torch.compile, wrappers of people's own.
PREFIXES = {
    *("model", "module", "net", "network", "backbone", "_orig_mod"),
    *("resnet", "vgg", "convnext", "vit", "deit", "dinov2", "dinov2_with_registers", "swin"),
}
# Around a state dict, in the files that training loops write.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
VGG_CELLS = 7  # the side of the cells that torchvision's VGG pools to before its dense layers


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file by the names they have there; floating ones as float32.

    Vectors with axes of length 1 behind them (torchvision's layer scale) come as vectors.

    Args:
        path: A .safetensors file, or .pth, .pt, .ckpt or .bin of torch, which is installed then.
            Nothing in it is unpickled but tensors and plain containers.

    Raises:
        InputError: No such file, a file that cannot be read, or one without tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        tensors = _read_torch(path)
    else:
        known = ", ".join((".safetensors", *TORCH_SUFFIXES))
        raise InputError(f"weights {path}: expected a file ending in one of {known}")
    if not tensors:
        raise InputError(f"weights {path}: expected a state dict, found no tensors by name")
    return {
        name: array.ravel() if array.ndim == 3 and array.shape[1:] == (1, 1) else array
        for name, array in tensors.items()
    }


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(
            f"weights {path}: reading .safetensors needs safetensors (pip install safetensors)"
        ) from error
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            for name in names:
                _check_format(path, name, file.get_slice(name).get_dtype())
            return {name: _float32(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise InputError(f"weights {path}: not a readable .safetensors file ({error})") from error


def _check_format(path: Path, name: str, kind: str) -> None:
    """Raise InputError for a tensor that NumPy has no dtype for, such as quantised ones."""
    if kind not in ("F64", "F32", "F16", "BF16", "BOOL") and not re.fullmatch(r"[IU]\d+", kind):
        raise InputError(
            f"weights {path}: {name} is {kind}, expected F64, F32, F16, BF16 or whole numbers"
        )


def _float32(array: np.ndarray) -> np.ndarray:
    return array if np.issubdtype(array.dtype, np.integer) else np.asarray(array, np.float32)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"weights {path}: reading {path.suffix} needs torch (pip install torch), "
            "or save the weights as .safetensors"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, depending on which byte is wrong
        if "GLOBAL" in str(error):
            raise InputError(
                f"weights {path}: holds Python objects beside tensors, which are not unpickled; "
                "save its state_dict alone, as .safetensors or with torch.save"
            ) from error
        raise InputError(f"weights {path}: not a readable torch file (truncated?)") from error

    def tensors(values: object) -> dict[str, np.ndarray]:
        items = values.items() if isinstance(values, Mapping) else ()
        return {
            name: (value.float() if value.is_floating_point() else value).numpy()
            for name, value in items
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }

    inner = [content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content]
    return next(filter(None, map(tensors, [*inner, content])), {})


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


def _joined(tensors: Mapping[str, np.ndarray], parts: tuple[str, ...]) -> np.ndarray:
    return tensors[parts[0]] if len(parts) == 1 else np.concatenate([tensors[p] for p in parts])


def _joined_shape(tensors: Mapping[str, np.ndarray], parts: tuple[str, ...]) -> tuple[int, ...]:
    shapes = [tensors[part].shape for part in parts]
    return shapes[0] if len(parts) == 1 else (sum(s[0] for s in shapes if s), *shapes[0][1:])


def _torch_name(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{layer}.{TORCH_NAMES.get(kind, kind)}"


def _torch_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if name == "classifier.0.kernel":
        return (shape[-1], shape[-2] * VGG_CELLS**2)
    if not name.endswith(".kernel"):
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


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
            unexpected, misshapen or non-finite tensors, all of them in one line.
    """
    tensors = read_weights(path)
    known = spec.architecture
    source = f"weights {path} for {spec.arch}"
    originals = published_names(tensors, known.renames)
    clf = template(spec, _num_classes(spec, originals, tensors) or 1, image_size)
    ours = {name: leaf.shape for name, leaf in named(clf).items() if name not in ("mean", "std")}
    expected = {_torch_name(name): _torch_shape(name, shape) for name, shape in ours.items()}
    fitted = _fitted_positions(known, originals, tensors, image_size)
    found = _shapes_of(originals, tensors) | {name: leaf.shape for name, leaf in fitted.items()}
    if found != expected:
        _refuse_another_architecture(source, spec, set(expected), tensors)
    compare_shapes(source, expected, found)
    wrong = [part for parts in originals.values() for part in parts]
    wrong = [name for name in wrong if not np.isfinite(tensors[name]).all()]
    if wrong:
        raise InputError(f"{source}: not finite: {', '.join(wrong)}")

    cells = ours.get("classifier.0.kernel", (0,))[0]
    arrays = {
        name: _from_torch(name, _joined(tensors, originals[_torch_name(name)]), cells)
        for name in ours
        if name not in fitted
    }
    arrays |= fitted
    arrays["mean"] = np.asarray(known.mean if mean is None else mean, np.float32)
    arrays["std"] = np.asarray(known.std if std is None else std, np.float32)
    return replace(with_named(clf, arrays), class_names=tuple(class_names), resize_to=resize_to)


def _shapes_of(originals: Found, tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: _joined_shape(tensors, parts) for name, parts in originals.items()}


def _fitted_positions(
    known: Architecture, originals: Found, tensors: Mapping[str, np.ndarray], image_size: int
) -> dict[str, np.ndarray]:
    """The position embeddings for images of this size, where the network and the file have any."""
    if known.positions is None or POSITIONS not in originals:
        return {}
    embedding = _joined(tensors, originals[POSITIONS])
    if embedding.ndim != 3:
        return {}
    return {POSITIONS: known.positions.fitted(embedding, image_size)}


def _num_classes(spec: ModelSpec, originals: Found, tensors: Mapping[str, np.ndarray]) -> int:
    """The number of classes of a file's tensors, or 0 where it has no such layer."""
    *_, last = spec.architecture.head_names.values()
    return _joined(tensors, originals[last]).size if last in originals else 0


def architectures_of(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The architectures whose weights these are, by names and shapes."""
    return tuple(arch for arch in _marked(tensors) if _is(arch, tensors))


def _marked(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Those whose mark is among the tensors; the others' shapes need not be worked out."""
    by_renames: dict[Renames, Found] = {}
    marked = []
    for arch, known in NETWORKS.items():
        try:
            if known.renames not in by_renames:
                by_renames[known.renames] = published_names(tensors, known.renames)
        except InputError:
            by_renames[known.renames] = {}
        name, shape = known.mark
        originals = by_renames[known.renames]
        if name in originals and _joined_shape(tensors, originals[name]) == shape:
            marked.append(arch)
    return marked


def _is(arch: str, tensors: Mapping[str, np.ndarray]) -> bool:
    known = NETWORKS[arch]
    originals = published_names(tensors, known.renames)
    expected = dict(_shapes(arch, _num_classes(ModelSpec(arch), originals, tensors) or 1))
    found = _shapes_of(originals, tensors)
    if set(found) != set(expected):
        return False
    if known.positions is not None:  # of any size of images
        del found[POSITIONS], expected[POSITIONS]
    return found == expected


@lru_cache
def _shapes(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an architecture's tensors in torch by name."""
    ours = named(template(ModelSpec(arch), num_classes, 224))
    return {
        _torch_name(name): _torch_shape(name, leaf.shape)
        for name, leaf in ours.items()
        if name not in ("mean", "std")
    }


def _refuse_another_architecture(
    source: str, spec: ModelSpec, expected: set[str], tensors: Mapping[str, np.ndarray]
) -> None:
    """Raise an `InputError` in a word where the file holds another architecture altogether."""
    others = architectures_of(tensors)
    if others and spec.arch not in others:
        raise InputError(f"{source}: these are weights of another architecture, {others[0]}")
    if not expected & set(published_names(tensors, spec.architecture.renames)):
        some = ", ".join(list(tensors)[:3])
        raise InputError(
            f"{source}: these are weights of another architecture, none of its "
            f"{len(expected)} tensors is among {some}, ..."
        )
