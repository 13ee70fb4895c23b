"""Files that are whole or absent, JSON that is checked, fingerprints, and one owner of a folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from fgvce_jax.errors import InputError, Unfinished


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Name `path` where the block cannot write; raises Unfinished in the place of an OSError."""
    try:
        yield
    except OSError as error:
        raise Unfinished(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole, on the disk, when the block ends; or not at all.

    Unfinished where it cannot be written, for instance because the disk is full.
    """
    # Of a name of its own: another machine may write the same file, under the same process id.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with writing(path):
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which appears at `path` when the block ends, in the place of one that was
    there; or not at all. Its files are to be written by `whole_file`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with writing(path):
            temporary.mkdir()
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is one that a killed process may have left unfinished."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def user_cache() -> Path:
    """The folder of what can be made again, by the user's XDG_CACHE_HOME; it may not be there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fgvce_jax"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError where it is cut, or something else than an object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*trees: Any) -> str:
    """16 hexadecimal digits that depend on every leaf of the pytrees, and on their order.

    Of an array its dtype, shape and values count; of any other leaf (text, numbers, None, a
    config) its `repr`, so that this holds across processes. Static fields of
    a pytree are no leaves: give them beside it where they matter.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees, is_leaf=lambda node: node is None):
        if isinstance(leaf, np.ndarray | jax.Array):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        else:
            digest.update(f"{leaf!r}\n".encode())
    return digest.hexdigest()[:16]


class FolderLock:
    """One owner of a folder at a time, as long as this object and its process live.

    The lock is on the folder itself, so that it leaves no file and none needs to be removed.
    Where the file system knows no such locks (some network mounts), there is none. InputError
    where another process holds it.
    """

    def __init__(self, folder: Path):
        descriptor = os.open(folder, os.O_RDONLY)
        self.release = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self.release()
                raise InputError(
                    f"{folder}: another process writes a run there, expected a folder of its own; "
                    "wait for its end or choose another folder"
                ) from None
