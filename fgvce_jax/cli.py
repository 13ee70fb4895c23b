"""The command line: `fgvce demo | train | explain | evaluate | port | report | data`."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from fgvce_jax.assets import find, shipped
from fgvce_jax.config import DistributedConfig, ExplainConfig
from fgvce_jax.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for an input that cannot be used."""
    commands = (Demo(), Explain(), Evaluate(), Train(), Port(), Report(), Data())
    parser = _parser("Why an image classifier said P and not Q: FG-VCE in JAX.", prog="fgvce")
    subcommands = parser.add_subcommands(title="commands")
    for command in commands:
        subcommands.add_subcommand(command.name, command.parser(), help=command.__doc__)
    cache_compilations()
    try:
        arguments = _parse(parser, sys.argv[1:] if argv is None else list(argv))
        name = arguments.subcommand
        command = next(command for command in commands if command.name == name)
        command.run(arguments[name])
    except InputError as error:
        print(f"fgvce: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fgvce: interrupted; give the same command again", file=sys.stderr)
        return 130
    return 0


def _parser(description: str | None, **options: Any) -> ArgumentParser:
    """A parser that raises what is wrong, and takes no abbreviation for a field's name."""
    return ArgumentParser(
        description=description, exit_on_error=False, allow_abbrev=False, **options
    )


def _parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """The arguments, with config dataclasses made of them.

    Raises:
        InputError: What the parser finds wrong, in one line.
    """
    try:
        return parser.instantiate(parser.parse_args(_with_presets(argv)))
    except ArgumentError as error:
        raise InputError(_in_a_line(str(error))) from error
    except TypeError as error:  # jsonargparse has no words for this
        raise InputError("config: a value in the place of a section, expected fields") from error


def _in_a_line(message: str) -> str:
    """What jsonargparse complains of, without its own terms."""
    message = re.sub(r'Parser key "([\w.]+)":', r"--\1:", " ".join(message.split()))
    message = re.sub(r"an? <class '(\w+)'>", r"\1", message)
    return re.sub(r"an? typing\.Literal\[(.*?)\]", r"one of \1", message)


def _with_presets(argv: Sequence[str]) -> list[str]:
    """`argv` with each --config as a path: from the working directory, else the package's own.

    Raises:
        InputError: No such file, or one that holds no mapping.
    """
    out = [part for word in argv for part in _split_config(word)]
    for i in range(1, len(out)):
        if out[i - 1] != "--config":
            continue
        path = find(out[i])
        if path is None or not path.is_file():
            raise InputError(f"config {out[i]}: no such file, nor a preset of that name")
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"config {path}: cannot be read as YAML ({why})") from error
        if not isinstance(content, dict):
            raise InputError(f"config {path}: expected fields and their values")
        out[i] = str(path)
    return out


def _split_config(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--config=") else [word]


class Explain:
    """Explain every misclassified image of a dataset's split."""

    name = "explain"
    out = "fgvce-run"
    preset: str | None = None

    def parser(self) -> ArgumentParser:
        """Options: `ExplainConfig`'s fields, the run's folder, and the other processes."""
        parser = _config_parser(self.__doc__, self.out, self.preset)
        parser.add_class_arguments(ExplainConfig)
        parser.add_class_arguments(DistributedConfig, "distributed")
        return parser

    def run(self, arguments: Namespace) -> None:
        """Explain, then say what came of it."""
        from fgvce_jax.distributed import join

        processes = join(arguments.distributed)
        from fgvce_jax.run import explain_split, summary

        folder = Path(arguments.out)
        explain_split(_config(ExplainConfig, arguments), folder, processes)
        if processes.primary:
            print(summary(folder))


class Demo(Explain):
    """Explain the mistakes of the shipped classifier on the embedded birds."""

    name = "demo"
    out = "fgvce-demo"
    preset = "configs/demo.yaml"


class Train:
    """Train or fine-tune a classifier; a run that was interrupted continues."""

    name = "train"

    def parser(self) -> ArgumentParser:
        """Options: `TrainConfig`'s fields and the checkpoint's folder."""
        from fgvce_jax.train import TrainConfig

        parser = _config_parser(self.__doc__, "fgvce-classifier", None)
        parser.add_class_arguments(TrainConfig)
        return parser

    def run(self, arguments: Namespace) -> None:
        """Train into the folder."""
        from fgvce_jax.train import TrainConfig, train

        train(_config(TrainConfig, arguments), Path(arguments.out))


class Port:
    """Turn PyTorch or Hugging Face weights into a checkpoint that describes itself."""

    name = "port"

    def parser(self) -> ArgumentParser:
        """Options: `fgvce_jax.models.port`'s."""
        parser = _parser(self.__doc__)
        parser.add_argument("weights", help="A .safetensors, .pth, .pt or .ckpt file.")
        parser.add_argument("--arch", required=True, help="resnet50, vgg16, vgg19, vgg16_bn, ...")
        parser.add_argument("--out", required=True, help="Folder of the checkpoint.")
        parser.add_argument("--cut", type=str, help="Where the head begins, see `explain --help`.")
        parser.add_argument("--image_size", type=int, help="In pixels; 224 by default.")
        parser.add_argument(
            "--resize_to", type=int, help="Resize the short side to this, then crop the centre."
        )
        for name, what in (("mean", "Mean"), ("std", "Standard deviation")):
            parser.add_argument(
                f"--{name}",
                type=float,
                nargs=3,
                help=f"{what} of red, green and blue that images were normalised with, in units "
                "of [0, 1]; ImageNet's by default.",
            )
        parser.add_argument("--class_names", type=str, help="A text file, one name per line.")
        return parser

    def run(self, arguments: Namespace) -> None:
        """Port into the folder, and name it."""
        from fgvce_jax.models import port

        clf = port(**{k: v for k, v in vars(arguments).items() if v is not None})
        print(f"{arguments.out}: {arguments.arch}, {clf.num_classes} classes")


class Report:
    """Write a run's report.html again."""

    name = "report"

    def parser(self) -> ArgumentParser:
        """Options: the run."""
        parser = _parser(self.__doc__)
        parser.add_argument("run", help="The run's folder.")
        return parser

    def run(self, arguments: Namespace) -> None:
        """Write the report, and name it."""
        from fgvce_jax.run import report_again

        print(report_again(Path(arguments.run)))


class Evaluate:
    """Measure a run's edits and maps against the dataset's keypoints."""

    name = "evaluate"

    def parser(self) -> ArgumentParser:
        """Options: the run, and where to keep the figures."""
        parser = _parser(self.__doc__)
        parser.add_argument("run", help="The run's folder.")
        parser.add_argument("--json", type=str, help="Write the figures to this file as well.")
        return parser

    def run(self, arguments: Namespace) -> None:
        """Print the table."""
        from fgvce_jax.evaluate import evaluate_run, evaluation_table
        from fgvce_jax.files import write_json

        figures = evaluate_run(arguments.run)
        print(evaluation_table(figures))
        if arguments.json:
            write_json(Path(arguments.json), figures)


class Data:
    """Prepare a dataset's records from its official archive."""

    name = "data"

    def parser(self) -> ArgumentParser:
        """Options: `fgvce_jax.data.prepare.prepare`'s."""
        parser = _parser(self.__doc__)
        parser.add_argument("action", choices=["prepare"], help="The only one there is.")
        parser.add_argument("dataset", help="cub or dogs.")
        parser.add_argument(
            "--from",
            dest="from_path",
            type=str,
            help="The official archive, or the folder it was extracted to (Dogs: the folder that "
            "holds its archives); without it, it is downloaded.",
        )
        parser.add_argument(
            "--to", type=str, help="Folder of the records, the --data.path of `explain`."
        )
        parser.add_argument(
            "--keypoints", type=str, help="StanfordExtra's JSON file, for the keypoints of Dogs."
        )
        return parser

    def run(self, arguments: Namespace) -> None:
        """Prepare, and name the folder."""
        from fgvce_jax.data.prepare import prepare

        print(prepare(arguments.dataset, arguments.from_path, arguments.to, arguments.keypoints))


def _config_parser(description: str | None, out: str, preset: str | None) -> ArgumentParser:
    parser = _parser(description, default_config_files=[str(shipped(preset))] if preset else [])
    parser.add_argument("--config", action="config", help="A preset; options after it change it.")
    parser.add_argument("--out", default=out, help="Folder of the results.")
    return parser


def _config(kind: type, arguments: Namespace):
    """The part of the arguments that is the config dataclass `kind`."""
    return kind(**{name: arguments[name] for name in kind.__dataclass_fields__})


def cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder, so that a second run starts quickly."""
    logging.getLogger("jax").setLevel(logging.ERROR)
    if jax.config.jax_compilation_cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "fgvce_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
