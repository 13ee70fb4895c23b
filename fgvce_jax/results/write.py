"""A run that is being written: its folder, its parts, and what is left where it ends early."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvce_jax.errors import InputError, Stopped, Unfinished
from fgvce_jax.files import FolderLock, is_temporary, read_json, write_json, writing
from fgvce_jax.progress import notify
from fgvce_jax.results.merge import merge_parts
from fgvce_jax.results.parts import (
    CORE_MAPS,
    FORMAT,
    ImageResult,
    part_numbers,
    part_path,
    read_part,
    write_part,
)
from fgvce_jax.results.read import RunResults, read_run
from fgvce_jax.results.summary import skip_reasons


@dataclass
class Run:
    """A run that is being written; a context manager, see `open_run`.

    Attributes:
        folder: Where.
        config: Its identity.
        resumed: Parts that were there, whole, when it was opened.
        created: The files and folders made for it, outermost first.
        lock: Keeps other runs out of the folder.
        merged: Whether its results are there, so that nothing of it may be removed any more.
    """

    folder: Path
    config: dict[str, Any]
    resumed: frozenset[int] = frozenset()
    created: tuple[Path, ...] = ()
    lock: FolderLock | None = None
    merged: bool = False

    @property
    def parts(self) -> Path:
        """The folder of its parts; there is one until the run is finished."""
        return self.folder / "parts"

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the parts that are on the disk now, whoever wrote them."""
        return part_numbers(self.parts)

    def mark(self) -> Path:
        """A new file among the parts; a process that sees it may write parts beside it."""
        path = self.parts / f".{uuid.uuid4().hex}.tmp"
        with writing(path):
            path.touch()
        return path

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Keep fingerprints of what the config names, or compare with those that were kept.

        Raises:
            InputError: The folder was begun with other weights or data under these names.
        """
        path = self.folder / "inputs.json"
        if not path.exists():
            write_json(path, dict(inputs))
            return
        kept = read_json(path)
        for name, value in inputs.items():
            if kept.get(name) != value:
                raise InputError(
                    f"{self.folder}: holds a run with another {name} of the same name, expected "
                    f"the one it was begun with; choose another folder"
                )

    def write_part(self, number: int, results: Sequence[ImageResult]) -> None:
        """Write part `number`: the result of every image of its share of the split, in order."""
        write_part(part_path(self.parts, number), number, results)

    def merge(
        self,
        class_names: Sequence[str],
        num_parts: int,
        info: Mapping[str, Any],
        map_names: Sequence[str] = CORE_MAPS,
    ) -> None:
        """Put the parts 0 to num_parts - 1 together: the tables, the maps, then run.json.

        Memory does not grow with the split. The parts stay until `finish`.

        Args:
            class_names: For the tables' names.
            num_parts: How many there should be; InputError where one is missing.
            info: Further entries of run.json: versions, device, ...
            map_names: Maps that there should be even where nothing was explained.
        """
        if missing := sorted(set(range(num_parts)) - self.done):
            raise InputError(
                f"{self.folder}: {len(missing)} of {num_parts} parts are missing, the first is "
                f"part {missing[0]}"
            )
        # They belong to the tables replaced now.
        for name in ("run.json", "evaluation.json", "report.html"):
            (self.folder / name).unlink(missing_ok=True)
        numbers = range(num_parts)
        counts, skipped = merge_parts(self.parts, numbers, class_names, map_names, self.folder)
        summary = {"format": FORMAT, "config": self.config, "counts": counts, "skipped": skipped}
        summary["skipped_by_reason"] = skip_reasons(skipped)
        write_json(self.folder / "run.json", summary | dict(info))
        self.merged = True

    def add_info(self, info: Mapping[str, Any]) -> None:
        """Put further entries into run.json, once it is there."""
        path = self.folder / "run.json"
        write_json(path, read_json(path) | dict(info))

    def finish(self) -> None:
        """Remove the parts; the run is finished."""
        trash = self.folder / f".parts.{os.getpid()}.tmp"
        os.replace(self.parts, trash)
        shutil.rmtree(trash)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if error is not None and not self.merged:
                self._stop(error)
        finally:
            if self.lock is not None:
                self.lock.release()

    @property
    def _new(self) -> bool:
        """Whether the folder was empty or absent when it was opened."""
        return self.folder / "config.json" in self.created

    def _stop(self, error: BaseException) -> None:
        """Keep what a later run continues from; remove what would only fail again."""
        # The same input fails the same way; Unfinished means that something outside stopped it.
        unusable_input = isinstance(error, InputError) and not isinstance(error, Unfinished)
        worth_keeping = self.done or (self._new and (self.folder / "bank.npz").exists())
        if not worth_keeping or (unusable_input and not self.resumed):
            self.undo()
        elif isinstance(error, Unfinished | Stopped):
            notify(f"{self.folder}: what was written is whole, and running again continues from it")

    def undo(self) -> None:
        """Remove everything that was made for this run."""
        if self._new:
            _remove(self.folder.glob("*"))
        elif self.parts in self.created:
            shutil.rmtree(self.parts, ignore_errors=True)
        for path in reversed(self.created):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def whole_parts(folder: Path) -> frozenset[int]:
    """The numbers of a run's parts that can be read; the others are named."""
    parts, found = folder / "parts", set()
    for number in sorted(part_numbers(parts)):
        try:
            read_part(part_path(parts, number), number)
        except Unfinished as error:
            notify(str(error).replace("run again to redo this part", "it is done again"))
        else:
            found.add(number)
    return frozenset(found)


@contextmanager
def unfinished_run(folder: Path, class_names: Sequence[str], images: int) -> Iterator[RunResults]:
    """What a run that is not finished has so far, as if that were all, while the block runs.

    Its parts are put together in a temporary folder. `info["missing"]` says how much there is.

    Args:
        folder: The run's.
        class_names: As for `Run.merge`.
        images: How many the whole run has.

    Raises:
        InputError: There is no part that can be read.
    """
    numbers = sorted(whole_parts(folder))
    if not numbers:
        raise InputError(f"{folder}: no part of the run is finished; run it again to continue it")
    kept = read_json(folder / "config.json")
    with tempfile.TemporaryDirectory() as temporary:
        place, maps = Path(temporary), (*CORE_MAPS, *kept["config"].get("methods", ()))
        counts, skipped = merge_parts(folder / "parts", numbers, class_names, maps, place)
        missing = images - counts["images"]
        state = f"{counts['images']:,} of {images:,} images are done, {missing:,} are missing."
        info = kept | {"counts": counts, "skipped": skipped, "missing": state}
        write_json(place / "config.json", kept)
        write_json(place / "run.json", info)
        yield read_run(place)


def open_run(folder: str | Path, config: Mapping[str, Any]) -> Run:
    """Open a run of a config, a JSON object, for writing; to be used in a `with` statement.

    A new or empty folder starts a run, which is removed again where its input turns out to be
    unusable, or where it is stopped before it has anything to continue from. A run of the same
    config that is unfinished continues (`Run.resumed`), without the parts of it that are damaged;
    one that is finished is redone, and its results stay until the new ones are merged.

    Raises:
        InputError: The folder holds another run (the message names the first field that differs),
            or something that is no run, or cannot be made, or another process writes in it.
    """
    folder, config = Path(folder), _plain(config)
    if folder.exists():
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder, this is a file")
        _holds_run(folder, config)  # before anything is touched; again below, with the lock
    made = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    begun = _holds_run(folder, config)
    inside = (folder / "config.json", folder / "parts")
    made += [path for path in inside if not path.exists()]
    run = Run(folder, config, created=tuple(made), lock=lock)
    try:
        with writing(folder):
            _remove(filter(is_temporary, folder.iterdir()))
            if not begun:
                write_json(folder / "config.json", {"format": FORMAT, "config": config})
            run.parts.mkdir(exist_ok=True)
            _remove(filter(is_temporary, run.parts.iterdir()))
    except BaseException:  # Stopped, too
        run.undo()
        raise
    run.resumed = whole_parts(folder)
    for number in run.done - run.resumed:
        part_path(run.parts, number).unlink()
    return run


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it is read back from JSON: tuples become lists."""
    return json.loads(json.dumps(config))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _holds_run(folder: Path, config: dict[str, Any]) -> bool:
    """Whether `folder` holds a run of `config`; False where it is empty, InputError otherwise."""
    entries = [path.name for path in folder.iterdir() if not is_temporary(path)]
    if not entries:
        return False
    path = folder / "config.json"
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found.get("config"), dict) or "format" not in found:
        raise InputError(
            f"{folder}: expected a new or empty folder, or a run; it holds {min(entries)} and is "
            f"no run"
        )
    if found["format"] != FORMAT:
        raise InputError(
            f"{folder}: holds a run of format {found['format']}, expected {FORMAT}; choose another "
            "folder"
        )
    if difference := _first_difference(found["config"], config):
        raise InputError(f"{folder}: holds another run, with {difference}; choose another folder")
    return True


def _first_difference(old: Any, new: Any, name: str = "") -> str:
    """The dotted name of the first field that differs, with both values; "" where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        inside = (
            _first_difference(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
            for key in new | old
        )
        return next(filter(None, inside), "")
    both = f"{name or 'config'} = {json.dumps(old)} where this one has {json.dumps(new)}"
    return "" if old == new else both
