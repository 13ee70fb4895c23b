"""What needs birds, for a classifier that a function of the user's own makes: measures, the key."""

import json
import sys

import pytest

from fgvce_jax.assets import find
from fgvce_jax.cli import main
from fgvce_jax.key import network

FACTORY = """
import fgvce_jax as fg

def make():
    clf = fg.load_classifier({folder!r})
    return fg.wrap(lambda images: {scale} * clf(images), 112, class_names=clf.class_names)
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Words that name it; `write` writes it with another scale of the logits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(scale=1.0):
        text = FACTORY.format(folder=str(find("checkpoints/birds")), scale=scale)
        (tmp_path / "factory_of_birds.py").write_text(text)
        sys.modules.pop("factory_of_birds", None)
        return ["--model.checkpoint", "null", "--model.factory", "factory_of_birds:make"]

    return write


def test_its_run_is_measured_like_ours(factory, tmp_path):
    few = ["--limit", "30", "--bank.per_class", "1", "--quiet"]
    assert main(["demo", *few, "--out", "ours"]) == 0
    assert main(["demo", *few, "--out", "theirs", *factory()]) == 0
    for run in ("ours", "theirs"):
        assert main(["evaluate", run]) == 0
    ours, theirs = (
        json.loads((tmp_path / run / "evaluation.json").read_text()) for run in ("ours", "theirs")
    )
    assert ours["explanations"] > 3
    assert theirs["keypoints"] == ours["keypoints"]
    assert theirs["invariant"] == pytest.approx(ours["invariant"], rel=1e-3)


def test_the_key_of_it(factory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(network, "PER_CLASS", 1)
    words = ["benchmark", "--images", "2", "--control_images", "1", "--batch_size", "4", "--quiet"]
    words += ["--methods", "fgvce,gradcam,gbp"]
    assert main([*words, "--out", "ours"]) == 0
    assert main([*words, "--out", "theirs", *factory()]) == 0
    found = [json.loads((tmp_path / run / "key.json").read_text()) for run in ("ours", "theirs")]
    ours, theirs = ({row["name"]: row for row in of["rows"]} for of in found)
    for name in ("oracle", "fgvce", "gradcam"):
        for setting, figures in ours[name]["figures"].items():
            for measure, figure in figures.items():
                mean = theirs[name]["figures"][setting][measure]["mean"]
                same = figure["mean"] is None or abs(figure["mean"] - mean) < 1e-3
                assert same, (name, setting, measure)
    assert "one of ours" in theirs["gbp"]["missing"]
    assert found[1]["randomised"] == []
    assert main([*words, "--out", "theirs", *factory(scale=1.5)]) == 2  # other weights
    assert "holds a benchmark with classifier" in capsys.readouterr().err
