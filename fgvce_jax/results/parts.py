"""The parts of an unfinished run: a Parquet file for each, with checksums and its own number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import fingerprint, whole_file
from fgvce_jax.results.schema import EXPLANATIONS, ImageResult

PART = pa.schema(
    [("label", pa.int32()), ("why", pa.string())]
    + [f for f in EXPLANATIONS if not f.name.endswith("_name")]
)
"""The columns of a part, a row per image; beside them a column "map:NAME" for every map."""


def part_path(folder: Path, number: int) -> Path:
    """The file of part `number` in the folder of the parts."""
    return folder / f"part-{number:05d}.parquet"


def part_numbers(folder: Path) -> frozenset[int]:
    """The numbers of the parts that a folder holds."""
    names = (re.fullmatch(r"part-(\d{5,})\.parquet", path.name) for path in folder.glob("part-*"))
    return frozenset(int(name[1]) for name in names if name)


def write_part(path: Path, number: int, results: Sequence[ImageResult]) -> None:
    """Write a part, with a checksum on every page, its number and a fingerprint of its content.

    Raises:
        InputError: A map of another shape than the same map of an image before it.
        Unfinished: It cannot be written.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for result in results:
        for name, values in result.maps.items():
            if shapes.setdefault(name, values.shape) != values.shape:
                raise InputError(
                    f"map {name} of image {result.id}: expected shape {shapes[name]}, as "
                    f"before, got {values.shape}"
                )
    rows = pa.Table.from_pylist([_row(result) for result in results], PART)
    for name, shape in shapes.items():
        rows = rows.append_column(f"map:{name}", _map_column(results, name, shape))
    rows = rows.replace_schema_metadata({"part": str(number), "content": _content(rows)})
    with whole_file(path) as file:
        pq.write_table(rows, file, write_page_checksum=True)


def _content(table: pa.Table) -> str:
    """A fingerprint of all values; page checksums do not cover the footer that leads to them."""
    maps = [name for name in table.column_names if name.startswith("map:")]
    values = [table[name].combine_chunks().to_numpy_ndarray() for name in maps]
    return fingerprint(table.column_names, table.drop_columns(maps).to_pylist(), values)


def _row(result: ImageResult) -> dict[str, Any]:
    p = list(result.p_target)
    return {
        "id": result.id,
        "index": result.index,
        "label": result.label,
        "target": result.label if result.target is None else result.target,
        "predicted": result.predicted,
        "status": result.status,
        "why": result.why,
        "flipped": result.flipped,
        "num_edits": len(result.edits),
        "p_target_before": p[0] if p else None,
        "p_target_after": p[-1] if p else None,
        "p_target": p,
        "edits": [vars(edit) for edit in result.edits],
        "time_s": result.time_s,
    }


def _map_column(results: Sequence[ImageResult], name: str, shape: tuple[int, ...]) -> pa.Array:
    """The map of every image; NaN where an image has none."""
    absent = np.full(shape, np.nan, np.float32)
    values = np.stack([np.asarray(r.maps.get(name, absent), np.float32) for r in results])
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


@contextmanager
def _open_part(path: Path) -> Iterator[pq.ParquetFile]:
    """The file of a part; whatever is wrong with it, it cannot be used and is computed again."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    # Arrow raises OSError, ValueError, KeyError and, for some footers, others.
    except Exception as error:
        why = str(error).split("\n", maxsplit=1)[0]
        raise Unfinished(f"{path}: damaged ({why}); run again to redo this part") from error


def read_part(path: Path, number: int) -> pa.Table:
    """Part `number`, its page checksums and its content verified.

    Raises:
        Unfinished: The file is damaged, or is another part.
    """
    with _open_part(path) as file:
        kept = file.schema_arrow.metadata or {}
        found = kept.get(b"part", b"?").decode()
        if found != str(number):
            raise ValueError(f"expected part {number}, it holds part {found}")
        table = file.read()
        table = table.cast(pa.schema([_field(field) for field in table.schema]))
        if kept.get(b"content") != _content(table).encode():
            raise ValueError("its content is not what was written")
    return table


def part_schema(path: Path) -> pa.Schema:
    """The columns of a part; Unfinished where the file is damaged."""
    with _open_part(path) as file:
        return file.schema_arrow


def _field(found: pa.Field) -> pa.Field:
    """The field as it was written; of a map the one that was found."""
    return found if found.name.startswith("map:") else PART.field(found.name)
