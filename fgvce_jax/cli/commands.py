"""The commands. Each imports what it needs when it runs, so that the others start quickly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from fgvce_jax import __version__
from fgvce_jax.cli.parser import add_config, add_function, add_section, new_parser, set_defaults
from fgvce_jax.cli.presets import find_preset, read_preset, shipped_presets
from fgvce_jax.config import DistributedConfig, ExplainConfig
from fgvce_jax.errors import InputError

_CHANNELS = ("mean", "std")  # three numbers each: red, green and blue


@dataclass(frozen=True)
class Command(ABC):
    """A command.

    Attributes:
        name: The word after `fgvce`.
        summary: Its purpose, in one line.
    """

    name: str
    summary: str

    @abstractmethod
    def add_options(self, parser: ArgumentParser) -> None:
        """Add its own options."""

    @abstractmethod
    def run(self, arguments: Namespace) -> str | None:
        """Run it, and return what is to be printed."""


@dataclass(frozen=True)
class Explain(Command):
    """A run over a split: `ExplainConfig`'s fields, its folder, and the other processes.

    Attributes:
        out: The run's folder, by default.
        preset: The name of a preset whose values are the defaults.
    """

    out: str
    preset: str | None = None

    def add_options(self, parser: ArgumentParser) -> None:
        add_config(parser, ExplainConfig, self.out)
        add_section(parser, DistributedConfig, "distributed")
        if self.preset is not None:
            set_defaults(parser, read_preset(find_preset(self.preset)))

    def run(self, arguments: Namespace) -> str | None:
        """Explain, and summarise the run."""
        from fgvce_jax.methods import METHODS

        config = _config(ExplainConfig, arguments)
        for name in config.methods:  # before anything is read
            METHODS[name]
        from fgvce_jax.distributed import join

        processes = join(arguments.distributed)
        from fgvce_jax.run import explain_split, summary

        folder = Path(arguments.out)
        explain_split(config, folder, processes)
        return summary(folder) if processes.primary else None


@dataclass(frozen=True)
class Train(Command):
    """A training run: `TrainConfig`'s fields and the checkpoint's folder.

    Attributes:
        out: The checkpoint's folder, by default.
    """

    out: str

    def add_options(self, parser: ArgumentParser) -> None:
        from fgvce_jax.train import TrainConfig

        add_config(parser, TrainConfig, self.out)

    def run(self, arguments: Namespace) -> None:
        """Train into the folder."""
        from fgvce_jax.train import TrainConfig, train

        train(_config(TrainConfig, arguments), Path(arguments.out))


@dataclass(frozen=True)
class Call(Command):
    """A function: its parameters are the options.

    Attributes:
        load: Imports the function.
        positional: The parameter that is given by position.
        spelled: Parameters that are written otherwise, see `add_function`.
        result: Of the arguments and what the function returned, what is to be printed.
    """

    load: Callable[[], Callable[..., Any]]
    positional: str | None = None
    spelled: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    result: Callable[[Namespace, Any], str] = lambda arguments, returned: str(returned)

    def add_options(self, parser: ArgumentParser) -> None:
        positional = () if self.positional is None else (self.positional,)
        add_function(parser, self.load(), positional=positional, spelled=self.spelled)

    def run(self, arguments: Namespace) -> str:
        """Call the function."""
        return self.result(arguments, self.load()(**vars(arguments)))


def _config(kind: type, arguments: Namespace) -> Any:
    """The part of the arguments that is the config dataclass `kind`."""
    return kind(**{name: arguments[name] for name in kind.__dataclass_fields__})


def _evaluate(run: str, json: str | None = None) -> str:
    """Measure a run.

    Args:
        run: The run's folder.
        json: Write the figures to this file as well.
    """
    from fgvce_jax.evaluate import evaluate_run, evaluation_table
    from fgvce_jax.files import write_json

    figures = evaluate_run(run)
    if json is not None:
        write_json(Path(json), figures)
    return evaluation_table(figures)


def _report(run: str) -> Path:
    """Write a report.

    Args:
        run: The run's folder.
    """
    from fgvce_jax.run import report_again

    return report_again(Path(run))


def _port() -> Callable[..., Any]:
    from fgvce_jax.models import port

    return port


def _prepare() -> Callable[..., Any]:
    from fgvce_jax.data.prepare import prepare

    return prepare


def _presets() -> str:
    """List the presets."""
    presets = list(shipped_presets())
    width = max(len(preset.name) for preset in presets)
    return "\n".join(f"{p.name:<{width}}  {p.command:<7}  {p.summary}" for p in presets)


def _completion(shell: Literal["bash", "zsh"]) -> str:
    """Write a shell's script.

    Args:
        shell: bash or zsh.
    """
    try:
        import shtab  # noqa: F401
    except ImportError as error:
        raise InputError(
            "completion: expected the package shtab (pip install 'fgvce-jax[completion]')"
        ) from error
    return full_parser(COMMANDS).get_completion_script(f"shtab-{shell}")


COMMANDS: tuple[Command, ...] = (
    Explain(
        "demo",
        "Explain the mistakes of the shipped classifier on the embedded birds.",
        out="fgvce-demo",
        preset="demo",
    ),
    Explain("explain", "Explain every misclassified image of a dataset's split.", "fgvce-run"),
    Call(
        "evaluate",
        "Measure a run's edits and maps against the dataset's keypoints.",
        lambda: _evaluate,
        positional="run",
    ),
    Call("report", "Write a run's report.html again.", lambda: _report, positional="run"),
    Train(
        "train",
        "Train or fine-tune a classifier; a run that was interrupted continues.",
        out="fgvce-classifier",
    ),
    Call(
        "port",
        "Turn PyTorch or Hugging Face weights into a checkpoint that describes itself.",
        _port,
        positional="weights",
        spelled={name: {"option": f"--{name}", "type": float, "nargs": 3} for name in _CHANNELS},
        result=lambda given, clf: f"{given.out}: {given.arch}, {clf.num_classes} classes",
    ),
    Call(
        "prepare",
        "Prepare a dataset's records from its official archive.",
        _prepare,
        positional="dataset",
        spelled={"source": {"option": "--from", "type": str}},  # `from` is a word of Python's
    ),
    Call("presets", "List the presets for --config.", lambda: _presets),
    Call(
        "completion",
        "Print a script by which a shell completes commands and options.",
        lambda: _completion,
        positional="shell",
    ),
)


def full_parser(filled: Collection[Command]) -> ArgumentParser:
    """The parser of `fgvce`.

    Args:
        filled: The commands whose options are added; of the others only the names are known.
    """
    parser = new_parser(
        "Why an image classifier predicted P and not Q: FG-VCE in JAX.",
        prog="fgvce",
        usage="fgvce COMMAND [options]",
        version=__version__,
        epilog="`fgvce COMMAND --help` lists a command's options. The Tab key completes them "
        'after eval "$(fgvce completion bash)", or zsh; it needs fgvce-jax[completion].',
    )
    _add_verbosity(parser)
    subcommands = parser.add_subcommands(title="commands", description="")
    for command in COMMANDS:
        own = new_parser(command.summary)
        if command in filled:
            command.add_options(own)
            _add_verbosity(own)
        subcommands.add_subcommand(command.name, own, help=command.summary)
        own.usage = _usage(own, command.name)
    return parser


def _usage(parser: ArgumentParser, name: str) -> str:
    """The positional argument, and those options that have to be given."""
    words = ["fgvce", name]
    for action in parser._actions:
        if not action.option_strings:
            words.append(action.dest.upper())
        elif action.required:
            words += [action.option_strings[0], action.dest.upper()]
    return " ".join([*words, "[options]"])


def _add_verbosity(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("messages")
    for flag, text in (
        ("--quiet", "Only the result, or the error: no progress bars, no notes."),
        ("--verbose", "Also the programs that JAX compiles, and an error's traceback."),
    ):
        group.add_argument(flag, action="store_true", help=text)
