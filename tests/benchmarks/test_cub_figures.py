"""`benchmarks/paper/cub.py` on a small CUB whose classes are colours."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import synthetic_cub
from jax.tree_util import Partial

import fgvce_jax as fg
from fgvce_jax.data.pipeline import preprocess
from fgvce_jax.data.prepare import prepare

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "paper"))

import cub

CLASSES, SIDE, N = 4, 32, 4


def mean_colours(images):
    return images.reshape(-1, N, SIDE // N, N, SIDE // N, 3).mean((2, 4))


def classifier():
    """The nearest of the classes' colours, by the mean of the cells."""
    colours = np.random.default_rng(1).uniform(40, 215, (1 + CLASSES, 3))[1:] / 255
    head = fg.PooledLinear(
        jnp.float32(100 * 2 * colours.T), jnp.float32(-100 * (colours**2).sum(1))
    )
    return fg.Classifier(Partial(mean_colours), head, CLASSES, SIDE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cub")
    root = synthetic_cub.make_cub(folder, classes=CLASSES, per_class=24)
    synthetic_cub.draw_species(root, 160, weather=45.0)
    prepare("cub", root, folder / "data")
    preset = folder / "tiny.yaml"
    preset.write_text(
        "data:\n  name: cub\nmodel:\n  factory: test_cub_figures:classifier\n"
        "search:\n  sigma: 0.8\n"
    )
    return preset, folder / "data"


def options(prepared, out, *more):
    parser = cub.parser("")
    words = ["--preset", str(prepared[0]), "--data", str(prepared[1]), "--out", str(out)]
    return parser.parse_args([*words, "--images", "9", *more])


def test_the_pairs_are_those_that_are_confused_most():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 1, 2, 2, 1, 1, 0, 1])
    assert cub.confused_with(predicted, labels, 4).tolist() == [2, -1, 0, -1]


def test_correct_images_are_asked_about_the_class_that_theirs_is_taken_for(prepared, tmp_path):
    study, accuracy = cub.open_study(options(prepared, tmp_path))
    clf, data = classifier(), study.inputs.dataset
    images = np.stack([preprocess(data[i].image, SIDE) for i in range(len(data))]) / np.float32(255)
    predicted = np.asarray(clf(images).argmax(-1))
    assert accuracy == pytest.approx((predicted == data.labels).mean())
    assert 0.5 < accuracy < 1  # some mistakes, and some right images
    wanted = cub.confused_with(predicted, data.labels, CLASSES)
    assert len(study) == 9
    for i, target in zip(study.index, study.target, strict=True):
        assert predicted[i] == data.labels[i]
        assert target == wanted[data.labels[i]] != data.labels[i]


def test_the_table_has_ours_and_an_accuracy(prepared, tmp_path, capsys, monkeypatch):
    stamp = {"checkpoint": "abc", "code": "c0de"}  # a foreign classifier has no weights by name
    monkeypatch.setattr(cub.Study, "provenance", stamp)
    chosen = ["cve", "fgvce"]
    cub.measure(options(prepared, tmp_path, "--methods", ",".join(chosen)))
    found = json.loads((tmp_path / "cub_edits.json").read_text())
    assert list(found["rows"]) == chosen
    for row in found["rows"].values():
        assert len(row["edits"]) == 9
        assert 0 <= row["same_kp_all"] <= row["near_kp_all"] <= 100
    assert np.mean(found["rows"]["fgvce"]["flipped"]) > 0.9
    printed = capsys.readouterr().out
    assert all(cub.LABELS[name] in printed for name in chosen)
    assert "9 images; accuracy on the split" in printed


def test_the_published_figures_stand_beside_ours_by_network():
    for arch, near in (("vgg16", [57.6, 72.0]), ("resnet50", [54.0, 64.6])):
        assert [row["values"][0] for row in cub.PUBLISHED[arch]] == near
