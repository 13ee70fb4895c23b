"""`fgvce prepare`: from an official archive to records that are read in any order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fgvce_jax.data.archive import OnProgress
from fgvce_jax.data.cub import CubBuilder
from fgvce_jax.data.dogs import DogsBuilder
from fgvce_jax.data.records import RecordBuilder
from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.progress import console, notify

BUILDERS: dict[str, type[RecordBuilder]] = {"cub": CubBuilder, "dogs": DogsBuilder}

_NOTES_SHOWN = 20


def prepare(
    dataset: str,
    source: str | os.PathLike[str] | None = None,
    to: str | os.PathLike[str] | None = None,
    keypoints: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a dataset's records from its official archive; run again, it continues.

    Args:
        dataset: cub or dogs.
        source: The official archive (CUB), the folder of the official archives (Dogs), or the
            folder they were extracted to; by default they are downloaded from their official
            address.
        to: Folder of the records, the `path` to open the dataset with; by default TFDS's folder.
        keypoints: StanfordExtra's JSON file, for Dogs; without it they have no keypoints.

    Returns:
        The folder that holds the records.

    Raises:
        InputError: An unknown name, a file that is missing, damaged or of the wrong form, records
            that were prepared with another keypoint file.
        Unfinished: No room on the disk.
    """
    if dataset not in BUILDERS:
        raise InputError(f"{dataset}: unknown dataset; expected one of {', '.join(BUILDERS)}")
    if source is not None and not Path(source).exists():
        raise InputError(f"{source}: expected a folder or an archive")
    if to is not None:
        to = os.path.expanduser(to)
        try:
            os.makedirs(to, exist_ok=True)
        except OSError as error:
            raise InputError(f"{to}: {error.strerror}; expected a folder") from error
    with _bars() as on_progress:
        builder = BUILDERS[dataset](
            source=source, keypoints=keypoints, data_dir=to, on_progress=on_progress
        )
        folder = Path(builder.data_dir)
        if folder.exists():
            _check_kept(folder, builder)
            return folder
        try:
            builder.download_and_prepare()
        except OSError as error:
            raise Unfinished(
                f"{folder}: {error}; the shards written before are kept, and the same command "
                "continues"
            ) from error
    notes = builder.metadata["notes"]
    for note in notes[:_NOTES_SHOWN]:
        notify(note)
    if len(notes) > _NOTES_SHOWN:
        notify(f"... and {len(notes) - _NOTES_SHOWN} more such lines, kept in metadata.json")
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    notify(f"{folder}: {', '.join(f'{n} {split} images' for split, n in counts.items())}")
    return folder


@contextmanager
def _bars() -> Iterator[OnProgress]:
    """A progress bar for each task, added when the task begins."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = {}

        def on_progress(task: str, done: int, total: int) -> None:
            if task not in bars:
                bars[task] = progress.add_task(task, total=total)
            progress.update(bars[task], completed=done)

        yield on_progress


def _check_kept(folder: Path, builder: RecordBuilder) -> None:
    """Describe the records that are there; `InputError` where other ones are asked for."""
    kept = builder.metadata
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
