"""The commands. Each imports what it needs when it runs, so that the others start quickly."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import ArgumentParser, Namespace

from fgvce_jax import __version__
from fgvce_jax.cli.parser import add_config, add_function, add_section, new_parser, set_defaults
from fgvce_jax.cli.presets import find_preset, read_preset, shipped_presets
from fgvce_jax.config import ExplainConfig, RayConfig
from fgvce_jax.errors import MissingPackage
from fgvce_jax.stop import Stop


class Command(NamedTuple):
    """A command.

    Attributes:
        name: The word after `fgvce`.
        summary: Its purpose, in one line.
        add_options: Adds its own options to a parser.
        run: Runs it with its arguments, and returns what is to be printed, if anything.
    """

    name: str
    summary: str
    add_options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Any]


# --- commands of a config -----------------------------------------------------------------------


def _explain(name: str, summary: str, out: str, preset: str | None = None) -> Command:
    """A run into `out` by default; a preset's values are the other defaults."""

    def add_options(parser: ArgumentParser) -> None:
        add_config(parser, ExplainConfig, out)
        add_section(parser, RayConfig, "ray")
        limit = "Seconds after which the parts in hand are finished and it ends, with exit code 75."
        parser.add_argument("--time_limit", type=float | None, help=limit)
        if preset is not None:
            set_defaults(parser, read_preset(find_preset(preset)))

    return Command(name, summary, add_options, _run_explain)


def _run_explain(arguments: Namespace) -> str:
    from fgvce_jax.methods import METHODS

    config = _config(ExplainConfig, arguments)
    for name in config.methods:  # before anything is read
        METHODS[name]
    from fgvce_jax.run import explain_split, summary

    folder = Path(arguments.out)
    with Stop(arguments.time_limit) as stop:
        explain_split(config, folder, arguments.ray, stop)
    return summary(folder)


def _train_options(parser: ArgumentParser) -> None:
    from fgvce_jax.train import TrainConfig

    add_config(parser, TrainConfig, "fgvce-classifier")


def _run_train(arguments: Namespace) -> None:
    from fgvce_jax.train import TrainConfig, train

    train(_config(TrainConfig, arguments), Path(arguments.out))


def _benchmark_options(parser: ArgumentParser) -> None:
    from fgvce_jax.key.config import SHIPPED, KeyConfig

    add_config(parser, KeyConfig, "fgvce-benchmark")
    set_defaults(parser, {"model": {"checkpoint": SHIPPED}})


def _run_benchmark(arguments: Namespace) -> Path:
    from fgvce_jax.key import KeyConfig, benchmark

    return benchmark(_config(KeyConfig, arguments), Path(arguments.out))


def _cuts_options(parser: ArgumentParser) -> None:
    from fgvce_jax.cuts import CutsConfig

    add_config(parser, CutsConfig, "fgvce-cuts")


def _run_cuts(arguments: Namespace) -> str:
    from fgvce_jax.cuts import CutsConfig, compare_cuts

    return compare_cuts(_config(CutsConfig, arguments), Path(arguments.out))


def _config(kind: type, arguments: Namespace) -> Any:
    """The part of the arguments that is the config dataclass `kind`."""
    return kind(**{name: arguments[name] for name in kind.__dataclass_fields__})


# --- commands of a function, whose parameters are the options -----------------------------------


def _call(
    name: str,
    summary: str,
    load: Callable[[], Callable[..., Any]],
    result: Callable[[Namespace, Any], Any] = lambda arguments, returned: returned,
    **options: Any,
) -> Command:
    """The function that `load` imports; `options` are those of `add_function`."""
    return Command(
        name,
        summary,
        lambda parser: add_function(parser, load(), **options),
        lambda arguments: result(arguments, load()(**vars(arguments))),
    )


def _evaluate(run: str, json: str | None = None, merge_sides: bool = True) -> str:
    """Measure a run; what is found is kept in its folder, and `fgvce report` shows it.

    Args:
        run: The run's folder.
        json: Write the figures to this file as well.
        merge_sides: In Same-KP, a left and a right eye (leg, wing, ...) are the same part.
    """
    from fgvce_jax.evaluate import evaluate_run, evaluation_table
    from fgvce_jax.files import write_json

    figures = evaluate_run(run, merge_sides=merge_sides)
    for path in (Path(run) / "evaluation.json", *([Path(json)] if json is not None else [])):
        write_json(path, figures)
    return evaluation_table(figures)


def _report(run: str) -> Path:
    """Write a report.

    Args:
        run: The run's folder.
    """
    from fgvce_jax.reports import report_again

    return report_again(Path(run))


def _compare_options(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", help="The folders of two runs or more.")
    parser.add_argument("--out", default="fgvce-compare.html", help="The page.")


def _run_compare(arguments: Namespace) -> Path:
    from fgvce_jax.reports import compare

    return compare([Path(run) for run in arguments.runs], Path(arguments.out))


def _port() -> Callable[..., Any]:
    from fgvce_jax.models import port

    return port


def _why() -> Callable[..., Any]:
    from fgvce_jax.photographs import explain_photographs

    return explain_photographs


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
        raise MissingPackage("completion", "shtab", "completion") from error
    return full_parser(COMMANDS).get_completion_script(f"shtab-{shell}")


# --- all of them --------------------------------------------------------------------------------

COMMANDS: tuple[Command, ...] = (
    _explain(
        "demo",
        "Explain the mistakes of the shipped classifier on the embedded birds.",
        out="fgvce-demo",
        preset="demo",
    ),
    _explain("explain", "Explain every misclassified image of a dataset's split.", "fgvce-run"),
    _call(
        "why",
        "Explain photographs: why P, and not the class that you expect or the runner-up.",
        _why,
        spelled={"photos": {"option": "photos", "type": str, "nargs": "+"}},
    ),
    _call(
        "evaluate",
        "Measure a run's edits and maps against the dataset's keypoints.",
        lambda: _evaluate,
        positional=["run"],
    ),
    Command(
        "benchmark",
        "Hold explanations to birds whose true reasons are known.",
        _benchmark_options,
        _run_benchmark,
    ),
    Command(
        "cuts",
        "Measure explanations at every possible cut of a network, and what they cost.",
        _cuts_options,
        _run_cuts,
    ),
    _call("report", "Write a run's report.html again.", lambda: _report, positional=["run"]),
    Command(
        "compare",
        "Show runs over the same images side by side: two classifiers, or two searches.",
        _compare_options,
        _run_compare,
    ),
    Command(
        "train",
        "Train or fine-tune a classifier; a run that was interrupted continues.",
        _train_options,
        _run_train,
    ),
    _call(
        "port",
        "Turn PyTorch or Hugging Face weights into a checkpoint that describes itself.",
        _port,
        lambda given, clf: f"{given.out}: {clf.spec.arch}, {clf.num_classes} classes",
        positional=["weights"],
        spelled={  # three numbers each: red, green and blue
            name: {"option": f"--{name}", "type": float, "nargs": 3} for name in ("mean", "std")
        },
    ),
    _call(
        "prepare",
        "Prepare a dataset's records from its official archive.",
        _prepare,
        positional=["dataset"],
        spelled={"source": {"option": "--from", "type": str}},  # `from` is a word of Python's
    ),
    _call("presets", "List the presets for --config.", lambda: _presets),
    _call(
        "completion",
        "Print a script by which a shell completes commands and options.",
        lambda: _completion,
        positional=["shell"],
    ),
)


def full_parser(filled: Collection[Command]) -> ArgumentParser:
    """The parser of `fgvce`, with the options of the `filled` commands and the others' names."""
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
        if not action.option_strings or action.required:
            words += [*action.option_strings[:1], action.dest.upper()]
    return " ".join([*words, "[options]"])


def _add_verbosity(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("messages")
    for flag, text in (
        ("--quiet", "Only the result, or the error: no progress bars, no notes."),
        ("--verbose", "Also the programs that JAX compiles, and an error's traceback."),
    ):
        group.add_argument(flag, action="store_true", help=text)
