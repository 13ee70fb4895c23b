"""A finished run, read back; and its summary as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json
from fgvce_jax.results.parts import FORMAT


class Maps(Mapping[str, np.ndarray]):
    """The maps of a run by name, float32 [M, n, n]; each is read from the disk when asked for."""

    def __init__(self, path: Path, rows: int):
        self._path = path
        self._names = _arrow(path, pq.read_schema).names
        if (found := _arrow(path, pq.read_metadata).num_rows) != rows:
            raise InputError(f"{path}: expected the maps of {rows} explanations, got {found}")

    def __getitem__(self, name: str) -> Float[np.ndarray, "M n n"]:
        if name not in self._names:
            raise KeyError(name)
        column = _read_table(self._path, [name])[name]
        return column.combine_chunks().to_numpy_ndarray()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
    table, predictions = (
        _read_table(folder / f"{name}.parquet") for name in ("explanations", "predictions")
    )
    return RunResults(folder, table, predictions, Maps(folder / "maps.parquet", len(table)), info)


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


def _read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    return _arrow(path, pq.read_table, columns=columns, page_checksum_verification=True)


def _arrow(path: Path, read: Callable[..., Any], **options: Any) -> Any:
    try:
        return read(path, **options)
    except (OSError, pa.ArrowException) as error:
        why = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: damaged or missing ({why})") from error


def summary(folder: Path) -> str:
    """The counts and medians of a run, in a few lines; the last names the report."""
    results = read_run(folder)
    counts = results.info["counts"]
    table = results.table.filter(pc.field("status") == "explained")
    seconds = table["time_s"].to_numpy()
    edits = table["num_edits"].to_numpy()[table["flipped"].to_numpy(zero_copy_only=False)]
    lines = [
        f"images          {counts['read']:,}"
        + (f" ({counts['skipped']} skipped)" if counts["skipped"] else ""),
        f"accuracy        {counts['correct'] / max(counts['read'], 1):.1%}",
        f"misclassified   {counts['misclassified']:,}",
        f"explained       {counts['explained']:,}"
        + (f" ({counts['no_reference']} without a reference)" if counts["no_reference"] else ""),
    ]
    if counts["explained"]:
        share = counts["flipped"] / counts["explained"]
        most = (
            f"median {np.median(edits):.0f}, most {edits.max()}" if len(edits) else "none flipped"
        )
        lines += [
            f"flipped         {counts['flipped']:,} ({share:.1%})",
            f"edits           {most}",
            f"time            {1000 * np.median(seconds):.1f} ms per explanation",
        ]
    return "\n".join([*lines, f"report          {folder / 'report.html'}"])
