"""A bank on disk: kept with a key of its inputs, and built again where that differs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from fgvce_jax.bank import Bank
from fgvce_jax.config import BankConfig
from fgvce_jax.errors import InputError
from fgvce_jax.files import whole_file
from fgvce_jax.progress import notify

Skipped = Sequence[Mapping[str, str]]
"""The reference images that could not be read: their "id" and "why"."""

_TEXTS = ("key", "config", "skipped")


def open_bank(
    path: Path, key: Mapping[str, Any], build: Callable[[], tuple[Bank, Skipped]]
) -> tuple[Bank, Skipped]:
    """The bank in a file, if it was made of `key`; else the one that `build` makes.

    `key` is all that the bank depends on, as JSON can hold it. InputError where `path` is something
    else, which is never overwritten, or lies in no folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"bank_file {path}: expected an existing folder to keep it in")
    if path.exists() and not _is_bank(path):
        raise InputError(
            f"bank_file {path}: holds something else, expected a bank or a file that is not there"
        )
    if path.exists():
        try:
            return load_bank(path, key)
        except InputError as error:
            notify(f"{error}; building it again")
    bank, skipped = build()
    with whole_file(path) as file:
        save_bank(bank, file, key, skipped)
    return bank, skipped


def _is_bank(path: Path) -> bool:
    """Whether a file has the entries of a bank, damaged or not."""
    try:
        with zipfile.ZipFile(path) as file:
            return {f"{name}.npy" for name in _TEXTS} <= set(file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def save_bank(bank: Bank, file: IO[bytes], key: Mapping[str, Any], skipped: Skipped = ()) -> None:
    """Write the bank as .npz, with all that it was made of: `load_bank` asks for the same key."""
    texts = {"key": key, "config": asdict(bank.config), "skipped": list(skipped)}
    entries: dict[str, Any] = {name: json.dumps(text) for name, text in texts.items()}
    for name in (field.name for field in fields(bank)):
        if name != "config" and getattr(bank, name) is not None:
            entries[name] = np.asarray(getattr(bank, name))
    np.savez(file, **entries)


def load_bank(path: Path, key: Mapping[str, Any]) -> tuple[Bank, Skipped]:
    """Read a bank that `save_bank` wrote, and which images were skipped when it was built.

    InputError where the file cannot be read, or was made of something else than `key`.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
        kept, config, skipped = (json.loads(str(arrays.pop(name))) for name in _TEXTS)
        arrays.setdefault("prepared", None)
        bank = Bank(**arrays, config=BankConfig(**config))
    except Exception as error:  # zipfile, json and numpy each have their own
        raise InputError(f"bank {path}: cannot be read ({error})") from error
    for name in sorted(kept.keys() | key.keys()):
        if kept.get(name) != key.get(name):
            raise InputError(
                f"bank {path}: made with {name} {kept.get(name)}, expected {key.get(name)}"
            )
    return bank, skipped
