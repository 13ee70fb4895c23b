"""From the parts of a run to its tables and maps, a part at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import sync_folder, whole_file
from fgvce_jax.results.parts import map_shapes, part_map, part_path, read_part
from fgvce_jax.results.schema import EXPLANATIONS, PREDICTIONS

_EXPLAINED = ("explained", "no_reference")


def merge_tables(
    folder: Path, parts: Path, num_parts: int, class_names: Sequence[str]
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write explanations.parquet and predictions.parquet.

    Args:
        folder: Of the run.
        parts: The folder of its parts, 0 to num_parts - 1.
        num_parts: How many there are.
        class_names: For the columns `target_name` and `predicted_name`.

    Returns:
        The counts of run.json, and the skipped images: their index, id and why.

    Raises:
        Unfinished: A part is damaged or out of place, or the disk is full.
    """
    names = pa.array(class_names, pa.string())
    counts = dict.fromkeys(
        ("images", "skipped", "read", "correct", "misclassified", "explained", "flipped"), 0
    ) | {"no_reference": 0}
    skipped: list[dict[str, Any]] = []
    with (
        whole_file(folder / "explanations.parquet") as explanations_file,
        pq.ParquetWriter(explanations_file, EXPLANATIONS, write_page_checksum=True) as explanations,
        whole_file(folder / "predictions.parquet") as predictions_file,
        pq.ParquetWriter(predictions_file, PREDICTIONS, write_page_checksum=True) as predictions,
    ):
        for part in _in_order(parts, num_parts):
            read = part.filter(pc.field("status") != "skipped")
            found = part.filter(pc.field("status").isin(_EXPLAINED))
            for name in ("target", "predicted"):
                found = found.append_column(f"{name}_name", names.take(found[name]))
            explanations.write_table(found.select(EXPLANATIONS.names).cast(EXPLANATIONS))
            predictions.write_table(
                read.select(["index", "id", "label", "predicted"])
                .rename_columns(PREDICTIONS.names)
                .cast(PREDICTIONS)
            )
            for key, value in _counts(part, read, found).items():
                counts[key] += value
            lost = part.filter(pc.field("status") == "skipped")
            skipped += lost.select(["index", "id", "why"]).to_pylist()
    return counts, skipped


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


def merge_maps(folder: Path, parts: Path, num_parts: int, rows: int, names: Sequence[str]) -> None:
    """Write maps/NAME.npy, float32 [rows, n, n], for every map that the parts hold.

    A map that an image lacks is NaN. The files are written in a new folder, which then takes the
    place of an earlier `maps`.

    Args:
        folder: Of the run.
        parts: The folder of its parts.
        num_parts: How many there are.
        rows: Explanations in all of them.
        names: Maps that there should be even where no part holds one ([0, 0, 0] then, as nothing
            was explained).

    Raises:
        InputError: A map has another shape in a later part.
        Unfinished: A part is damaged, or the disk is full.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(num_parts):
        path = part_path(parts, number)
        for name, shape in map_shapes(path):
            if shapes.setdefault(name, shape) != shape:
                raise InputError(
                    f"{path}: map {name} has shape {list(shape)}, before {list(shapes[name])}"
                )
    shapes = {name: shapes.get(name, (0, 0)) for name in dict.fromkeys((*names, *shapes))}
    new, maps = folder / f".maps.{os.getpid()}.tmp", folder / "maps"
    try:
        new.mkdir()
        for name, shape in shapes.items():
            with whole_file(new / f"{name}.npy") as file:
                _write_map(file, parts, num_parts, name, (rows, *shape))
        if maps.exists():
            shutil.rmtree(maps)
        os.replace(new, maps)
        sync_folder(folder)
    except OSError as error:
        raise Unfinished(f"{maps}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_map(
    file: IO[bytes], parts: Path, num_parts: int, name: str, shape: tuple[int, ...]
) -> None:
    """One map of all explanations in NumPy's format, written in a row as the parts are read."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for number in range(num_parts):
        path = part_path(parts, number)
        part = read_part(path, number, ["status", f"map:{name}"])
        explained = np.isin(part["status"].to_pylist(), _EXPLAINED)
        values = part_map(part, name)
        if values is None:
            values = np.full((len(part), *shape[1:]), np.nan, np.float32)
        file.write(values[explained].astype("<f4").tobytes())
