"""What a run leaves on disk: written in parts, each whole or absent, and read back in one piece.

A run is a folder:

    config.json           what was asked for: the run's identity
    inputs.json           hashes of the weights and data that its names stood for
    parts/                while it runs: a Parquet file per part of the split, a row per image
    explanations.parquet  a row per explanation (`EXPLANATIONS`)
    predictions.parquet   a row per image that was read (`PREDICTIONS`)
    maps.npz              float32 [M, n, n] arrays, rows as in explanations.parquet, and `id`
    run.json              config, counts, skipped images and what the run says of itself
    report.html           the page to look at

Every file is written under a temporary name, flushed to the disk and renamed, so that at every
instant the folder holds only whole files. While `parts/` exists the run is unfinished and can be
continued; `run.json` exists only beside the tables it belongs to.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.explain import Explanation
from fgvce_jax.progress import notify

FORMAT = "fgvce-run/1"
CORE_MAPS = ("invariant", "dominant", "contributions_before", "contributions_after")
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
        ("p_target_before", pa.float32()),
        ("p_target_after", pa.float32()),
        ("p_target", pa.list_(pa.float32())),
        ("edits", EDITS),
        ("time_s", pa.float64()),
    ]
)
PREDICTIONS = pa.schema(
    [("index", pa.int32()), ("id", pa.string()), ("target", pa.int32()), ("predicted", pa.int32())]
)
_PART = pa.schema(
    [("label", pa.int32()), ("why", pa.string())]
    + [f for f in EXPLANATIONS if not f.name.endswith("_name")]
)
_EXPLAINED = ("explained", "no_reference")


# --- what is said of one image ------------------------------------------------------------------


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
class Record:
    """What a run says of one image of the split.

    Attributes:
        index: Its index in the split.
        id: Its id.
        label: Its correct class.
        status: "unexplained" (read, with nothing to explain), "explained",
            "no_reference" (no candidate for the target class, so no edits) or "skipped".
        predicted: The class the model says (P); None where skipped.
        target: The class it should have said (Q); the label where None.
        why: Why it was skipped.
        flipped: Whether the edited image is classified as the target.
        edits: In order.
        p_target: The target's probability before the first edit and after each.
        time_s: Seconds that its explanation took.
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
    p_target: Sequence[float] = ()
    time_s: float | None = None
    maps: Mapping[str, Float[np.ndarray, "n n"]] = field(default_factory=dict)


def explained(
    index: int,
    id: str,
    label: int,
    explanation: Explanation,
    candidates: tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]],
    reference_ids: Sequence[str],
    time_s: float,
    maps: Mapping[str, np.ndarray] | None = None,
) -> Record:
    """The record of an image that was explained.

    Args:
        index, id, label: As in `Record`.
        explanation: Of this image: NumPy leaves without the batch axis.
        candidates: `bank.image` and `bank.cell` of the group that serves the target; the record's
            status is "no_reference" where they hold no candidate (-1 throughout).
        reference_ids: The ids of the reference split.
        time_s: Seconds it took.
        maps: Other methods' maps of this image.
    """
    images, cells = candidates
    count = int(explanation.num_edits)
    edits = tuple(
        Edit(
            cell=int(explanation.edit_cell[t]),
            candidate_image=reference_ids[int(images[explanation.edit_candidate[t]])],
            candidate_index=int(images[explanation.edit_candidate[t]]),
            candidate_cell=int(cells[explanation.edit_candidate[t]]),
            similarity=float(explanation.edit_similarity[t]),
        )
        for t in range(count)
    )
    return Record(
        index=index,
        id=id,
        label=label,
        status="explained" if np.any(images >= 0) else "no_reference",
        predicted=int(explanation.predicted),
        target=int(explanation.target),
        flipped=bool(explanation.flipped),
        edits=edits,
        p_target=np.asarray(explanation.p_target)[: count + 1].tolist(),
        time_s=time_s,
        maps={name: np.asarray(getattr(explanation, name)) for name in CORE_MAPS} | (maps or {}),
    )


# --- writing ------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole, on the disk, when the block ends; or not at all.

    Raises:
        Unfinished: It cannot be written, for instance because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise Unfinished(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_json(path: Path, value: Any) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


@dataclass
class Run:
    """A run that is being written; a context manager, see `open_run`.

    Attributes:
        folder: Where.
        config: Its identity.
        resumed: Parts that were there when it was opened.
        created: What was made for it, outermost first; removed again where nothing comes of it.
    """

    folder: Path
    config: dict[str, Any]
    resumed: frozenset[int] = frozenset()
    created: tuple[Path, ...] = ()

    @property
    def parts(self) -> Path:
        """The folder of its parts; there is one until the run is finished."""
        return self.folder / "parts"

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the parts that are on the disk now, whoever wrote them."""
        return parts_done(self.folder)

    def hold_to(self, inputs: Mapping[str, str]) -> None:
        """Keep hashes of what the config's names stand for, or compare with those that were kept.

        Raises:
            InputError: The folder was begun with other weights or other data under these names.
        """
        path = self.folder / "inputs.json"
        kept = json.loads(path.read_text()) if path.exists() else None
        if kept is None:
            _write_json(path, dict(inputs))
        for name, value in inputs.items():
            if kept is not None and kept.get(name) != value:
                raise InputError(
                    f"{self.folder}: holds a run with another {name} of the same name, expected "
                    f"the one it was begun with; choose another folder"
                )

    def write_part(self, number: int, records: Sequence[Record]) -> None:
        """Write part `number`: a record per image of its share of the split, in order.

        Raises:
            Unfinished: It cannot be written; the parts before it stay.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for record in records:
            for name, value in record.maps.items():
                if shapes.setdefault(name, value.shape) != value.shape:
                    raise InputError(
                        f"map {name} of image {record.id}: expected shape {shapes[name]}, as "
                        f"before, got {value.shape}"
                    )
        columns = [
            pa.array([_row(record)[f.name] for record in records], f.type) for f in _PART
        ] + [_map_column(records, name) for name in shapes]
        table = pa.table(columns, names=_PART.names + [f"map:{name}" for name in shapes])
        table = table.replace_schema_metadata({"shapes": json.dumps(shapes)})
        with whole_file(self.parts / f"part-{number:05d}.parquet") as file:
            pq.write_table(table, file)

    def merge(self, class_names: Sequence[str], num_parts: int, info: Mapping[str, Any]) -> None:
        """Put the parts 0 to num_parts - 1 together: the tables, the maps, then run.json.

        Reads a part at a time, so memory does not grow with the split. The parts stay until
        `finish`. Of several processes that write parts, one merges.

        Args:
            class_names: For the tables' names.
            num_parts: How many there should be.
            info: What else run.json says: versions, device, timings, classes without reference...

        Raises:
            InputError: A part is missing.
            Unfinished: The disk is full.
        """
        missing = sorted(set(range(num_parts)) - self.done)
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing)} of {num_parts} parts are missing, the first is "
                f"part {missing[0]}"
            )
        paths = [self.parts / f"part-{number:05d}.parquet" for number in range(num_parts)]
        for name in ("run.json", "report.html"):
            (self.folder / name).unlink(missing_ok=True)
        counts, skipped = _merge_tables(self.folder, paths, list(class_names))
        with whole_file(self.folder / "maps.npz") as file:
            _merge_maps(file, paths, counts["explained"] + counts["no_reference"])
        summary = {"format": FORMAT, "config": self.config, "counts": counts, "skipped": skipped}
        _write_json(self.folder / "run.json", summary | dict(info))

    def finish(self) -> None:
        """Remove the parts; the run is finished."""
        trash = self.folder / f".parts.{os.getpid()}.tmp"
        os.replace(self.parts, trash)
        shutil.rmtree(trash)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            return
        hopeless = isinstance(error, InputError) and not isinstance(error, Unfinished)
        worth_keeping = self.done or (self._new and (self.folder / "bank.npz").exists())
        if not worth_keeping or (hopeless and not self.resumed):
            self.undo()
        elif isinstance(error, Unfinished):
            notify(f"{self.folder}: what was written is whole, and running again continues from it")

    @property
    def _new(self) -> bool:
        """Whether the folder was empty or absent when it was opened."""
        return self.folder / "config.json" in self.created

    def undo(self) -> None:
        """Remove what was made for a run that would only fail again, or has nothing to keep."""
        if self._new:
            for path in self.folder.glob("*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif self.parts in self.created:
            shutil.rmtree(self.parts, ignore_errors=True)
        for path in reversed(self.created):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def parts_done(folder: Path) -> frozenset[int]:
    """The numbers of the parts that a run's folder holds."""
    parts = (folder / "parts").glob("part-*.parquet")
    return frozenset(int(path.stem.removeprefix("part-")) for path in parts)


def open_run(
    folder: str | Path,
    config: Mapping[str, Any],
    *,
    primary: bool = True,
    resumed: frozenset[int] = frozenset(),
) -> Run:
    """Open a run for writing, to be used in a `with` statement.

    A new or empty folder starts a run, which is removed again where its input turns out to be
    unusable, or where it is stopped before it has anything to continue from. A run of the same
    config that is unfinished continues (`Run.resumed`); one that is finished is redone, and its
    results stay until the new ones are merged.

    Args:
        folder: Made where it does not exist.
        config: All that the results depend on, as JSON can hold it.
        primary: False in every process but the first of several that write one run. They open it
            after the first has done so, and touch nothing but the parts they write.
        resumed: For them, the parts that were there before the first process opened the run (it
            may put them together at once).

    Raises:
        InputError: The folder holds another run (the message names the first field that differs),
            or something that is no run, or cannot be made.
    """
    folder = Path(folder)
    config = json.loads(json.dumps(config))  # tuples become lists, as they are read back
    if not folder.exists() and not primary:
        raise InputError(f"{folder}: expected the run that the first process started")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, this is a file")
    entries = [p.name for p in folder.iterdir() if not _temporary(p)] if folder.exists() else []
    if entries:
        _check_same(folder, config, entries)
    if not primary:
        return Run(folder, config, resumed)

    wanted = (*reversed(folder.parents), folder, folder / "config.json", folder / "parts")
    run = Run(folder, config, created=tuple(path for path in wanted if not path.exists()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_temporary(folder)
        if not entries:
            _write_json(folder / "config.json", {"format": FORMAT, "config": config})
        run.parts.mkdir(exist_ok=True)
        _clear_temporary(run.parts)
    except (OSError, InputError) as error:
        run.undo()
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    run.resumed = run.done
    return run


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _clear_temporary(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for path in filter(_temporary, list(folder.iterdir())):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_same(folder: Path, config: dict[str, Any], entries: list[str]) -> None:
    """Raise InputError unless `folder` holds a run of `config`."""
    try:
        found = json.loads((folder / "config.json").read_text())
        if found["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder}: expected a new or empty folder, or a run; it holds {min(entries)} and is "
            f"no run"
        ) from None
    difference = _first_difference(found["config"], config)
    if difference:
        name, old, new = difference
        raise InputError(
            f"{folder}: holds another run, with {name} = {json.dumps(old)} where this one has "
            f"{json.dumps(new)}; choose another folder"
        )


def _first_difference(old: Any, new: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The dotted name of the first field that differs, with both values; None where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            inside = f"{name}.{key}" if name else str(key)
            difference = _first_difference(old.get(key), new.get(key), inside)
            if difference:
                return difference
        return None
    return None if old == new else (name or "config", old, new)


def _row(record: Record) -> dict[str, Any]:
    p = list(record.p_target)
    return {
        "id": record.id,
        "index": record.index,
        "label": record.label,
        "target": record.label if record.target is None else record.target,
        "predicted": record.predicted,
        "status": record.status,
        "why": record.why,
        "flipped": record.flipped,
        "num_edits": len(record.edits),
        "p_target_before": p[0] if p else None,
        "p_target_after": p[-1] if p else None,
        "p_target": p,
        "edits": [vars(edit) for edit in record.edits],
        "time_s": record.time_s,
    }


def _map_column(records: Sequence[Record], name: str) -> pa.Array:
    flat = [
        np.asarray(record.maps[name], np.float32).ravel() if name in record.maps else None
        for record in records
    ]
    return pa.array(flat, pa.list_(pa.float32()))


def _merge_tables(
    folder: Path, paths: list[Path], class_names: list[str]
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write both tables a part at a time; returns the counts and the skipped images."""
    names = pa.array(class_names, pa.string())
    counts = dict.fromkeys(
        ("images", "skipped", "read", "correct", "misclassified", "explained", "flipped"), 0
    ) | {"no_reference": 0}
    skipped = []
    with (
        whole_file(folder / "explanations.parquet") as explanations_file,
        pq.ParquetWriter(explanations_file, EXPLANATIONS) as explanations,
        whole_file(folder / "predictions.parquet") as predictions_file,
        pq.ParquetWriter(predictions_file, PREDICTIONS) as predictions,
    ):
        for path in paths:
            part = pq.read_table(path, columns=_PART.names)
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
            correct = pc.sum(pc.equal(read["predicted"], read["label"])).as_py() or 0
            no_reference = pc.sum(pc.equal(found["status"], "no_reference")).as_py() or 0
            for key, value in {
                "images": len(part),
                "skipped": len(part) - len(read),
                "read": len(read),
                "correct": correct,
                "misclassified": len(read) - correct,
                "explained": len(found) - no_reference,
                "flipped": pc.sum(found["flipped"]).as_py() or 0,
                "no_reference": no_reference,
            }.items():
                counts[key] += value
            skipped += (
                part.filter(pc.field("status") == "skipped")
                .select(["index", "id", "why"])
                .to_pylist()
            )
    return counts, skipped


def _merge_maps(file: IO[bytes], paths: list[Path], rows: int) -> None:
    """Write an .npz with an array [rows, *shape] per map, a part at a time.

    A map that an image lacks is NaN.
    """
    shapes: dict[str, list[int]] = {name: [0, 0] for name in CORE_MAPS}
    for path in paths:
        for name, shape in json.loads(pq.read_schema(path).metadata[b"shapes"]).items():
            if shapes.get(name, shape) not in (shape, [0, 0]):
                raise InputError(f"{path}: map {name} has shape {shape}, before {shapes[name]}")
            shapes[name] = shape
    width = max([1, *(len(id) for path in paths for id in _explained(path, ["id"])["id"].tolist())])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with _npy(archive, "id", f"<U{width}", (rows,)) as array:
            for path in paths:
                array.write(_explained(path, ["id"])["id"].astype(f"<U{width}").tobytes())
        for name, shape in shapes.items():
            with _npy(archive, name, "<f4", (rows, *shape)) as array:
                for path in paths:
                    array.write(_part_map(path, name, shape).tobytes())


@contextmanager
def _npy(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]):
    """A member of an .npz whose data is written piece by piece."""
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        yield member


def _explained(path: Path, columns: list[str]) -> dict[str, np.ndarray]:
    part = pq.read_table(path, columns=[*columns, "status"])
    part = part.filter(pc.field("status").isin(_EXPLAINED))
    return {name: part[name].to_numpy() for name in columns}


def _part_map(path: Path, name: str, shape: list[int]) -> Float[np.ndarray, "m n n"]:
    column = f"map:{name}"
    if column not in pq.read_schema(path).names:
        rows = len(_explained(path, ["index"])["index"])
        return np.full((rows, *shape), np.nan, "<f4")
    empty = np.full(shape, np.nan, "<f4").ravel()
    rows = [empty if row is None else row for row in _explained(path, [column])[column]]
    return np.concatenate([np.zeros(0, "<f4"), *rows]).astype("<f4").reshape(len(rows), *shape)


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunResults:
    """A finished run.

    Attributes:
        folder: Where it lies.
        table: A row per explanation, columns as in `EXPLANATIONS`.
        predictions: A row per image read, columns as in `PREDICTIONS`.
        maps: float32 [M, n, n] by name, rows as in `table`, and "id"; read when asked for.
        info: run.json.
    """

    folder: Path
    table: pa.Table
    predictions: pa.Table
    maps: Mapping[str, np.ndarray]
    info: dict[str, Any]


def read_run(folder: str | Path) -> RunResults:
    """Read a run back.

    Raises:
        InputError: There is none, or it is not finished.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: expected the folder of a run, found no config.json")
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: the run is not finished; run it again to continue it")
    return RunResults(
        folder=folder,
        table=pq.read_table(folder / "explanations.parquet"),
        predictions=pq.read_table(folder / "predictions.parquet"),
        maps=np.load(folder / "maps.npz"),
        info=json.loads((folder / "run.json").read_text()),
    )
