"""`fgvce cuts`: every cut of a network on the same images, held to `explain` at that cut."""

import csv
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from networks import filled
from planted import NAMES, SIZE, Planted
from tiny_transformers import network, tiny_transformers

import fgvce_jax as fg
from fgvce_jax.cli import main
from fgvce_jax.config import BankConfig
from fgvce_jax.cuts import CutsConfig, compare_cuts, distinct_cuts
from fgvce_jax.cuts import run as cuts_run
from fgvce_jax.cuts.asked import Asked, ask, truth_of
from fgvce_jax.data.birds import DIFFERING, Birds
from fgvce_jax.metrics.localisation import dilated
from fgvce_jax.models import ModelSpec, load_classifier
from fgvce_jax.models.spec import template
from fgvce_jax.run_inputs import RunInputs

SPEC = ModelSpec(widths=(8, 8), blocks=(1, 1), stem_stride=2)
BANK = BankConfig(per_class=20, top_m=3)  # more than one class has
CONFIG = CutsConfig(bank=BANK, images=4, seconds=1000, batch_size=8)


@pytest.fixture(scope="module")
def inputs():
    """A network of random weights that is right about its references, and a split of mistakes."""
    clf = filled(template(SPEC, 3, SIZE), np.random.default_rng(3))
    references, images = Planted(60, 0), Planted(24, 1)

    def logits(dataset):
        return np.asarray(jax.jit(lambda clf, x: clf(x))(clf, dataset.pixels / np.float32(255)))

    bias = clf.head.bias - logits(references).mean(0)
    clf = replace(clf, head=replace(clf.head, bias=bias), class_names=NAMES)
    said, wrong = (logits(of).argmax(-1).astype(np.int32) for of in (references, images))
    assert 0 < np.bincount(said, minlength=3).min() < 20
    labels = (wrong + 1 + np.arange(24, dtype=np.int32) % 2) % 3
    labels[::3] = wrong[::3]
    return RunInputs(clf, images, labels, references, said)


def test_a_cut_has_one_name(monkeypatch):
    deeper = filled(template(replace(SPEC, blocks=(2, 1)), 3, SIZE), np.random.default_rng(0))
    cuts = distinct_cuts(deeper)
    assert list(cuts) == ["layer1.0", "layer1", "layer2"]
    assert [cut.spec.cut for cut in cuts.values()] == list(cuts)
    tiny_transformers(monkeypatch)
    assert list(distinct_cuts(network("vit_s_16"))) == ["blocks.0", "blocks.1"]
    assert list(distinct_cuts(network("dinov2_s_14")))[-2:] == ["blocks.2", "norm"]


@pytest.mark.parametrize(
    ("asked", "evidence"), [("mistakes", "predicted"), ("runner_up", "matched")]
)
def test_its_rows_are_explanations_at_each_cut(asked, evidence, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(cuts_run, "open_inputs", lambda config: inputs)
    config = replace(CONFIG, asked=asked)
    if evidence == "matched":
        config = replace(
            config, search=fg.SearchConfig(evidence="matched"), bank=replace(BANK, top_m=None)
        )
    compare_cuts(config, tmp_path)
    rows = json.loads((tmp_path / "cuts.json").read_text())["rows"]
    pixels = inputs.dataset.pixels / np.float32(255)
    logits = np.asarray(jax.jit(lambda clf, x: clf(x))(inputs.clf, pixels))
    said, second = np.argsort(-logits, axis=-1).T[:2]
    wrong = said != inputs.labels
    index = np.flatnonzero(wrong if asked == "mistakes" else ~wrong)[:4]
    target = inputs.labels[index] if asked == "mistakes" else second[index]
    for row, (name, clf) in zip(rows, distinct_cuts(inputs.clf).items(), strict=True):
        refs = inputs.references.pixels / np.float32(255)
        bank = fg.build_bank(clf, refs, inputs.reference_labels, config.bank)
        found = fg.explain(clf, bank, pixels[index], target, config.search)
        assert (row["cut"], row["default"], row["images"]) == (name, name == "layer2", 4)
        assert row["flipped"] == np.mean(found.flipped)
        assert row["edits"] == np.median(found.num_edits)
        assert row["passes"] > 0.5
    assert [row["cells"] for row in rows] == [[8, 8, 8], [4, 4, 8]]
    kept = list(csv.DictReader((tmp_path / "cuts.csv").open()))
    assert [float(line["edits"]) for line in kept] == [row["edits"] for row in rows]


def test_time_ends_a_cut_and_a_class_without_references_is_counted(inputs, tmp_path, monkeypatch):
    lacking = replace(
        inputs, reference_labels=np.where(inputs.reference_labels, 1, 1).astype(np.int32)
    )
    monkeypatch.setattr(cuts_run, "open_inputs", lambda config: lacking)
    table = compare_cuts(replace(CONFIG, cuts=("layer2",), images=20), tmp_path)
    (row,) = json.loads((tmp_path / "cuts.json").read_text())["rows"]
    asked = ask(replace(CONFIG, images=20), inputs)
    assert row["without_references"] == np.count_nonzero(asked.target != 1) > 0
    assert row["images"] + row["without_references"] == len(asked.index)
    assert "layer2 *" in table
    compare_cuts(replace(CONFIG, cuts=("layer2",), images=20, seconds=0), tmp_path)
    (row,) = json.loads((tmp_path / "cuts.json").read_text())["rows"]
    assert row["images"] + row["without_references"] == 1


def test_the_part_and_the_twin_of_birds():
    birds = Birds("test")
    clf = load_classifier("checkpoints/birds")
    predicted, target = np.int32([0, 1, 2]), np.int32([1, 0, 7])  # siblings; the last are not
    index = np.arange(3)
    asked = Asked(index, birds.images(index), predicted, target)
    twins, part = truth_of(clf, birds, asked)
    for i, (p, q) in enumerate([(0, 1), (1, 0)]):
        changed = (twins[i] != asked.images[i]).any(-1)
        assert changed.any()
        assert not (
            changed & ~np.asarray(dilated(jax.numpy.asarray(part[i]), 2))
        ).any()  # but for smooth edges
        assert part[i].mean() < 0.2
        assert DIFFERING[p, q].sum() == 1
    assert not part[2].any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cuts", "layer9"], "cuts 'layer9': expected some of layer1, layer2, layer3"),
        (["--images", "0"], "images: expected 1 or more, got 0"),
        (["--seconds", "-1"], "seconds: expected 0 or more, got -1.0"),
        (["--asked", "nothing"], "asked"),
        (["--model.cut", "layer2"], "model.cut: expected none, got layer2; `cuts` chooses"),
        (["--model.checkpoint", "nothing"], "nothing"),
        (
            ["--search.sigma", "1", "--bank.sigma", "2"],
            "bank.sigma: expected the search's, 1.0, got 2.0",
        ),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path, capsys):
    given = ["--model.checkpoint", "checkpoints/birds", *words]
    assert main(["cuts", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in error if line.startswith("fgvce: error: ")]) == 1
    assert message in error[-1]
    assert not (tmp_path / "out").exists()
