"""The whole program for a classifier that a function of the user's own makes."""

import sys

import pytest
from ray_run import explain_digits, save_classifier_of_digits

from fgvce_jax.cli import main
from fgvce_jax.results import read_run

FACTORY = """
import fgvce_jax as fg

def make():
    clf = fg.load_classifier({folder!r})
    return fg.wrap(lambda images: {scale} * clf(images), 32)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factory")
    save_classifier_of_digits(folder / "digits")
    return folder


@pytest.fixture
def arguments(folder, monkeypatch):
    """`fgvce explain` with the factory, which `write` writes with another scale of the logits."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(scale=1.0):
        text = FACTORY.format(folder=str(folder / "digits"), scale=scale)
        (folder / "factory_of_digits.py").write_text(text)
        sys.modules.pop("factory_of_digits", None)
        words = explain_digits("")
        words[words.index("--model.checkpoint")] = "--model.factory"
        words[words.index("")] = "factory_of_digits:make"
        return [*words, "--limit", "60"]

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return write


def test_a_foreign_model_is_explained_like_ours(folder, arguments, capsys):
    ours = [*explain_digits(folder / "digits"), "--limit", "60"]
    assert main([*ours, "--out", "ours"]) == 0
    assert main([*arguments(), "--out", "theirs"]) == 0
    a, b = (read_run(folder / name) for name in ("ours", "theirs"))
    assert len(a.table) > 10
    for name in ("id", "predicted", "flipped", "num_edits"):
        assert a.table[name].equals(b.table[name])
    assert (folder / "theirs" / "report.html").exists()
    assert main(["report", "theirs"]) == 0

    # another model under the same name
    assert main([*arguments(scale=1.5), "--out", "theirs"]) == 2
    assert "another classifier of the same name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["explain", "--model.factory", "nowhere:make"], "nowhere:make: no module nowhere, from"),
        (
            ["demo", "--model.factory", "factory_of_digits:make"],
            "expected a factory or a classifier of ours, got both",
        ),
        (
            ["train", "--data.name", "digits", "--model.factory", "factory_of_digits:make"],
            "classifier: made of functions of the user's own, expected one of ours",
        ),
        (
            [
                *("explain", "--model.factory", "factory_of_digits:make"),
                *("--data.name", "digits", "--model.image_size", "64"),
            ],
            "image_size 64: expected that of the factory, 32",
        ),
        (
            [
                *("explain", "--model.factory", "factory_of_digits:make"),
                *("--data.name", "digits", "--dtype", "bfloat16"),
            ],
            "have no dtype to change",
        ),
    ],
)
def test_what_does_not_go_with_a_factory(folder, arguments, capsys, options, message):
    arguments()
    assert main([*options, "--out", "none"]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "none").exists()
