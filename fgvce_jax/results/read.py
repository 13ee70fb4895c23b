"""A finished run, read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json
from fgvce_jax.results.schema import FORMAT


class Maps(Mapping[str, np.ndarray]):
    """The maps of a run by name, float32 [M, n, n]; each stays on the disk until it is used.

    Raises:
        InputError: A file that is not the map of `rows` explanations.
    """

    def __init__(self, folder: Path, rows: int):
        self._files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
        self._rows = rows

    def __getitem__(self, name: str) -> Float[np.ndarray, "M ..."]:
        path = self._files[name]
        try:
            values = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise InputError(f"{path}: damaged ({error})") from error
        if values.dtype != np.float32 or len(values) != self._rows:
            raise InputError(
                f"{path}: expected float32 of {self._rows} explanations, got {values.dtype} "
                f"{list(values.shape)}"
            )
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True)
class RunResults:
    """A finished run.

    Attributes:
        folder: Where it lies.
        table: A row per explanation, columns as in `EXPLANATIONS`.
        predictions: A row per image read, columns as in `PREDICTIONS`.
        maps: float32 [M, n, n] by name, rows as in `table`.
        info: run.json.
    """

    folder: Path
    table: pa.Table
    predictions: pa.Table
    maps: Mapping[str, np.ndarray]
    info: dict[str, Any]

    @property
    def config(self) -> ExplainConfig:
        """The run's config; InputError where run.json holds none."""
        try:
            return from_dict(ExplainConfig, self.info["config"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.folder / 'run.json'}: config: expected that of a run, got another ({error})"
            ) from error


def read_run(folder: str | Path) -> RunResults:
    """Read a run back.

    Raises:
        InputError: There is none, it is not finished, or a file of it is damaged.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: expected the folder of a run, found no config.json")
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: the run is not finished; run it again to continue it")
    info = _read_info(folder / "run.json")
    table, predictions = (_read_table(folder / f"{name}.parquet") for name in _TABLES)
    return RunResults(folder, table, predictions, Maps(folder / "maps", len(table)), info)


_TABLES = ("explanations", "predictions")
_INFO = {"format": str, "config": dict, "counts": dict, "skipped": list}


def _read_info(path: Path) -> dict[str, Any]:
    info = read_json(path)
    for name, kind in _INFO.items():
        if not isinstance(info.get(name), kind):
            found = type(info[name]).__name__ if name in info else "none"
            raise InputError(f"{path}: {name}: expected a {kind.__name__}, got {found}")
    if info["format"] != FORMAT:
        raise InputError(f"{path}: format: expected {FORMAT}, got {info['format']}")
    return info


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        why = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: damaged or missing ({why})") from error
