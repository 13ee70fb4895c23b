"""What a folder of Hugging Face's says of its weights: labels, constants and preprocessing.

transformers keeps them in config.json and preprocessor_config.json, timm in config.json alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json
from fgvce_jax.models.preprocessing import Preprocessing
from fgvce_jax.models.weights_file import INDEX

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
SMALL_CONVNEXT = 384  # from this size on transformers does not crop ConvNeXt's images


@dataclass(frozen=True)
class Described:
    """What stands beside weights.

    Attributes:
        weights: The file of the weights.
        class_names: Their labels in order; none where they are only numbered.
        epsilon: Added to the variance in the norms, as it stands there; None where it does not.
        heads: Attention heads; likewise.
        preprocessing: Where it is said.
    """

    weights: Path
    class_names: tuple[str, ...] = ()
    epsilon: Any = None
    heads: Any = None
    preprocessing: Preprocessing | None = None


def described(path: Path) -> Described:
    """A folder of Hugging Face's, or a weights file and what stands beside it.

    InputError for a folder without weights or config.json, or values that no network here has.
    """
    if not path.is_dir():
        beside = path.parent / CONFIG
        if not path.is_file() or not beside.is_file():
            return Described(path)
        config = read_json(beside)
        ours = "architecture" in config or "model_type" in config
        return _described(path, config) if ours else Described(path)
    if not (path / CONFIG).is_file():
        raise InputError(f"weights {path}: a folder without {CONFIG}, expected one of Hugging Face")
    found = [path / name for name in WEIGHTS if (path / name).is_file()]
    if not found:
        raise InputError(f"weights {path}: expected {WEIGHTS[0]} or {WEIGHTS[2]} in it")
    return _described(found[0], read_json(path / CONFIG))


def _described(weights: Path, config: Mapping[str, Any]) -> Described:
    folder = weights.parent
    act = config.get("hidden_act", "gelu")
    if act not in ("gelu", "relu"):
        raise InputError(f"{folder / CONFIG}: hidden_act {act!r}: expected gelu or relu")
    if isinstance(config.get("pretrained_cfg"), dict):
        chosen = _of_timm(folder / CONFIG, config["pretrained_cfg"])
    elif (folder / PREPROCESSOR).is_file():
        chosen = _of_transformers(folder / PREPROCESSOR)
    else:
        chosen = None
    return Described(
        weights,
        _labels(folder / CONFIG, config),
        config.get("layer_norm_eps"),
        config.get("num_attention_heads", config.get("num_heads")),
        chosen,
    )


def _labels(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in order, a repeated one with its number; none where they are but numbers."""
    labels = config.get("label_names") or config.get("id2label") or {}
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    try:
        names = {int(place): str(name).strip() for place, name in labels.items()}
    except (AttributeError, ValueError) as error:
        raise InputError(f"{path}: id2label: expected a name for each number") from error
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: id2label: expected the numbers from 0 to {len(names) - 1}")
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        return ()
    times = Counter(names.values())
    return tuple(
        f"{names[k]} ({k})" if times[names[k]] > 1 else names[k] for k in range(len(names))
    )


def _of_timm(path: Path, config: Mapping[str, Any]) -> Preprocessing:
    size = _whole(path, "input_size", (config.get("input_size") or [0])[-1])
    share = _number(path, "crop_pct", config.get("crop_pct") or 1.0)
    squashed = config.get("crop_mode") == "squash"
    resize_to = None if squashed else max(size, math.floor(size / share))
    return Preprocessing(size, resize_to, config.get("mean"), config.get("std"), path.name)


def _of_transformers(path: Path) -> Preprocessing:
    config = read_json(path)
    factor = _number(path, "rescale_factor", config.get("rescale_factor", 1 / 255))
    if not config.get("do_rescale", True) or not math.isclose(factor, 1 / 255, rel_tol=1e-4):
        raise InputError(f"{path}: rescale_factor {factor}: expected 1/255")
    if config.get("rescale_offset"):
        raise InputError(f"{path}: rescale_offset: expected none")
    mean, std = config.get("image_mean"), config.get("image_std")
    if not config.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    image_size, resize_to = _sizes(path, config)
    return Preprocessing(image_size, resize_to, mean, std, path.name)


def _sizes(path: Path, config: Mapping[str, Any]) -> tuple[int, int | None]:
    """The side of the images, and of what they are cut out of (None: of the whole image)."""
    size = config.get("size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    if "crop_pct" in config:  # a ConvNeXt's
        edge = _whole(path, "size", size if edge is None else edge)
        cropped = edge < SMALL_CONVNEXT
        share = _number(path, "crop_pct", config["crop_pct"] or 224 / 256)
        return edge, int(edge / share) if cropped else None
    if config.get("do_center_crop", "crop_size" in config):
        image_size = _side(path, "crop_size", config.get("crop_size", size))
        return image_size, max(image_size, _side(path, "size", size))
    if edge is not None:
        return _whole(path, "size", edge), edge
    return _side(path, "size", size), None


def _side(path: Path, name: str, value: Any) -> int:
    """The side of a square, of a number, {height, width} or {shortest_edge}."""
    if isinstance(value, dict):
        sides = set(value.values())
        value = sides.pop() if len(sides) == 1 else value
    return _whole(path, name, value)


def _whole(path: Path, name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise InputError(f"{path}: {name} {value!r}: expected the side of a square in pixels")
    return value


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"{path}: {name} {value!r}: expected a number above 0, at most 1")
    return float(value)
