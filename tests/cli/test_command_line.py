"""Names, options, help and messages of the commands; tests/test_cli.py runs them."""

import os
import re
import subprocess
import sys
from argparse import SUPPRESS
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path

import jax
import numpy as np
import pytest
import synthetic_cub

from fgvce_jax import InputError, __version__
from fgvce_jax.cli import compilation, main
from fgvce_jax.cli.parser import add_function, new_parser, parse
from fgvce_jax.config import ExplainConfig
from fgvce_jax.data import open_dataset
from fgvce_jax.progress import notify, stage, verbosity
from fgvce_jax.train import TrainConfig

COMMANDS = ["demo", "explain", "why", "evaluate", "benchmark", "cuts", "report", "compare", "train"]
COMMANDS += ["port", "prepare", "presets", "completion"]


def help_of(*words, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*words, "--help"])
    assert exit.value.code == 0
    return capsys.readouterr().out


def error_of(*words, capsys):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("fgvce: error: ")
    return line.removeprefix("fgvce: error: ")


# --- version and help ---------------------------------------------------------------------------


def test_the_version_comes_without_the_imports_of_a_command():
    program = (
        "import sys\n"
        "from fgvce_jax.cli import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "finally:\n"
        "    heavy = {'orbax.checkpoint', 'tensorflow_datasets', 'grain', 'pyarrow'}\n"
        "    print(heavy & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == f"fgvce {__version__}\nset()\n"


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_help_fits_80_columns_and_holds_no_types(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = help_of(*words, capsys=capsys)
    assert page.startswith(" ".join(["usage: fgvce", *words]))
    assert max(map(len, page.splitlines())) <= 80
    assert not re.search(r"type:|null|Literal|class '|/configs/", page)


def test_every_command_is_listed_with_its_purpose(capsys):
    page = help_of(capsys=capsys)
    found = re.findall(r"^    (\w+)  +[A-Z]\w+", page, re.M)
    assert found == COMMANDS
    for flag in ("--version", "--quiet", "--verbose", "fgvce completion bash"):
        assert flag in page


@pytest.mark.parametrize("command", ["demo", "explain"])
def test_the_common_options_of_a_run_come_first(command, capsys):
    page = help_of(command, capsys=capsys)
    order = [
        "config",
        "out",
        "time_limit",
        "data.name",
        "model.checkpoint",
        "bank.per_class",
        "search.sigma",
    ]
    order += ["split", "ray.address", "quiet", "verbose"]
    places = [page.index(f"  --{name} ") for name in order]
    assert places == sorted(places)
    titles = ["Which images:", "Which classifier:", "The candidate cells that may", "A run:"]
    assert all(f"\n{title}" in page for title in titles)


def options(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, dict):
            yield from options(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize(("command", "kind"), [("explain", ExplainConfig), ("train", TrainConfig)])
def test_every_field_is_an_option_with_its_default(command, kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # one line for each
    lines = help_of(command, capsys=capsys).splitlines()
    for name, default in options(asdict(kind())):
        if name == "bank.sigma":  # the search's, of which the parser knows nothing
            default = None
        (at,) = (i for i, line in enumerate(lines) if line.startswith(f"  --{name} "))
        more = takewhile(lambda line: line.startswith("   "), lines[at + 1 :])
        text = " ".join([lines[at], *more])
        shown = re.search(r"\(default: (.*)\)", text)
        assert (shown and shown[1]) == (None if default in (None, ()) else str(default)), name


def test_a_function_makes_a_parser():
    def paint(picture: str, colour: str, size: int = 3, source: str | None = None):
        """Paint.

        Args:
            picture: A file.
            colour: Of the brush.
            size: In pixels,
                of the brush.
            source: Where from.
        """

    spelled = {"source": {"option": "--from", "type": str, "nargs": 2}}
    parser = new_parser("Paint.")
    add_function(parser, paint, positional=["picture"], spelled=spelled)
    got = parse(parser, ["--colour", "red", "a.png", "--from", "x", "y"])
    assert vars(got) == {"picture": "a.png", "colour": "red", "size": 3, "source": ["x", "y"]}
    page = parser.format_help()
    assert re.search(r"--size SIZE +In pixels, of the brush. \(default: 3\)", page)
    assert re.search(r"--colour COLOUR +Of the brush. \(required\)", page)
    assert re.search(r"--from SOURCE SOURCE\s+Where from.\n", page)
    with pytest.raises(InputError, match=r"^the following arguments are required: colour$"):
        parse(parser, ["a.png"])


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a command; `fgvce --help` lists them"),
        (["--quiet"], "expected a command; `fgvce --help` lists them"),
        (["explian"], f"command 'explian': expected one of {', '.join(COMMANDS)}"),
        (["explain", "--searc.sigma", "0"], "unrecognized arguments: --searc.sigma 0"),
        (["port", "x.pth"], "the following arguments are required: out"),
        (["port", "x", "--arch", "vgg16", "--out", "o", "--mean", "1", "2"], "expected 3 argument"),
        (["evaluate", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["prepare", "cats"], "cats: unknown dataset; expected one of cub, dogs"),
        (["prepare", "cub", "--from", "nowhere"], "nowhere: expected a folder or an archive"),
        (["completion", "fish"], "Expected one of 'bash', 'zsh'. Got value: fish"),
        (["report", "run", "--quiet", "--verbose"], "quiet, verbose: expected one of them"),
        (["data", "prepare", "cub", "--from", "a b"], "`fgvce prepare cub --from 'a b'` now"),
        (["data"], "the command is `fgvce prepare` now"),
    ],
)
def test_bad_words_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--verbose" in words:  # with the traceback above
        assert main(words) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    else:
        assert message in error_of(*words, capsys=capsys)
    assert not any(tmp_path.iterdir())


def test_an_unknown_method_is_named_before_anything_is_read(capsys, tmp_path):
    words = ["--model.checkpoint", "nowhere", "--methods", "scout,fgvce", "--out", f"{tmp_path}/o"]
    line = error_of("explain", *words, capsys=capsys)
    assert line.startswith("method 'fgvce': expected one of gbp, ig, ")
    assert "fgvce_invariant, fgvce_dominant" in line


# --- quiet and verbose --------------------------------------------------------------------------


def test_quiet_keeps_notes_and_bars_away_and_only_inside(capsys):
    with verbosity(quiet=True):
        notify("a note")
        with stage("A stage", 2) as advance:
            advance(2)
    assert capsys.readouterr().err == ""
    with verbosity(quiet=False):
        notify("a note")
        with stage("A stage", 2) as advance:
            advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a note"
    assert lines[1].startswith("A stage")
    with pytest.raises(KeyError), verbosity(quiet=True):
        raise KeyError
    notify("after it")
    assert capsys.readouterr().err == "after it\n"


@pytest.mark.parametrize("words", [["prepare", "--quiet", "cub"], ["--quiet", "prepare", "cub"]])
def test_a_quiet_command_prints_its_result_alone(words, capsys, tmp_path):
    source = synthetic_cub.make_cub(tmp_path / "source")
    command = [*words, "--from", str(source), "--to", str(tmp_path / "to")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert Path(out.strip()).is_dir()
    assert len(open_dataset("cub", "test", str(tmp_path / "to"))) > 0
    assert main([word for word in command if word != "--quiet"]) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert "prepared already" in err


def test_verbose_shows_where_an_error_comes_from(capsys, tmp_path):
    (tmp_path / "open.yaml").write_text("a: [")
    command = ["explain", "--config", str(tmp_path / "open.yaml")]
    assert main([*command, "--verbose"]) == 2
    *trace, line = capsys.readouterr().err.splitlines()
    assert line.startswith("fgvce: error: config")
    text = "\n".join(trace)
    assert text.index("yaml.parser.ParserError") < text.index("The above exception was the direct")
    assert error_of(*command, capsys=capsys) == line.removeprefix("fgvce: error: ")


def test_verbose_counts_the_programs_that_are_compiled(capsys, monkeypatch):
    monkeypatch.setattr(compilation, "_LONG_S", 0)

    def tripled(x):
        return x * 3

    with compilation.note_compilations():
        jax.jit(tripled)(np.float32(2)).block_until_ready()
    first, last = " ".join(capsys.readouterr().err.split()).split(" JAX ")
    assert re.fullmatch(r"jit\(tripled\): compiled in \d+\.\d s", first)
    assert re.match(r"\d+\.\d+\.\d+: 1 programs in \d+\.\d s, [01] of them from ", last)
    jax.jit(lambda x: x * 5)(np.float32(2)).block_until_ready()
    assert capsys.readouterr().err == ""  # and nothing after it


# --- completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fgvce pre", {"prepare", "presets"}),
        ("fgvce explain --search.s", {"--search.sigma", "--search.shortlist"}),
        ("fgvce explain --search.evidence ", {"predicted", "margin", "matched"}),
        ("fgvce train --hea", {"--head"}),
        ("fgvce prepare --f", {"--from"}),
        ("fgvce completion ", {"bash", "zsh"}),
    ],
)
def test_bash_completes_commands_options_and_values(words, expected, capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    *before, current = words.split(" ")
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        "function=$(complete -p fgvce | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        '"$function" fgvce "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "-c", program, "bash", str(script), *before, current]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert set(run.stdout.split()) == expected


def test_a_section_may_come_from_a_file_but_is_not_listed(capsys, tmp_path):
    (tmp_path / "bank.yaml").write_text("per_class: 0")
    line = error_of("explain", "--bank", str(tmp_path / "bank.yaml"), capsys=capsys)
    assert "per_class: expected 1 or more, got 0" in line
    page = help_of("explain", capsys=capsys)
    assert SUPPRESS not in page
    assert "--bank CONFIG" not in page


@pytest.mark.parametrize("asked", ["cuda", "no_such_chip"])
def test_a_device_that_is_not_there_is_one_line(tmp_path, asked):
    """Without the plugin of CUDA, or with a name that JAX does not know."""
    words = ["explain", "--config", "demo", "--out", str(tmp_path / "run"), "--quiet"]
    script = "import sys; from fgvce_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"JAX_PLATFORMS": asked, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.strip().splitlines() if "fgvce" in line]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"fgvce: error: JAX_PLATFORMS {asked}: expected such a device, found"
    )
    assert not (tmp_path / "run").exists()
