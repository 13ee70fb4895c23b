"""Shards written whole or not at all, by one process at a time, so that a killed one can go on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import is_temporary


class ResumingWriter(tfds.core.ExampleWriter):
    """Writes each shard into a folder that outlives the process, and links it to its place.

    A shard that is in the folder already is taken over without being written again. The function
    `staging`, called when a shard is written, gives the folder.
    """

    def __init__(self, file_format: tfds.core.FileFormat, staging: Callable[[], Path]):
        super().__init__(file_format)
        self._staging = staging

    def write(self, path: Any, examples: Any) -> None:
        """Write the shard that TFDS wants at `path`; `Unfinished` if the disk has no room."""
        staged = self._staging() / Path(path).name
        if not staged.exists():
            part = staged.with_name(f"{staged.name}.{os.getpid()}.part")
            try:
                super().write(part, examples)
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
                part.replace(staged)
            # The record writer has no error class of its own.
            except (OSError, RuntimeError) as error:
                raise Unfinished(
                    f"{staged}: cannot be written ({error}); earlier shards are kept, and the "
                    "same command continues once there is room"
                ) from error
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        try:
            os.link(staged, path)
        except OSError:  # a file system without links
            shutil.copyfile(staged, path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder as the only process, with no half-written files that killed ones left."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process holds no lock
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process prepares this dataset there; expected one at a time"
            ) from None
        except OSError:  # a file system without locks
            pass
        else:
            for path in [p for p in folder.rglob("*") if p.suffix == ".part" or is_temporary(p)]:
                path.unlink()
        yield
    finally:
        os.close(handle)
