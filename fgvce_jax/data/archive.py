"""The files of a dataset as it is distributed: in a folder, in archives, or some of each."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fgvce_jax.errors import InputError, Unfinished
from fgvce_jax.files import whole_file

_COMPLETE = "(is the download complete?)"

_LONGEST_END = 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
"""Zeros after the last file: two blocks that mark the end, and the filling of the last record."""


RATIO, ROOM = 20, 1 << 30
"""A .tar.gz may grow to 20 times its size, or to 1 GiB; photographs hardly do, lists tenfold."""


class StoredFile(NamedTuple):
    """A file as `size` bytes at `offset` of `path`."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """All of it."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Files:
    """Files by name.

    Attributes:
        where: The folder or archive, for messages.
        stored: By "/"-separated names, as in the folder or archive.
    """

    where: str
    stored: Mapping[str, StoredFile]

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


OnProgress = Callable[[str, int, int], None]
"""Called as on_progress(task, steps done, steps in all)."""


def open_files(
    path: str | os.PathLike[str],
    archives: Mapping[str, str],
    scratch: Path,
    on_progress: OnProgress,
) -> Files:
    """The files of a folder, a .tar or a .tar.gz; `InputError` if it is absent, damaged or cut.

    `archives` are those that a folder may hold in place of their extracted content, each with a
    regular expression that finds a name in the folder where it was extracted. A compressed archive
    is uncompressed to `scratch`, so that its members can be read in any order.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return Files(str(path), _list_archive(path, scratch, on_progress))
    if not path.is_dir():
        raise InputError(f"{path}: expected a folder or an archive")
    files = Files(str(path), _list_folder(path))
    for name, extracted in archives.items():
        if (path / name).is_file() and not files.matching(extracted):
            packed = _list_archive(path / name, scratch, on_progress)
            files = Files(files.where, {**packed, **files.stored})
    return files


def _list_folder(folder: Path) -> dict[str, StoredFile]:
    found = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for path in (Path(parent, name) for name in names):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                found[name] = StoredFile(str(path), 0, path.stat().st_size)
    return found


def _list_archive(path: Path, scratch: Path, on_progress: OnProgress) -> dict[str, StoredFile]:
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    tar = _uncompress(path, scratch, on_progress) if compressed else path
    try:
        with tarfile.open(tar, "r:") as archive:
            members = [m for m in archive if m.isreg()]
            end = archive.offset
    except tarfile.TarError as error:
        raise InputError(f"{path}: {error}; expected a whole tar archive {_COMPLETE}") from error
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
            f"{path}: damaged after {last}; expected a further file there or the archive's end "
            f"{_COMPLETE}"
        )
    return {m.name.removeprefix("./"): StoredFile(str(tar), m.offset_data, m.size) for m in members}


def _uncompress(path: Path, scratch: Path, on_progress: OnProgress) -> Path:
    """The .tar in a .tar.gz, kept in `scratch`."""
    status = path.stat()
    tar = scratch / f"{path.name}-{status.st_size}-{status.st_mtime_ns}.tar"
    if tar.exists():
        return tar
    most = max(RATIO * status.st_size, ROOM)
    _check_growth(path, _declared_size(path), most)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(tar) as target, open(path, "rb") as packed, gzip.open(packed) as source:
            try:
                while block := source.read(1 << 20):
                    target.write(block)
                    _check_growth(path, source.tell(), most)
                    on_progress(f"uncompressing {path.name}", packed.tell(), status.st_size)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise InputError(
                    f"{path}: {error}; expected a whole .tar.gz archive {_COMPLETE}"
                ) from error
    except Unfinished as error:
        raise Unfinished(
            f"{path}: cannot be uncompressed to {error}; the same command begins with it again "
            "once there is room"
        ) from error
    return tar


def _declared_size(path: Path) -> int:
    """The uncompressed size that a gzip file ends with, modulo 4 GiB; it may be wrong."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 4, 0))
        return int.from_bytes(file.read(4), "little")


def _check_growth(path: Path, size: int, most: int) -> None:
    """Raise InputError for an archive that grows beyond what one of images and lists does."""
    if size > most:
        raise InputError(
            f"{path}: uncompresses to {size / 2**30:.1f} GiB or more, expected at most "
            f"{most / 2**30:.1f} GiB; extract it yourself if it can be trusted, and give the "
            f"folder {_COMPLETE}"
        )
