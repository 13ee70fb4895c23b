"""From the parts of a run to its tables and maps, a part at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import whole_file
from fgvce_jax.results.parts import part_path, part_schema, read_part
from fgvce_jax.results.schema import EXPLANATIONS, PREDICTIONS

_COUNTS = ("images", "skipped", "read", "correct", "misclassified", "explained", "flipped")


def merge_parts(
    folder: Path, num_parts: int, class_names: Sequence[str], map_names: Sequence[str]
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write explanations.parquet, predictions.parquet and maps.parquet, a part at a time.

    Returns:
        The counts of run.json, and the skipped images: their index, id and why.

    Raises:
        InputError: A map has another shape in a later part.
        Unfinished: A part is damaged or out of place, or the disk is full.
    """
    names = pa.array(class_names, pa.string())
    schemas = {
        "explanations": EXPLANATIONS,
        "predictions": PREDICTIONS,
        "maps": _map_schema(folder / "parts", num_parts, map_names),
    }
    counts: Counter[str] = Counter(dict.fromkeys((*_COUNTS, "no_reference"), 0))
    skipped: list[dict[str, Any]] = []
    with ExitStack() as stack:
        tables = {}
        for name, schema in schemas.items():
            file = stack.enter_context(whole_file(folder / f"{name}.parquet"))
            writer = pq.ParquetWriter(file, schema, write_page_checksum=True)
            tables[name] = stack.enter_context(writer)
        for part in _in_order(folder / "parts", num_parts):
            read = part.filter(pc.field("status") != "skipped")
            found = part.filter(pc.field("status").isin(("explained", "no_reference")))
            if len(found):  # pyarrow makes no empty tensors
                tables["maps"].write_table(_maps(found, schemas["maps"]))
            for name in ("target", "predicted"):
                found = found.append_column(f"{name}_name", names.take(found[name]))
            tables["explanations"].write_table(found.select(EXPLANATIONS.names).cast(EXPLANATIONS))
            read = read.select(["index", "id", "label", "predicted"])
            tables["predictions"].write_table(read.rename_columns(PREDICTIONS.names))
            counts.update(_counts(part, read, found))
            lost = part.filter(pc.field("status") == "skipped")
            skipped += lost.select(["index", "id", "why"]).to_pylist()
    return dict(counts), skipped


def _in_order(parts: Path, num_parts: int) -> Iterator[pa.Table]:
    """The parts with all their columns verified, their images in the order of the split."""
    last = -1
    for number in range(num_parts):
        path = part_path(parts, number)
        part = read_part(path, number)
        index = part["index"].to_numpy()
        if np.any(np.diff(index, prepend=last) <= 0):
            raise Unfinished(
                f"{path}: images {index.min()} to {index.max()}, expected ascending ones above "
                f"{last}; remove this part and run again"
            )
        last = int(index[-1])
        yield part


def _counts(part: pa.Table, read: pa.Table, found: pa.Table) -> dict[str, int]:
    correct = int(np.sum(read["predicted"].to_numpy() == read["label"].to_numpy()))
    no_reference = found["status"].to_pylist().count("no_reference")
    return {
        "images": len(part),
        "skipped": len(part) - len(read),
        "read": len(read),
        "correct": correct,
        "misclassified": len(read) - correct,
        "explained": len(found) - no_reference,
        "flipped": int(np.sum(found["flipped"].to_numpy())),
        "no_reference": no_reference,
    }


def _map_schema(parts: Path, num_parts: int, names: Sequence[str]) -> pa.Schema:
    """A column for each of `names`, there or not, and for every other map that the parts hold."""
    found: dict[str, pa.Field] = {}
    for number in range(num_parts):
        path = part_path(parts, number)
        for field in part_schema(path):
            known = found.setdefault(field.name, field)
            if field.name.startswith("map:") and known.type != field.type:
                raise InputError(
                    f"{path}: map {field.name[4:]} has shape {list(field.type.shape)}, before "
                    f"{list(known.type.shape)}"
                )
    held = {name[4:]: field.type for name, field in found.items() if name.startswith("map:")}
    nothing = pa.fixed_shape_tensor(pa.float32(), (1, 1))  # where no image was explained
    every = dict.fromkeys((*names, *held))
    return pa.schema([(name, held.get(name, nothing)) for name in every])


def _maps(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """The maps of a part's explanations; NaN where a part lacks one."""

    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if f"map:{field.name}" in found.column_names:
            return found[f"map:{field.name}"]
        absent = np.full((len(found), *field.type.shape), np.nan, np.float32)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(absent)

    return pa.table([column(field) for field in schema], schema=schema)
