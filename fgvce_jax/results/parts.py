"""The tables of a run: their formats, and the parts that are written before `merge`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import fingerprint, whole_file

# --- the formats --------------------------------------------------------------------------------

FORMAT = "fgvce-run/2"
CORE_MAPS = ("invariant", "dominant", "contributions_before", "contributions_after")
"""The maps that every explanation has."""

EDITS = pa.list_(
    pa.struct(
        [
            ("cell", pa.int32()),
            ("candidate_image", pa.string()),
            ("candidate_index", pa.int32()),
            ("candidate_cell", pa.int32()),
            ("similarity", pa.float32()),
        ]
    )
)
EXPLANATIONS = pa.schema(
    [
        ("id", pa.string()),
        ("index", pa.int32()),
        ("target", pa.int32()),
        ("predicted", pa.int32()),
        ("target_name", pa.string()),
        ("predicted_name", pa.string()),
        ("status", pa.string()),
        ("flipped", pa.bool_()),
        ("num_edits", pa.int32()),
        ("p_predicted_before", pa.float32()),
        ("p_predicted_after", pa.float32()),
        ("p_predicted", pa.list_(pa.float32())),
        ("p_target_before", pa.float32()),
        ("p_target_after", pa.float32()),
        ("p_target", pa.list_(pa.float32())),
        ("edits", EDITS),
        ("time_s", pa.float64()),
        ("logits", pa.list_(pa.float32())),
        ("logit_changes", pa.list_(pa.float32())),
        ("nearest", pa.list_(pa.int32())),
    ]
)
PREDICTIONS = pa.schema(
    [("index", pa.int32()), ("id", pa.string()), ("target", pa.int32()), ("predicted", pa.int32())]
)
PART = pa.schema(
    [("label", pa.int32()), ("why", pa.string())]
    + [f for f in EXPLANATIONS if not f.name.endswith("_name")]
)
"""The columns of a part, a row per image; beside them a column "map:NAME" for every map."""

LONG = ("logits", "logit_changes")
"""Columns with a number for each class, or more, in a row."""


@dataclass(frozen=True)
class Edit:
    """One replaced cell.

    Attributes:
        cell: The cell of the image, row-major.
        candidate_image: Id of the reference image that the new cell came from.
        candidate_index: That image's index in the reference split.
        candidate_cell: Its cell there, row-major.
        similarity: Cosine similarity of the two cells.
    """

    cell: int
    candidate_image: str
    candidate_index: int
    candidate_cell: int
    similarity: float


@dataclass(frozen=True)
class ImageResult:
    """The result of one image of the split.

    Attributes:
        index: Its index in the split.
        id: Its id.
        label: Its correct class.
        status: "unexplained" (read, with nothing to explain), "explained",
            "no_reference" (no candidate for the target class, so no edits) or "skipped".
        predicted: The predicted class (P); None where skipped.
        target: The target class (Q) of the explanation; the label where None.
        why: Why it was skipped.
        flipped: Whether the edited image is classified as the target.
        edits: In order.
        p_predicted: The probability of P before the first edit and after each.
        p_target: The target's; likewise.
        time_s: Seconds that its explanation took: its share of its batch.
        logits: Before the first edit, [K]; empty where edits interact (`fgvce_jax.logit_changes`).
        logit_changes: By each edit alone, edit by edit, [T * K]; likewise.
        nearest: Classes of the reference images most similar to it, the nearest first; empty where
            the bank does not hold them.
        maps: [n, n] arrays by name, the four of `CORE_MAPS` and any other method's; a name has one
            shape throughout a run.
    """

    index: int
    id: str
    label: int
    status: Literal["unexplained", "explained", "no_reference", "skipped"]
    predicted: int | None = None
    target: int | None = None
    why: str | None = None
    flipped: bool = False
    edits: tuple[Edit, ...] = ()
    p_predicted: Sequence[float] = ()
    p_target: Sequence[float] = ()
    time_s: float | None = None
    logits: Sequence[float] | Float[np.ndarray, "K"] = ()
    logit_changes: Sequence[float] | Float[np.ndarray, "T*K"] = ()
    nearest: Sequence[int] | Int[np.ndarray, "k"] = ()
    maps: Mapping[str, Float[np.ndarray, "..."]] = field(default_factory=dict)


# --- a part -------------------------------------------------------------------------------------


def part_path(folder: Path, number: int) -> Path:
    """The file of part `number` in the folder of the parts."""
    return folder / f"part-{number:05d}.parquet"


def part_numbers(folder: Path) -> frozenset[int]:
    """The numbers of the parts that a folder holds."""
    names = (re.fullmatch(r"part-(\d{5,})\.parquet", path.name) for path in folder.glob("part-*"))
    return frozenset(int(name[1]) for name in names if name)


def write_part(path: Path, number: int, results: Sequence[ImageResult]) -> None:
    """Write a part, with a checksum on every page, its number and a fingerprint of its content."""
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
        absent = np.full(shape, np.nan, np.float32)
        rows = rows.append_column(
            f"map:{name}", tensors([r.maps.get(name, absent) for r in results])
        )
    rows = rows.replace_schema_metadata({"part": str(number), "content": _content(rows)})
    with whole_file(path) as file:
        pq.write_table(rows, file, write_page_checksum=True)


def _row(result: ImageResult) -> dict[str, Any]:
    row = vars(result) | {
        "target": result.label if result.target is None else result.target,
        "num_edits": len(result.edits),
        "edits": [vars(edit) for edit in result.edits],
    }
    for name in ("p_predicted", "p_target"):
        p = row[name] = list(row[name])
        row |= {f"{name}_before": p[0] if p else None, f"{name}_after": p[-1] if p else None}
    return row


def tensors(maps: Any) -> pa.Array:
    """A column of maps, [M, ...]."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.asarray(maps, np.float32))


def _content(table: pa.Table) -> str:
    """A fingerprint of all values; page checksums do not cover the footer that leads to them."""
    maps = [name for name in table.column_names if name.startswith("map:")]
    values = [table[name].combine_chunks().to_numpy_ndarray() for name in maps]
    for name in LONG:  # their numbers as arrays: as objects they would take most of the time
        column = table[name].combine_chunks()
        values += [column.value_lengths().to_numpy(), column.flatten().to_numpy()]
    rest = table.drop_columns([*maps, *LONG]).to_pylist()
    return fingerprint(table.column_names, rest, values)


@contextmanager
def open_part(path: Path) -> Iterator[pq.ParquetFile]:
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
    with open_part(path) as file:
        kept = file.schema_arrow.metadata or {}
        found = kept.get(b"part", b"?").decode()
        if found != str(number):
            raise ValueError(f"expected part {number}, it holds part {found}")
        table = file.read()
        maps = [field for field in table.schema if field.name.startswith("map:")]
        table = table.cast(pa.schema([*PART, *maps]))
        if kept.get(b"content") != _content(table).encode():
            raise ValueError("its content is not what was written")
    return table
