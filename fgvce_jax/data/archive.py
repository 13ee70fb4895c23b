"""The files of a dataset as it is distributed: in a folder, in archives, or some of each."""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fgvce_jax.errors import InputError, Unfinished

_LONGEST_END = 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
"""Zeros after the last file: two blocks that mark the end, and the filling of the last record."""


class ByteRange(NamedTuple):
    """A file as `size` bytes at `offset` of `path`."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Files:
    """Files by name.

    Attributes:
        where: The folder or archive, for messages.
        stored: "/"-separated names, as in the folder or archive, and where each lies.
    """

    where: str
    stored: Mapping[str, ByteRange]

    def matching(self, pattern: str) -> list[str]:
        """Names in which the regular expression `pattern` is found, shortest first."""
        return sorted(filter(re.compile(pattern).search, self.stored), key=lambda n: (len(n), n))

    def below(self, folder: str) -> Files:
        """The files in a folder (which ends in "/", or is "" for all), by their names there."""
        stored = {n.removeprefix(folder): s for n, s in self.stored.items() if n.startswith(folder)}
        return Files(self.shown(folder).removesuffix("/"), stored)

    def shown(self, name: str) -> str:
        """A name as messages show it, behind the folder or archive that the user gave."""
        return f"{self.where}/{name}"

    def read(self, name: str) -> bytes:
        """A file's content."""
        path, offset, size = self.stored[name]
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def open(self, name: str) -> StoredFile:
        """A file to `read` later."""
        return StoredFile(self, name)


@dataclass(frozen=True)
class StoredFile:
    """A file whose bytes are fetched when they are asked for."""

    files: Files
    name: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.files.stored[self.name].size

    def read(self) -> bytes:
        """All of it."""
        return self.files.read(self.name)


OnProgress = Callable[[str, int, int], None]
"""Called as on_progress(task, steps done, steps in all)."""


def open_files(
    path: str | os.PathLike[str],
    archives: Mapping[str, str],
    scratch: Path,
    on_progress: OnProgress,
) -> Files:
    """List the files of a folder or an archive.

    Args:
        path: A folder, a .tar or a .tar.gz (.tgz).
        archives: Archives that a folder may hold in place of their extracted content, each with a
            regular expression that finds a name in the folder where it was extracted.
        scratch: Where a compressed archive is uncompressed to.
        on_progress: Told of the bytes of a compressed archive that are read.

    Raises:
        InputError: No such path, or an archive that is damaged or cut short.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return Files(str(path), _list_archive(path, scratch, on_progress))
    if not path.is_dir():
        raise InputError(f"{path}: expected a folder or an archive")
    files = Files(str(path), dict(_walk(path)))
    for name, extracted in archives.items():
        if (path / name).is_file() and not files.matching(extracted):
            files = Files(
                files.where, {**_list_archive(path / name, scratch, on_progress), **files.stored}
            )
    return files


def open_all(
    paths: Sequence[Path], archives: Mapping[str, str], scratch: Path, on_progress: OnProgress
) -> Files:
    """The files of several folders or archives together; see `open_files`."""
    stored: dict[str, ByteRange] = {}
    for path in paths:
        stored |= open_files(path, archives, scratch, on_progress).stored
    return Files(os.path.commonpath(paths), stored)


def _walk(folder: Path) -> Iterator[tuple[str, ByteRange]]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                relative = os.path.relpath(path, folder).replace(os.sep, "/")
                yield relative, ByteRange(path, 0, os.path.getsize(path))


def _list_archive(path: Path, scratch: Path, on_progress: OnProgress) -> dict[str, ByteRange]:
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    tar = _uncompress(path, scratch, on_progress) if compressed else path
    try:
        with tarfile.open(tar, "r:") as archive:
            members = [m for m in archive if m.isreg()]
            end = archive.offset
    except tarfile.TarError as error:
        raise InputError(
            f"{path}: {error}; expected a whole tar archive (is the download complete?)"
        ) from error
    # `tarfile` takes whatever is no header for the archive's end: a file that is cut short between
    # two members, a damaged header, the zeros of a download that is not finished.
    with open(tar, "rb") as file:
        file.seek(end)
        rest = file.read(_LONGEST_END + 1)
    last = members[-1].name if members else "its beginning"
    if len(rest) < tarfile.BLOCKSIZE:
        raise InputError(f"{path}: cut short after {last}; expected an end-of-archive mark there")
    if any(rest) or len(rest) > _LONGEST_END:
        raise InputError(
            f"{path}: damaged after {last}; expected a further file there or the archive's end (is "
            "the download complete?)"
        )
    return {m.name.removeprefix("./"): ByteRange(str(tar), m.offset_data, m.size) for m in members}


def _uncompress(path: Path, scratch: Path, on_progress: OnProgress) -> Path:
    """The .tar in a .tar.gz, so that its members can be read in any order. Kept in `scratch`."""
    import gzip

    status = path.stat()
    tar = scratch / f"{path.name}-{status.st_size}-{status.st_mtime_ns}.tar"
    if tar.exists():
        return tar
    scratch.mkdir(parents=True, exist_ok=True)
    part = tar.with_suffix(f".{os.getpid()}.part")
    try:
        with (
            open(path, "rb") as packed,
            gzip.open(packed, "rb") as source,
            open(part, "wb") as target,
        ):
            while block := source.read(1 << 20):
                target.write(block)
                on_progress(f"uncompressing {path.name}", packed.tell(), status.st_size)
            target.flush()
            os.fsync(target.fileno())
        part.replace(tar)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: {error}; expected a whole .tar.gz archive (is the download complete?)"
        ) from error
    except OSError as error:
        raise Unfinished(
            f"{path}: cannot be uncompressed to {tar} ({error.strerror or error}); the same "
            "command begins with it again once there is room"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return tar
