"""Presets: the YAML files of configs/, given to --config by name, and one's own by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fgvce_jax.assets import shipped
from fgvce_jax.config import ExplainConfig
from fgvce_jax.errors import InputError

# The commands that take a preset, and the command whose fields they have.
_TAKERS = {"demo": "explain", "explain": "explain", "train": "train"}


class Preset(NamedTuple):
    """A preset that is shipped: for --config, of `explain` or `train`, its first comment line."""

    name: str
    command: str
    summary: str


def shipped_presets() -> Iterator[Preset]:
    """Those of configs/, by name."""
    for path in sorted(Path(shipped("configs") or "").glob("*.yaml")):
        command = "explain" if _fits(read_preset(path), "explain") else "train"
        first, _, _ = path.read_text("utf-8").partition("\n")
        yield Preset(path.stem, command, first.removeprefix("#").strip())


def find_preset(name: str) -> Path:
    """The file of a preset: a path, or the name of one that is shipped ("demo")."""
    ours = (shipped(name), shipped(f"configs/{name}.yaml"))
    for path in (Path(name).expanduser(), *ours):  # one's own comes first
        if path is not None and path.is_file():
            return path
    raise InputError(
        f"config {name}: no such file, nor a preset of that name; `fgvce presets` lists them"
    )


def with_presets(words: Sequence[str], command: str | None) -> list[str]:
    """The words of a command line, with a path in the place of the name after each --config.

    InputError for no such file, one that holds no mapping, or a preset of another command.
    """
    out = []
    for word in words:
        out += word.split("=", 1) if word.startswith("--config=") else [word]
    for i in range(1, len(out)):
        if out[i - 1] == "--config":
            path = find_preset(out[i])
            content, takes = read_preset(path), _TAKERS.get(command or "")
            other = "explain" if takes == "train" else "train"
            if takes and not _fits(content, takes) and _fits(content, other):
                raise InputError(
                    f"config {out[i]}: a preset of `fgvce {other}`, not of `fgvce {command}`"
                )
            out[i] = str(path)
    return out


def read_preset(path: Path) -> dict[str, Any]:
    """The fields of a preset and their values; InputError where it is not YAML or no mapping."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"config {path}: cannot be read as YAML ({why})") from error
    if not isinstance(content, dict):
        raise InputError(f"config {path}: expected fields and their values")
    return content


def _fits(content: dict[str, Any], command: str) -> bool:
    """Whether all fields are among those of a command, explain or train."""
    kind, options = ExplainConfig, {"out", "ray", "time_limit", "quiet", "verbose"}
    if command == "train":
        from fgvce_jax.train import TrainConfig as kind

        options = options - {"ray", "time_limit"}
    known = options | {field.name for field in fields(kind)}
    return {str(key).split(".")[0] for key in content} <= known
