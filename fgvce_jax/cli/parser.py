"""Parsers made from signatures, help that fits a screen, and errors in one line."""

from __future__ import annotations

import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace

from fgvce_jax.errors import InputError


class HelpFormatter(DefaultHelpFormatter):
    """Help without types, and with those defaults that are values."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.nargs == 0:  # a flag; argparse writes that of --help without a capital
            return text[:1].upper() + text[1:]
        if action.option_strings and action.required:
            return f"{text} (required)"
        # Where the default is no value, the text tells what happens then.
        shown = action.option_strings and action.default not in (None, SUPPRESS, (), "")
        return f"{text} (default: %(default)s)" if shown else text

    def _format_action(self, action: Action) -> str:
        # jsonargparse heads the list of commands a second time.
        return re.sub(r"^ *Available subcommands:.*\n", "", super()._format_action(action))

    def start_section(self, heading: str | None) -> None:
        # The heading of a config's section is its docstring: up to a colon it is a title.
        super().start_section(heading and heading.partition(":")[0])


def new_parser(description: str, **options: Any) -> ArgumentParser:
    """A parser that raises its errors, and takes no abbreviation for a field's name."""
    return ArgumentParser(
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        **options,
    )


def add_function(
    parser: ArgumentParser,
    function: Callable[..., Any],
    *,
    positional: Collection[str] = (),
    spelled: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add a function's parameters, with the help of its docstring.

    `positional` ones are given by position, the others are options. `spelled` ones are written
    otherwise than jsonargparse would have it: the `option` and what `add_argument` takes.
    """
    names = list(inspect.signature(function).parameters)
    params = docstring_parser.parse(function.__doc__ or "").params
    texts = {param.arg_name: " ".join((param.description or "").split()) for param in params}
    for name in names:
        if spelled and name in spelled:
            own = dict(spelled[name])
            option = own.pop("option")
            if option.startswith("-"):
                own["dest"] = name
            parser.add_argument(option, help=texts[name], **own)
        else:
            others: set[str | int] = {other for other in names if other != name}
            parser.add_function_arguments(
                function, as_group=False, as_positional=name in positional, skip=others
            )


def add_config(parser: ArgumentParser, kind: type, out: str) -> None:
    """Add a config dataclass, `--config` and `--out`, a folder that is `out` by default.

    Each dataclass in it becomes a group of options, in its order; its other fields follow.
    """
    text = "A preset, by its name or a file's path; options after it change it."
    parser.add_argument("--config", action="config", help=text)
    _set_help(parser, "print_config", "Print the config that the other options make, and exit.")
    parser.add_argument("--out", default=out, help="Folder of the results.")
    hints = get_type_hints(kind)
    nested = [field.name for field in fields(kind) if is_dataclass(hints[field.name])]
    for name in nested:
        add_section(parser, hints[name], name)
    parser.add_class_arguments(kind, skip=set(nested))


def add_section(parser: ArgumentParser, kind: type, name: str) -> None:
    """Add a dataclass's fields as `--name.field`; `--name`, a file of them, works unlisted."""
    parser.add_class_arguments(kind, name)
    _set_help(parser, name, SUPPRESS)


def _set_help(parser: ArgumentParser, name: str, text: str) -> None:
    """Change the help of an option that jsonargparse adds by itself."""
    parser._option_string_actions[f"--{name}"].help = text


def set_defaults(parser: ArgumentParser, values: Mapping[str, Any]) -> None:
    """Take a preset's values as the defaults."""
    for name, value in values.items():
        section = isinstance(value, dict)
        parser.set_defaults(
            {f"{name}.{key}": v for key, v in value.items()} if section else {name: value}
        )


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The arguments, with config dataclasses made of them; InputError for the parser's errors."""
    try:
        return parser.instantiate(parser.parse_args(list(words)))
    except ArgumentError as error:
        raise InputError(_in_a_line(str(error))) from error
    except TypeError as error:  # jsonargparse has no message for this
        raise InputError("config: a value in the place of a section, expected fields") from error


def _in_a_line(message: str) -> str:
    """An error of jsonargparse, without its own terms."""
    message = re.sub(r'Parser key "([\w.]+)":', r"--\1:", " ".join(message.split()))
    message = re.sub(r"an? <class '(\w+)'>", r"\1", message)
    message = re.sub(r"an? typing\.Literal\[(.*?)\]", r"one of \1", message)
    if message.startswith('expected "subcommand"'):
        return "expected a command; `fgvce --help` lists them"
    required = "the following arguments are required: "
    if message.startswith(required):  # without the command's name before each
        return required + re.sub(r"\b\w+\.", "", message.removeprefix(required))
    return message
