"""`fgvce data prepare`: from an official archive to records that are read in any order."""

from __future__ import annotations

import os
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from fgvce_jax.data.cub import CubBuilder
from fgvce_jax.data.dogs import DogsBuilder
from fgvce_jax.data.records import RecordsBuilder
from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.progress import console, notify

BUILDERS: dict[str, type[RecordsBuilder]] = {"cub": CubBuilder, "dogs": DogsBuilder}

_NOTES_SHOWN = 20


def prepare(
    name: str,
    from_path: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    keypoints: str | os.PathLike | None = None,
) -> Path:
    """Write a dataset's records; run again after an interruption, it continues.

    Args:
        name: "cub" or "dogs".
        from_path: The official archive (CUB), a folder with the official archives (Dogs), or the
            folder they were extracted to; None downloads them from their official address.
        data_dir: Where to write, the `path` to open the dataset with; TFDS's folder by default.
        keypoints: StanfordExtra's JSON file, for Dogs; without it they have no keypoints.

    Returns:
        The folder that holds the records.

    Raises:
        InputError: An unknown name, a file that is missing, damaged or of the wrong form, records
            that were prepared with another keypoint file.
        Unfinished: No room on the disk.
    """
    if name not in BUILDERS:
        raise InputError(f"{name}: unknown dataset; expected one of {', '.join(BUILDERS)}")
    if from_path is not None and not Path(from_path).exists():
        raise InputError(f"{from_path}: expected a folder or an archive")
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
        try:
            os.makedirs(data_dir, exist_ok=True)
        except OSError as error:
            raise InputError(f"{data_dir}: {error.strerror}; expected a folder") from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        builder = BUILDERS[name](
            source=from_path, keypoints=keypoints, data_dir=data_dir, report=report
        )
        folder = Path(builder.data_dir)
        if folder.exists():
            _check_kept(folder, builder)
            return folder
        try:
            builder.download_and_prepare()
        except OSError as error:
            raise Unfinished(
                f"{folder}: {error}; what was written before is kept, and the same command "
                "continues"
            ) from error
    notes = builder.info.metadata["notes"]
    for note in notes[:_NOTES_SHOWN]:
        notify(note)
    if len(notes) > _NOTES_SHOWN:
        notify(f"... and {len(notes) - _NOTES_SHOWN} more such lines, kept in metadata.json")
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    notify(f"{folder}: {', '.join(f'{n} {split} images' for split, n in counts.items())}")
    return folder


def _check_kept(folder: Path, builder: RecordsBuilder) -> None:
    """Say what is there, or raise `InputError` where it is not what is asked for."""
    kept = builder.info.metadata
    given = builder.keypoint_digest()
    if given not in (None, kept["keypoint_digest"]):
        how = "with another keypoint file" if kept["keypoint_names"] else "without keypoints"
        raise InputError(f"{folder}: prepared {how}; expected another --to, or this folder removed")
    notify(f"{folder}: prepared already")
    if kept["unreadable"]:
        notify(
            f"{len(kept['unreadable'])} of its images were absent or could not be decoded then; "
            "remove the folder to prepare it again"
        )
