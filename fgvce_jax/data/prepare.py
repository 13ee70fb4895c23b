"""`fgvce data prepare`: from an official archive to records that are read in any order."""

from __future__ import annotations

import os
from pathlib import Path

from fgvce_jax.errors import InputError
from fgvce_jax.progress import console, say

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
        InputError: An unknown name, a file that is missing, damaged or of the wrong form, no room
            on the disk.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    builders = {"cub": _cub, "dogs": _dogs}
    if name not in builders:
        raise InputError(f"{name}: unknown dataset; expected one of {', '.join(builders)}")
    if from_path is not None and not Path(from_path).exists():
        raise InputError(f"{from_path}: expected a folder or an archive")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        builder = builders[name]()(
            source=from_path,
            keypoints=keypoints,
            data_dir=None if data_dir is None else os.path.expanduser(data_dir),
            report=report,
        )
        folder = Path(builder.data_dir)
        if folder.exists():
            if keypoints is not None and not builder.info.metadata["keypoint_names"]:
                raise InputError(
                    f"{folder}: prepared without keypoints; expected another data folder, or "
                    "none there"
                )
            say(f"{folder}: prepared already")
            return folder
        try:
            builder.download_and_prepare()
        except OSError as error:
            raise InputError(f"{error}; what was written before is kept, run again") from error
    notes = builder.info.metadata["notes"]
    for note in notes[:_NOTES_SHOWN]:
        say(note)
    if len(notes) > _NOTES_SHOWN:
        say(f"... and {len(notes) - _NOTES_SHOWN} more such lines, kept in metadata.json")
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    say(f"{folder}: {', '.join(f'{n} {split} images' for split, n in counts.items())}")
    return folder


def _cub():
    from fgvce_jax.data.cub import CubBuilder

    return CubBuilder


def _dogs():
    from fgvce_jax.data.dogs import DogsBuilder

    return DogsBuilder
