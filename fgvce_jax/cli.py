"""The command line: `fgvce demo | train | explain | evaluate | port | report | data`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from jsonargparse import ArgumentParser, Namespace

from fgvce_jax.assets import shipped
from fgvce_jax.config import DistributedConfig, ExplainConfig
from fgvce_jax.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for an input that cannot be used."""
    commands = (Demo(), Explain(), Evaluate(), Train(), Port(), Report(), Data())
    parser = ArgumentParser(
        prog="fgvce", description="Why an image classifier said P and not Q: FG-VCE in JAX."
    )
    subcommands = parser.add_subcommands(title="commands")
    for command in commands:
        subcommands.add_subcommand(command.name, command.parser(), help=command.__doc__)
    cache_compilations()
    try:
        arguments = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
        name = arguments.subcommand
        command = next(command for command in commands if command.name == name)
        command.run(parser.instantiate(arguments)[name])
    except InputError as error:
        print(f"fgvce: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fgvce: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


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
        parser = ArgumentParser(description=self.__doc__)
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
        """Port into the folder."""
        from fgvce_jax.models import port

        port(**{k: v for k, v in vars(arguments).items() if v is not None})


class Report:
    """Write a run's report.html again."""

    name = "report"

    def parser(self) -> ArgumentParser:
        """Options: the run."""
        parser = ArgumentParser(description=self.__doc__)
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
        parser = ArgumentParser(description=self.__doc__)
        parser.add_argument("run", help="The run's folder.")
        parser.add_argument("--json", type=str, help="Write the figures to this file as well.")
        return parser

    def run(self, arguments: Namespace) -> None:
        """Print the table."""
        from fgvce_jax.evaluate import evaluate, evaluation_table
        from fgvce_jax.results import whole_file

        figures = evaluate(arguments.run)
        print(evaluation_table(figures))
        if arguments.json:
            with whole_file(Path(arguments.json)) as file:
                file.write((json.dumps(figures, indent=2) + "\n").encode())


class Data:
    """Prepare a dataset's records from its official archive."""

    name = "data"

    def parser(self) -> ArgumentParser:
        """Options: `fgvce_jax.data.prepare.prepare`'s."""
        parser = ArgumentParser(description=self.__doc__)
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
    parser = ArgumentParser(
        description=description, default_config_files=[str(shipped(preset))] if preset else []
    )
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
