"""A finished run, read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json
from fgvce_jax.results.parts import EXPLANATIONS, FORMAT


class Rows:
    """Rows of a table in Parquet files, in order; columns are read from the disk when asked for.

    Attributes:
        names: Of its columns.
        chosen: Which of its rows; None for all.
    """

    def __init__(self, paths: Sequence[Path], chosen: Int[np.ndarray, "M"] | None = None):
        """`paths` are of files with the same columns, at least one."""
        self._paths, self.chosen = tuple(paths), chosen
        self.names = tuple(_arrow(paths[0], pq.read_schema).names)
        self._counts = [_arrow(path, pq.read_metadata).num_rows for path in paths]

    def __len__(self) -> int:
        return sum(self._counts) if self.chosen is None else len(self.chosen)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns; InputError where the file is damaged."""
        tables = [
            _arrow(path, self._read, columns=list(columns), first=first)
            for path, first in zip(self._paths, self._firsts, strict=True)
        ]
        return pa.concat_tables(tables)

    def choose(self, chosen: Int[np.ndarray, "M"]) -> Rows:
        """Those at ascending places alone."""
        return Rows(self._paths, chosen)

    @property
    def _firsts(self) -> list[int]:
        """The number of each file's first row."""
        return np.cumsum([0, *self._counts[:-1]]).tolist()

    def _read(self, path: Path, columns: list[str], first: int) -> pa.Table:
        """The chosen rows of a file, which holds those from `first` on; a group at a time."""
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            if self.chosen is None:
                return file.read(columns)
            found = [file.read_row_groups([], columns)]
            for group in range(file.num_row_groups):
                places = self.chosen - first
                first += (count := file.metadata.row_group(group).num_rows)
                places = places[(places >= 0) & (places < count)]
                if len(places):
                    found.append(file.read_row_group(group, columns).take(places))
            return pa.concat_tables(found)


class Maps(Mapping[str, np.ndarray]):
    """The maps of a run by name, float32 [M, n, n]; each is read from the disk when asked for.

    Attributes:
        rows: That hold them, beside other columns or alone.
    """

    def __init__(self, rows: Rows):
        self.rows = rows
        self._names = [name for name in rows.names if name not in EXPLANATIONS.names]

    def __getitem__(self, name: str) -> Float[np.ndarray, "M n n"]:
        if name not in self._names:
            raise KeyError(name)
        column = self.rows.read([name])[name].combine_chunks()
        if isinstance(column, pa.FixedShapeTensorArray):
            return column.to_numpy_ndarray()
        shape, kind = [len(column)], column.type
        while isinstance(kind, pa.FixedSizeListType):
            shape.append(kind.list_size)
            column, kind = column.flatten(), kind.value_type
        return column.to_numpy().reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class RunResults:
    """A finished run. What it holds is read from the disk when it is asked for.

    Attributes:
        folder: Where it lies.
        info: run.json.
        explanations: The rows of its explanations, columns as in `EXPLANATIONS`: to read some of
            them (`explanations.read(["target", "flipped"])`) where all would be too many.
        maps: float32 [M, n, n] by name, rows as in the explanations.
    """

    folder: Path
    info: dict[str, Any]
    explanations: Rows
    maps: Maps

    @cached_property
    def table(self) -> pa.Table:
        """A row per explanation, columns as in `EXPLANATIONS`."""
        return self.explanations.read(EXPLANATIONS.names)

    @cached_property
    def predictions(self) -> pa.Table:
        """A row per image read, columns as in `PREDICTIONS`."""
        rows = Rows([self.folder / "predictions.parquet"])
        return rows.read(rows.names)

    def sample(self, most: int) -> RunResults:
        """The run with `most` of its explanations, evenly spaced; itself where it has no more."""
        count = len(self.explanations)
        if count <= most:
            return self
        chosen = np.linspace(0, count - 1, most).astype(int)
        maps = Maps(self.maps.rows.choose(chosen))
        return replace(self, explanations=self.explanations.choose(chosen), maps=maps)

    @property
    def config(self) -> ExplainConfig:
        """The run's config; InputError where run.json holds none."""
        try:
            return from_dict(ExplainConfig, self.info["config"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.folder / 'run.json'}: config: expected that of a run, got another ({error})"
            ) from error


def read_run(folder: str | PathLike[str]) -> RunResults:
    """Read a run back, whether its tables are files or, of a large one, datasets of several files.

    Raises:
        InputError: There is none, it is not finished, or a file of it is damaged or missing. That
            the content of a file is damaged is found when it is read.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: expected the folder of a run, found no config.json")
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: the run is not finished; run it again to continue it")
    info = _read_info(folder / "run.json")
    Rows([folder / "predictions.parquet"])
    if (parts := folder / "explanations").is_dir():
        if not (paths := sorted(parts.glob("part-*.parquet"))):
            raise InputError(f"{parts}: damaged or missing (no file is in it)")
        rows = maps = Rows(paths)
    else:
        rows, maps = Rows([folder / "explanations.parquet"]), Rows([folder / "maps.parquet"])
    expected = info["counts"].get("explained", 0) + info["counts"].get("no_reference", 0)
    for name, found in (("explanations", rows), ("maps", maps)):
        if len(found) != expected:
            raise InputError(
                f"{folder / name}.parquet: expected the {name} of {expected} images, "
                f"got {len(found)}"
            )
    return RunResults(folder, info, rows, Maps(maps))


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


def _arrow(path: Path, read: Callable[..., Any], **options: Any) -> Any:
    try:
        return read(path, **options)
    except (OSError, pa.ArrowException) as error:
        why = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: damaged or missing ({why})") from error
