"""The command line, `fgvce COMMAND ...`: `commands` lists the commands, and their parsers are made
from the signatures of the functions and config dataclasses that they stand for."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

from fgvce_jax.checks import check_devices
from fgvce_jax.cli.commands import COMMANDS, full_parser
from fgvce_jax.cli.compilation import cache_compilations, note_compilations
from fgvce_jax.cli.parser import parse
from fgvce_jax.cli.presets import with_presets
from fgvce_jax.errors import InputError, Stopped
from fgvce_jax.progress import verbosity

__all__ = ["cache_compilations", "main"]


_COMPUTING = {"demo", "explain", "why", "train", "benchmark", "cuts"}
"""Commands that are no use without the devices that were asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0; 2 for an input that cannot be used; 75, which schedulers know as a passing failure
    (EX_TEMPFAIL), where the same command should be given again; 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _run(words)
    except (InputError, Stopped) as error:
        if "--verbose" in words:
            traceback.print_exception(error)
        stopped = isinstance(error, Stopped)
        print(f"fgvce: {'stopped' if stopped else 'error'}: {error}", file=sys.stderr)
        return 75 if stopped else 2
    except KeyboardInterrupt:
        print("fgvce: interrupted; give the same command again", file=sys.stderr)
        return 130
    return 0


def _run(words: Sequence[str]) -> None:
    """Parse the words, run the command that they name and print its result."""
    name = next((word for word in words if not word.startswith("-")), None)
    _check_name(name, words)
    # The others' options stay out: to import those of `train` takes longer than most commands.
    commands = [command for command in COMMANDS if command.name == name]
    everything = parse(full_parser(commands), with_presets(_spelled_out(words), name))
    (command,) = commands  # or the parser asked for one
    arguments = everything[command.name]
    quiet, verbose = (arguments.pop(flag) or everything[flag] for flag in ("quiet", "verbose"))
    if quiet and verbose:
        raise InputError("quiet, verbose: expected one of them, got both")
    # An image above our own limit is skipped by name; Pillow would warn of it as well.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    cache_compilations()
    if command.name in _COMPUTING:
        check_devices()
    with verbosity(quiet=quiet), note_compilations() if verbose else nullcontext():
        result = command.run(arguments)
    if result is not None:
        print(result)


def _spelled_out(words: Sequence[str]) -> list[str]:
    """The words with `--ray ADDRESS` as the field that it stands for."""
    return [re.sub(r"^--ray(?==|$)", "--ray.address", word) for word in words]


def _check_name(name: str | None, words: Sequence[str]) -> None:
    """Raise `InputError` where no command has that name, or it has another one now."""
    if name == "data":
        rest = [word for word in words if word not in ("data", "prepare")]
        now = shlex.join(["fgvce", "prepare", *rest])
        raise InputError(f"data prepare: the command is `{now}` now")
    known = [command.name for command in COMMANDS]
    if name not in (None, *known):
        raise InputError(f"command {name!r}: expected one of {', '.join(known)}")
