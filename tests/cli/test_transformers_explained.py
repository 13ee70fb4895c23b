"""`fgvce explain` on transformers, from a checkpoint and from weights of Hugging Face's names."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_transformers import balanced, network, tiny_transformers

from fgvce_jax.cli import main
from fgvce_jax.models import load_classifier, save_classifier
from fgvce_jax.results import read_run

NAMES = ("auk", "bee", "cat")


@pytest.fixture
def case(request, monkeypatch, tmp_path):
    """A checkpoint, and images in the folders of their predicted class, of three the next one."""
    tiny_transformers(monkeypatch)
    arch, size = request.param
    clf = network(arch, size, 3, class_names=NAMES)
    rng = np.random.default_rng(1)
    coarse = rng.uniform(size=(60, 3, 3, 3))
    images = np.stack([np.kron(c, np.ones((size // 2, size // 2, 1))) for c in coarse])
    images = (255 * images[:, :size, :size]).astype(np.uint8)
    clf = balanced(clf, np.float32(images) / 255)
    predicted = np.asarray(clf(np.float32(images) / 255).argmax(-1))
    assert len(set(predicted.tolist())) > 1
    classes = np.unique(predicted)
    for index, (image, label) in enumerate(zip(images, predicted, strict=True)):
        split = "test" if index >= 50 else "train"
        if index >= 57:
            label = next(c for c in classes if c != label)
        folder = tmp_path / "images" / split / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    save_classifier(clf, tmp_path / "c")
    return tmp_path


@pytest.mark.parametrize(
    ("case", "cut"),
    [
        (("vit_s_16", 32), None),
        (("vit_s_16", 32), "blocks.0"),
        (("dinov2_s_14_reg", 32), None),
        (("swin_t", 64), "features.5.0"),
    ],
    indirect=["case"],
)
def test_mistakes_are_explained(case, cut):
    command = ["explain", "--data.name", "folder", "--data.path", str(case / "images")]
    command += ["--model.checkpoint", str(case / "c"), "--out", str(case / "run"), "--quiet"]
    command += ["--bank.per_class", "4", "--bank.top_m", "3", "--batch_size", "4"]
    command += [] if cut is None else ["--model.cut", cut]
    assert main(command) == 0
    results = read_run(case / "run")
    rows = results.table.to_pylist()
    assert len(rows) == 3
    assert all(row["num_edits"] > 0 for row in rows)
    clf = load_classifier(case / "c", cut=cut)
    for row in rows:
        (path,) = case.glob(f"images/test/*/{Path(row['id']).name}")
        p = jax.nn.softmax(clf(np.asarray(Image.open(path))[None] / np.float32(255))[0])
        assert NAMES[row["target"]] == path.parent.name
        assert abs(row["p_target"][0] - p[row["target"]]) < 1e-5
    image = np.zeros((1, clf.image_size, clf.image_size, 3), np.float32)
    assert results.maps["dominant"].shape == (3, *clf.feature_map(image).cells.shape[1:3])


@pytest.mark.parametrize("case", [("vit_s_16", 32)], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.cut", "blocks.2"], "cut 'blocks.2': expected one of blocks.0, blocks.1"),
        (["--model.image_size", "36"], "image_size 36: expected a multiple of 8"),
        (["--methods", "gbp"], "gbp: needs a network of ReLUs, vit_s_16 has none"),
    ],
)
def test_what_a_transformer_cannot_do_is_one_line(case, capsys, options, message):
    command = ["explain", "--data.name", "folder", "--data.path", str(case / "images")]
    command += ["--model.checkpoint", str(case / "c"), "--out", str(case / "run"), *options]
    assert main([*command, "--bank.per_class", "4", "--batch_size", "4"]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
