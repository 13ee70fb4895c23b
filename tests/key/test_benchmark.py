"""`fgvce benchmark` from nothing, continued, and refused."""

import json
import os

import pytest

from fgvce_jax import Classifier
from fgvce_jax.cli import main
from fgvce_jax.errors import InputError
from fgvce_jax.key import KeyConfig, benchmark, network

FEW = ["--images", "2", "--control_images", "1", "--batch_size", "4"]
OWN = """
import jax.numpy as jnp
def middle(clf, images, classes):
    return jnp.zeros((len(images), 7, 7)).at[:, 3, 3].set(1.0)
"""


def run(folder, *words):
    return main(["benchmark", *FEW, "--out", str(folder), "--methods", "fgvce,mine:middle", *words])


def test_a_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(network, "PER_CLASS", 1)  # a bank of few pictures is made faster
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "key"
    assert run(folder) == 0
    assert capsys.readouterr().out.strip() == str(folder / "key.md")
    found = json.loads((folder / "key.json").read_text())
    assert found["settings"]["key"] == "key-1"
    assert found["samples"] == {"mistakes": 2, "siblings": 2, "confident": 2}
    rows = {row["name"]: row["figures"] for row in found["rows"]}
    assert list(rows) == ["random_cells", "random_class", "oracle", "fgvce", "mine:middle"]
    for setting, figures in rows["oracle"].items():
        assert figures["precision"]["mean"] == figures["edit_precision"]["mean"] == 1
        assert figures["edit_changed"]["mean"] == figures["peak_changed"]["mean"] == 1
        distance = figures["distance"]["mean"]
        assert (distance is None) == (setting == "mistakes")
        assert setting == "mistakes" or distance < rows["random_cells"][setting]["distance"]["mean"]
    assert set(rows["mine:middle"]["mistakes"]) == {
        "peak_in_part", "energy", "peak_changed", "precision", "single_deletion"
    }  # fmt: skip
    stages = [row["name"] for row in found["randomised"] if row["name"].startswith("fgvce@")]
    assert stages == [f"fgvce@{s}" for s in ("head", "layer3", "layer2", "layer1", "all")]

    # Nothing is measured again but what is not there, or is another function now.
    times = {p.name: p.stat().st_mtime_ns for p in (folder / "rows").iterdir()}
    os.remove(folder / "rows" / "oracle.json")
    (tmp_path / "mine.py").write_text(OWN + "\n# another\n")
    assert run(folder, "--quiet") == 0
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "rows").iterdir()}
    again = {name for name in times if times[name] != after[name]}
    assert again == {"oracle.json", *(name for name in times if name.startswith("mine"))}

    assert run(folder, "--seed", "2") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("holds a benchmark with seed 1, expected 2; choose another folder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "0"], "seed: expected 1 or more, got 0"),
        (["--images", "0"], "images: expected 1 or more, got 0"),
        (["--methods", "gradcan"], "did you mean gradcam"),
        (["--methods", "nowhere:f"], "methods nowhere:f: expected package.module:function"),
        (["--model.checkpoint", "nothing"], "nothing"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, capsys, words, message):
    folder = tmp_path / "key"
    assert main(["benchmark", "--out", str(folder), *words]) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_another_classifier_is_refused(tmp_path, monkeypatch):
    other = Classifier(lambda x: x, lambda h: h.mean((-3, -2)), 3, 4)
    monkeypatch.setattr("fgvce_jax.key.run.open_classifier", lambda config: other)
    with pytest.raises(InputError, match="expected the 50 classes of the birds, got 3"):
        benchmark(KeyConfig(), tmp_path / "key")
    assert not (tmp_path / "key").exists()
