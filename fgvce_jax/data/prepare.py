"""`fgvce data prepare`: from an official archive to records that are read in any order."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fgvce_jax.errors import InputError

log = logging.getLogger(__name__)


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
        TextColumn,
        TimeRemainingColumn,
    )

    builders = {"cub": _cub, "dogs": _dogs}
    if name not in builders:
        raise InputError(f"{name}: unknown dataset; expected one of {', '.join(builders)}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {what}", completed=done, total=total)

        builder = builders[name]()(
            source=from_path,
            keypoints=keypoints,
            data_dir=None if data_dir is None else os.path.expanduser(data_dir),
            report=report,
        )
        if builder.data_path.exists():
            if keypoints is not None and not builder.info.metadata["keypoint_names"]:
                raise InputError(
                    f"{builder.data_dir}: prepared without keypoints; expected another data "
                    "folder, or none there"
                )
            log.info("%s: prepared already", builder.data_dir)
            return Path(builder.data_dir)
        try:
            builder.download_and_prepare()
        except OSError as error:
            raise InputError(f"{error}; what was written before is kept, run again") from error
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    log.info("%s: %s", builder.data_dir, ", ".join(f"{n} {split}" for split, n in counts.items()))
    return Path(builder.data_dir)


def _cub():
    from fgvce_jax.data.cub import CubBuilder

    return CubBuilder


def _dogs():
    from fgvce_jax.data.dogs import DogsBuilder

    return DogsBuilder
