"""The parts of a run put together, one after the other: the tables, the maps and the counts.

A split of at most `IN_ONE_FILE` images has a file for each table. Those of a larger one stay in
parts: `explanations/` is a Parquet dataset, the maps among its columns as n lists of n numbers,
which pandas, polars and DuckDB read as they are.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import whole_file, whole_folder
from fgvce_jax.results.parts import (
    EXPLANATIONS,
    PREDICTIONS,
    open_part,
    part_path,
    read_part,
    tensors,
)

IN_ONE_FILE = 50_000  # images of a split
ROWS_OF_A_FILE = 10_000  # or a few more, of a table in several files

_Write = Callable[[pa.Table], None]


def merge_parts(
    parts: Path,
    numbers: Sequence[int],
    class_names: Sequence[str],
    map_names: Sequence[str],
    folder: Path,
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write the tables and the maps of some of a run's parts into a folder, a part at a time.

    Returns:
        The counts of run.json, and the skipped images: their index, id and why.

    Raises:
        InputError: A map has another shape in a later part.
        Unfinished: A part is damaged or out of place, or the disk is full.
    """
    names = pa.array(class_names, pa.string())
    paths = {number: part_path(parts, number) for number in numbers}
    maps, images = _map_fields(list(paths.values()), map_names)
    counts, skipped = Counter[str](), []
    with ExitStack() as stack:
        predictions = stack.enter_context(_file(folder / "predictions.parquet", PREDICTIONS))
        explanations = stack.enter_context(_explanations(folder, maps, images > IN_ONE_FILE))
        for part in _in_order(paths):
            lost = part.filter(pc.field("status") == "skipped")
            skipped += lost.select(["index", "id", "why"]).to_pylist()
            read = part.filter(pc.field("status") != "skipped")
            counts.update(read["status"].to_pylist())
            correct = read["predicted"].to_numpy() == read["label"].to_numpy()
            counts["correct"] += int(correct.sum())
            read = read.select(["index", "id", "label", "predicted"])
            predictions(read.rename_columns(PREDICTIONS.names))
            found = part.filter(pc.field("status").isin(("explained", "no_reference")))
            counts["flipped"] += found["flipped"].to_pylist().count(True)
            for name in ("target", "predicted"):
                found = found.append_column(f"{name}_name", names.take(found[name]))
            explanations(found)
    return _in_full(counts, len(skipped)), skipped


def _in_order(paths: Mapping[int, Path]) -> Iterator[pa.Table]:
    """The parts, verified, their images in the order of the split."""
    last = -1
    for number, path in paths.items():
        part = read_part(path, number)
        index = part["index"].to_numpy()
        if np.any(np.diff(index, prepend=last) <= 0):
            raise Unfinished(
                f"{path}: images {index.min()} to {index.max()}, expected ascending ones above "
                f"{last}; remove this part and run again"
            )
        last = int(index[-1])
        yield part


def _in_full(counts: Counter[str], skipped: int) -> dict[str, int]:
    """The counts of run.json from those of the statuses, correct and flipped images."""
    read = counts["unexplained"] + counts["explained"] + counts["no_reference"]
    return {
        "images": read + skipped,
        "skipped": skipped,
        "read": read,
        "correct": counts["correct"],
        "misclassified": read - counts["correct"],
        **{name: counts[name] for name in ("explained", "flipped", "no_reference")},
    }


# --- the files ----------------------------------------------------------------------------------


@contextmanager
def _explanations(folder: Path, maps: pa.Schema, many: bool) -> Iterator[_Write]:
    """Takes the explanations of a part, with the names of their classes and their maps."""
    remove_explanations(folder)
    if many:
        nested = pa.schema([(field.name, _nested(field.type.shape)) for field in maps])
        schema = pa.schema([*EXPLANATIONS, *nested])
        with whole_folder(folder / "explanations") as new, _Files(new, schema) as files:
            yield lambda found: files.write(
                pa.table([*_table(found).columns, *_maps(found, nested).columns], schema=schema)
            )
        return
    with (
        _file(folder / "explanations.parquet", EXPLANATIONS) as write,
        _file(folder / "maps.parquet", maps) as write_maps,
    ):

        def both(found: pa.Table) -> None:
            write(_table(found))
            if len(found):  # pyarrow makes no empty tensors
                write_maps(_maps(found, maps))

        yield both


def remove_explanations(folder: Path) -> None:
    """Remove them in either form: a run of another version may have left the other one."""
    for name in ("explanations.parquet", "maps.parquet"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "explanations", ignore_errors=True)


@contextmanager
def _file(path: Path, schema: pa.Schema) -> Iterator[_Write]:
    """A table in a file."""
    with (
        whole_file(path) as file,
        pq.ParquetWriter(file, schema, write_page_checksum=True) as writer,
    ):
        yield writer.write_table


class _Files:
    """A table in the files of a folder, `ROWS_OF_A_FILE` rows and the rest of a part in each."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self._folder, self._schema, self._count = folder, schema, 0
        self._file, self._rows = ExitStack(), ROWS_OF_A_FILE

    def __enter__(self) -> _Files:
        return self

    def write(self, table: pa.Table) -> None:
        """Append a part's rows, to a new file where the last one is full."""
        if self._rows >= ROWS_OF_A_FILE:
            self._file.close()
            path = part_path(self._folder, self._count)
            self._write = self._file.enter_context(_file(path, self._schema))
            self._rows, self._count = 0, self._count + 1
        self._rows += len(table)
        self._write(table)

    def __exit__(self, *error) -> None:
        self._file.__exit__(*error)


def _table(found: pa.Table) -> pa.Table:
    return found.select(EXPLANATIONS.names).cast(EXPLANATIONS)


# --- the maps -----------------------------------------------------------------------------------


def _map_fields(paths: Sequence[Path], names: Sequence[str]) -> tuple[pa.Schema, int]:
    """A column for each of `names`, there or not, and for every other map that the parts hold; and
    how many images these have."""
    nothing = pa.fixed_shape_tensor(pa.float32(), (1, 1))  # where no image was explained
    found: dict[str, Any] = {}
    images = 0
    for path in paths:
        with open_part(path) as file:
            columns = file.schema_arrow
            images += file.metadata.num_rows
        for name, kind in zip(columns.names, columns.types, strict=True):
            if not name.startswith("map:"):
                continue
            if (known := found.setdefault(name.removeprefix("map:"), kind)) != kind:
                raise InputError(
                    f"{path}: map {name.removeprefix('map:')} has shape {list(kind.shape)}, before "
                    f"{list(known.shape)}"
                )
    every = dict.fromkeys((*names, *found))
    return pa.schema([(name, found.get(name, nothing)) for name in every]), images


def _nested(shape: Sequence[int]) -> pa.DataType:
    """Lists of lists in the place of a tensor, for those who know no tensors."""
    kind: pa.DataType = pa.float32()
    for size in reversed(shape):
        kind = pa.list_(kind, size)
    return kind


def _maps(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """The maps of a part's explanations; NaN where a part lacks one."""

    def column(field: pa.Field) -> pa.Array:
        name, tensor = f"map:{field.name}", isinstance(field.type, pa.FixedShapeTensorType)
        shape = field.type.shape if tensor else _shape(field.type)
        if name in found.column_names:
            values = found[name].combine_chunks()
        elif len(found):
            values = tensors(np.full((len(found), *shape), np.nan))
        else:
            return pa.array([], field.type)
        return values if tensor else _lists(values.storage.flatten(), field.type)

    return pa.table([column(field) for field in schema], schema=schema)


def _shape(kind: Any) -> tuple[int, ...]:
    """Of the arrays in a column of lists of lists."""
    nested = isinstance(kind, pa.FixedSizeListType)
    return (kind.list_size, *_shape(kind.value_type)) if nested else ()


def _lists(values: pa.Array, kind: Any) -> pa.Array:
    """All numbers of the maps as a column of lists of lists."""
    if not isinstance(kind, pa.FixedSizeListType):
        return values
    return pa.FixedSizeListArray.from_arrays(_lists(values, kind.value_type), type=kind)
