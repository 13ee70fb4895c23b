"""Errors that a user can mend, in one line each; the command line turns them into exit code 2."""

from __future__ import annotations


class InputError(ValueError):
    """An input that cannot be used. The message names the thing and what was expected."""


class MissingPackage(InputError):
    """A package that only one feature needs, and that is not installed.

    Args:
        what: The feature, as the message begins.
        package: Its name on PyPI.
        extra: The extra of this package that brings it.
        otherwise: What to do without it, where there is something.
    """

    def __init__(self, what: str, package: str, extra: str, otherwise: str = ""):
        hint = f"pip install 'fgvce-jax[{extra}]'"
        super().__init__(f"{what}: expected the package {package} ({hint}){otherwise}")


class Unfinished(InputError):
    """Work that was stopped from outside: a full disk, a process that is gone.

    Everything written before is whole and stays, and the same call continues from it.
    """


class Stopped(BaseException):
    """An early end that was asked for, by SIGTERM or a time limit; see `stop.Stop`.

    No `Exception`, like KeyboardInterrupt: it comes wherever the program stands, and who catches
    the errors of a reader, say, would take it for a damaged file.
    """


class UnreadableImage(InputError):
    """One image that cannot be decoded; a run skips it, names it and goes on.

    Attributes:
        id: The example's id, usually its path inside the dataset.
        why: The reason.
    """

    def __init__(self, id: str, why: str):
        super().__init__(f"image {id}: {why}")
        self.id = id
        self.why = why

    def __reduce__(self):  # so that it survives the way back from a worker process
        return (UnreadableImage, (self.id, self.why))
