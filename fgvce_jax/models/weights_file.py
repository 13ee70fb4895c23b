"""Tensors in a file, by the names they have there. Nothing is unpickled but tensors."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fgvce_jax.errors import InputError, MissingPackage
from fgvce_jax.files import read_json

# Around a state dict, in the files that training loops write.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
INDEX = ".index.json"  # of weights in several files, as Hugging Face writes them


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file by the names they have there; floating ones as float32.

    Vectors with axes of length 1 behind them (torchvision's layer scale) come as vectors.

    Args:
        path: A .safetensors file, or .pth, .pt, .ckpt or .bin of torch, which is installed then;
            or the .index.json of Hugging Face's that names several. Nothing is unpickled but
            tensors and plain containers.

    Raises:
        InputError: No such file, a file that cannot be read, or one without tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    if path.name.endswith(INDEX):
        tensors = _read_several(path)
    elif path.suffix == ".safetensors":
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


def _read_several(index: Path) -> dict[str, np.ndarray]:
    """The tensors of every file that an index names, all beside it."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise InputError(f"weights {index}: expected a weight_map from tensors to files")
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(set(files.values())):
        if Path(file).name != file:
            raise InputError(f"weights {index}: expected files beside it, got {file}")
        tensors |= read_weights(index.with_name(file))
    if missing := sorted(set(files) - set(tensors)):
        raise InputError(f"weights {index}: not in its files: {missing[0]}")
    return tensors


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


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`: it has code beside the data."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        other = ", or the weights as .safetensors"
        raise MissingPackage(f"weights {path}", "torch", "torch", other) from error
    if _is_torchscript(path):
        raise InputError(
            f"weights {path}: a TorchScript program, expected a state dict; "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth') makes one"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, depending on which byte is wrong
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"weights {path}: holds a pickled {found[1]}, which is not unpickled; where it was "
                "made, torch.save(model.state_dict(), 'weights.pth') saves the tensors alone"
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
