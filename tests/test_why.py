"""`why` and `fgvce why`: one photograph, a folder of references, an answer."""

import io
import os
from dataclasses import replace

import networks
import numpy as np
import pytest
from PIL import Image

import fgvce_jax as fg
from fgvce_jax.cli import main
from fgvce_jax.data.pipeline import preprocess
from fgvce_jax.models import save_classifier

NAMES = ("tench", "English springer", "church", "golf ball")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a checkpoint, references (none of the last class), and two photographs."""
    root = tmp_path_factory.mktemp("why")
    rng = np.random.default_rng(5)
    clf = networks.resnet(classes=4)
    pixels = [rng.integers(0, 256, (3, 3, 3), np.uint8) for _ in range(60)]
    large = [np.asarray(Image.fromarray(image).resize((48, 40))) for image in pixels]
    seen = np.stack([preprocess(image, clf.image_size) for image in large]) / np.float32(255)
    logits = np.asarray(clf(seen))
    clf = replace(clf, head=replace(clf.head, bias=clf.head.bias - logits.mean(0)))
    clf = replace(clf, class_names=NAMES)
    predicted = (logits - logits.mean(0)).argmax(-1)
    assert set(predicted.tolist()) == {0, 1, 2, 3}
    save_classifier(clf, root / "model")
    for i, k in enumerate(predicted[2:], 2):
        if k != 3:
            folder = root / "references" / ("n01440764", "English springer", "2")[k]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(large[i]).save(folder / f"{i}.png")
    photos = root / "photos"
    photos.mkdir()
    first = int(np.flatnonzero(predicted == 0)[0])
    second = int(np.flatnonzero(predicted == 1)[0])
    Image.fromarray(large[first]).save(photos / "a.png")
    Image.fromarray(large[second]).save(photos / "b.bmp")
    return root, clf, {"a.png": large[first], "b.bmp": large[second]}


@pytest.fixture(autouse=True)
def own_cache(given, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(given[0] / "cache"))


def command(root, *words, model="model", references="references"):
    options = ["--references", str(root / references), "--model", str(root / model)]
    return main(["why", *map(str, words), *options, "--per_class", "3"])


@pytest.fixture(scope="module")
def bank(given):
    """Of three classes, from references that are not in the folder."""
    rng = np.random.default_rng(9)
    clf = given[1]
    images = np.stack(
        [
            preprocess(np.asarray(Image.fromarray(small).resize((48, 40))), clf.image_size)
            for small in rng.integers(0, 256, (60, 3, 3, 3), np.uint8)
        ]
    ) / np.float32(255)
    labels = np.asarray(clf(images).argmax(-1))
    return fg.build_bank(clf, images, labels, fg.BankConfig(per_class=3), classes=[0, 1, 2])


def test_a_label_is_explained_as_explain_does(given, bank):
    root, clf, photos = given
    pixels = preprocess(photos["a.png"], clf.image_size) / np.float32(255)
    expected = fg.explain(clf, bank, pixels[None], np.array([2]))[0]
    forms = (root / "photos" / "a.png", str(root / "photos" / "a.png"), photos["a.png"], pixels)
    for image, label in zip(forms, ("church", 2, "2", "n03028079"), strict=True):
        out = fg.why(clf, image, bank, label)
        assert out.edit_cell.tolist() == expected.edit_cell.tolist()
        np.testing.assert_array_equal(out.p_target, expected.p_target)
        assert repr(out) == repr(expected)
    assert out.card().edits[0].reference.shape == pixels.shape


def test_without_a_label_it_is_the_runner_up_of_those_with_references(given, bank):
    _, clf, photos = given
    for pixels in photos.values():
        seen = preprocess(pixels, clf.image_size) / np.float32(255)
        order = [k for k in np.argsort(-np.asarray(clf(seen[None]))[0]) if k != 3]
        out = fg.why(clf, pixels, bank)
        assert (int(out.predicted), int(out.target)) == (order[0], order[1])


def test_a_runner_up_without_references_is_told(given, bank, capsys):
    _, clf, photos = given
    seen = preprocess(photos["a.png"], clf.image_size) / np.float32(255)
    logits = np.asarray(clf(seen[None]))[0]
    first, second, third = np.argsort(-np.where(np.arange(4) == 3, -np.inf, logits))[:3]
    for between, told in (((first, second), True), ((second, third), False)):
        bias = np.array(clf.head.bias)
        bias[3] += logits[list(between)].mean() - logits[3]  # golf ball, without references
        asked = replace(clf, head=replace(clf.head, bias=bias))
        assert fg.why(asked, seen, bank).target == second
        note = capsys.readouterr().err
        assert ("the runner-up golf ball (0." in note) == told
        assert (f"that has is {NAMES[second]} (0." in note) == told


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (np.zeros((4, 4), np.uint8), None, "image: expected a file, uint8"),
        (np.zeros((4, 4, 3), np.int32), None, "image: expected a file, uint8"),
        ("nowhere.jpg", None, "nowhere.jpg: cannot be read"),
        (np.zeros((9, 9, 3), np.uint8), "goldfish", "label 'goldfish': expected one of the class"),
        (np.zeros((9, 9, 3), np.uint8), 4, "label 4: expected one of the classifier's 4 classes"),
        (
            np.zeros((9, 9, 3), np.uint8),
            "golf ball",
            "of tench, English springer, church",
        ),
    ],
)
def test_what_cannot_be_asked(given, bank, image, label, message):
    with pytest.raises(fg.InputError) as error:
        fg.why(given[1], image, bank, label)
    assert message in str(error.value)


def test_the_only_class_with_references_is_the_predicted_one(given, bank):
    _, clf, photos = given
    seen = preprocess(photos["a.png"], clf.image_size)[None] / np.float32(255)
    own = fg.build_bank(clf, seen, np.array([0]))
    with pytest.raises(fg.InputError, match="tench, which is predicted, is the only class with"):
        fg.why(clf, photos["a.png"], own)


def test_the_answer_and_its_card(given, tmp_path, capsys):
    root = given[0]
    out = tmp_path / "cards"
    words = [root / "photos" / "*.*", "--label", "church", "--out", out]
    assert command(root, *words) == 0
    said = capsys.readouterr()
    assert "Collecting references" in said.err
    assert "3 of the classifier's 4 classes: 2 = church, English springer, n01440764 = tench" in (
        said.err
    )
    blocks = said.out.strip().split("\n\n")
    assert [block.splitlines()[0].split("/")[-1] for block in blocks] == ["a.png", "b.bmp"]
    assert blocks[0].splitlines()[1].startswith("  predicted tench (0.")
    assert "), not church (0." in blocks[0]
    assert sorted(os.listdir(out)) == ["a.html", "a.png", "b.html", "b.png"]
    assert Image.open(out / "a.png").size > (800, 300)
    page = (out / "a.html").read_text()
    assert "not <span" in page
    assert page.count("<img") >= 5 + 2

    assert command(root, *words) == 0  # from the bank file
    again = capsys.readouterr()
    assert again.out == said.out
    assert "Collecting references" not in again.err
    (kept,) = (root / "cache" / "fgvce_jax" / "banks").iterdir()
    first = next((root / "references" / "2").iterdir())
    os.utime(first, (1, 1))  # it may hold another picture now
    assert command(root, *words, "--bank_file", kept) == 0
    assert "building it again" in capsys.readouterr().err


@pytest.mark.parametrize("listed", [True, False])
def test_standard_input(given, tmp_path, capsys, monkeypatch, listed):
    root = given[0]
    content = (root / "photos" / "a.png").read_bytes()
    if listed:
        content = f"{root / 'photos' / 'a.png'}\n\n{root / 'photos' / 'b*'}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert command(root, "-", "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert out.count("predicted") == 1 + listed
    assert out.startswith(str(root / "photos") if listed else "stdin\n")


def test_photographs_of_the_same_name_keep_their_cards(given, tmp_path):
    root = given[0]
    other = tmp_path / "a.png"
    other.write_bytes((root / "photos" / "b.bmp").read_bytes())
    assert command(root, root / "photos" / "a.png", other, "--out", tmp_path / "out") == 0
    names = sorted(os.listdir(tmp_path / "out"))
    assert names == ["a-2.html", "a-2.png", "a.html", "a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{photos}/a.png", "--label", "goldfish"], "label 'goldfish': expected one of the clas"),
        (["{photos}/a.png", "--label", "golf ball"], "label 'golf ball': expected a class with"),
        (["{photos}/../model/classifier.json"], "cannot be decoded (not an image file)"),
        (["{photos}/a.png", "{photos}/none.jpg"], "none.jpg: cannot be read (No such file"),
        (["{photos}/*.gif"], "expected a file, found none of such a name"),
        (["{photos}"], "expected a file or a pattern such as"),
        (["https://example.org/a.png"], "expected a file, got an address"),
        (["{photos}/a.png", "--per_class", "0"], "per_class: expected 1 or more"),
        (
            ["{photos}/a.png", "--evidence", "luck"],
            "evidence: expected predicted, margin",
        ),
        (["{photos}/a.png", "--references", "{photos}"], "no images"),
    ],
)
def test_bad_input_is_one_line(given, tmp_path, capsys, words, message):
    root = given[0]
    words = [word.format(photos=root / "photos") for word in words]
    options = ["--model", str(root / "model"), "--out", str(tmp_path / "out"), "--quiet"]
    if "--references" not in words:
        options += ["--references", str(root / "references")]
    assert main(["why", *words, *options]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_one_reference(given, tmp_path, capsys):
    """One that is classified correctly is enough, and said; one that is not is an error."""
    root = given[0]
    source = sorted((root / "references" / "2").iterdir())[0]
    for name, code, message in (
        ("church", 0, "class church: one of 1 reference images is classified correctly"),
        ("tench", 2, "reference images: none is classified correctly"),
    ):
        folder = tmp_path / name / name
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(source.read_bytes())
        words = [root / "photos" / "a.png", "--out", tmp_path / "out"]
        assert command(root, *words, references=tmp_path / name) == code
        assert message in capsys.readouterr().err
