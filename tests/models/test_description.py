"""classifier.json holds what a classifier can be, or the checkpoint is refused in one line."""

import hashlib
import json
import math
import struct

import jax
import numpy as np
import pytest

from fgvce_jax.errors import InputError
from fgvce_jax.models import Classifier, ModelSpec, build, load_classifier, save_classifier
from fgvce_jax.models import checkpoint as checkpoint_module
from fgvce_jax.models.weights_file import read_weights

SPEC = ModelSpec(widths=(4, 6), blocks=(1, 1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    clf = build(SPEC, 3, 32, jax.random.key(0), class_names=("wren", "owl", "kite"))
    save_classifier(clf, folder)
    return folder


@pytest.fixture
def damage(saved):
    """Loads the checkpoint with some fields of its description changed; undone afterwards."""
    path = saved / "classifier.json"
    text = path.read_text()

    def change(**fields):
        described = json.loads(text) | fields
        path.write_text(json.dumps({k: v for k, v in described.items() if v is not ...}))
        with pytest.raises(InputError) as error:
            load_classifier(saved)
        message = str(error.value)
        assert message.startswith(f"checkpoint {saved}: ")
        assert "\n" not in message
        return message

    yield change
    path.write_text(text)


def model(**fields):
    return SPEC.to_dict() | fields


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("class_names", "abc", "class_names: expected a list of texts"),
        ("class_names", ["a", "b"], "class_names: expected 3 names, got 2"),
        ("class_names", ["a", "b", 3], "class_names: expected a list of texts"),
        ("class_names", ["a", "b", "a"], "class_names: expected each once, got 'a' 2 times"),
        ("class_names", ["a", "b", " "], "class_names: expected a list of texts"),
        ("class_names", None, "class_names: expected a list of texts"),
        (
            "num_classes",
            10**9,
            "num_classes: expected a whole number from 1 to 1000000, got 1000000000",
        ),
        ("num_classes", 0, "num_classes: expected a whole number"),
        ("num_classes", True, "num_classes: expected a whole number"),
        ("num_classes", 3.0, "num_classes: expected a whole number"),
        ("num_classes", "3", "num_classes: expected a whole number"),
        ("image_size", 10**9, "image_size: expected a whole number from 1 to 8192"),
        ("image_size", -5, "image_size: expected a whole number"),
        ("image_size", None, "image_size: expected a whole number"),
        ("resize_to", 10**9, "resize_to: expected a whole number from 32 to 8192"),
        ("resize_to", 31, "resize_to: expected a whole number from 32 to 8192"),
        ("mean", [math.nan, 0.5, 0.5], "expected three numbers"),
        ("mean", [0.5, 0.5], "expected three numbers"),
        ("mean", "abc", "expected three numbers"),
        ("mean", [0.1, 0.2, 0.3], "mean: expected that of the weights"),
        ("std", [0.2, 0, 0.2], "expected three numbers above 0"),
        ("std", [0.2, math.inf, 0.2], "expected three numbers above 0"),
        ("std", [0.5, 0.5, 0.5], "std: expected that of the weights"),
        ("model", None, "model: expected fields"),
        ("model", model(arch=["resnet50"]), "arch"),
        ("model", model(blocks=[3000, 1]), "200 blocks in all"),
        ("model", model(widths=[10**9, 6]), "65536 channels a stage"),
        ("model", model(widths="46"), "expected whole numbers"),
        ("model", model(cut=3), "cut 3"),
        ("model", model(depth=3), "unknown fields depth"),
        ("files", ..., "files: expected"),
        ("files", {}, "files: expected"),
        ("files", [], "files: expected"),
        ("files", None, "files: expected"),
        ("format", "2", "format 2, expected 2"),
        ("format", 1, "format 1, expected 2"),
        ("nature", 1, "nature: expected no such field"),
        ("std", ..., "expected three numbers above 0"),
        ("mean", {"0": 1, "1": 2, "2": 3}, "expected three numbers"),
    ],
)
def test_a_description_of_no_classifier(damage, field, value, message):
    if field == "format" and value == "2":
        message = "format '2', expected 2"
    assert message in damage(**{field: value})


def test_weights_are_checked_by_sha256(saved, damage):
    files = json.loads((saved / "classifier.json").read_text())["files"]
    for name, digest in files.items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == digest
    first = min(files)
    assert "files: expected the SHA-256" in damage(files=files | {first: 12345})
    assert "files: expected the SHA-256" in damage(files=files | {first: "abc"})
    wrong = files | {first: "0" * 64}
    assert f"missing or damaged files: {first}" in damage(files=wrong)
    assert "missing or damaged files: nowhere" in damage(files=files | {"nowhere": "0" * 64})


def test_no_file_of_the_weights_escapes_the_check(saved, damage):
    files = json.loads((saved / "classifier.json").read_text())["files"]
    for name in files:
        rest = {other: digest for other, digest in files.items() if other != name}
        assert f"files: expected all of the weights, {name} is not among them" in damage(files=rest)


def test_notes_beside_the_weights_are_nobodys_concern(saved):
    (saved / "notes.txt").write_text("trained on a Tuesday")
    assert load_classifier(saved).class_names == ("wren", "owl", "kite")
    (saved / "notes.txt").unlink()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"text"', "{}", "[" * 100_000])
def test_a_description_that_is_no_json_object(saved, damage, text):
    kept = (saved / "classifier.json").read_text()
    (saved / "classifier.json").write_text(text)
    with pytest.raises(InputError, match=r"^checkpoint .*classifier.json.*") as error:
        load_classifier(saved)
    assert "\n" not in str(error.value)
    (saved / "classifier.json").write_text(kept)


def test_a_classifier_that_could_not_be_read_again_is_not_saved(tmp_path):
    clf = build(SPEC, 3, 32, jax.random.key(0), class_names=("crane", "owl", "crane"))
    with pytest.raises(InputError, match="class_names: expected each once, got 'crane' 2 times"):
        save_classifier(clf, tmp_path / "c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_normalisation_that_is_no_number_is_refused(saved, name, bad):
    with pytest.raises(InputError, match=f"{name} .*: expected three numbers"):
        load_classifier(saved, **{name: [0.5, bad, 0.5]})


def test_too_many_classes_are_refused_before_they_are_named():
    with pytest.raises(InputError, match="num_classes 1000000000: expected 1 to 1000000"):
        Classifier(lambda x: x, lambda x: x, 10**9, 4)
    with pytest.raises(
        InputError, match="image_size 1000000000: expected at least 1 pixel, at most 8192"
    ):
        build(SPEC, 3, 10**9, jax.random.key(0))


def test_the_birds_are_checked_by_sha256():
    described = json.loads(
        (checkpoint_module.assets.find("checkpoints/birds") / "classifier.json").read_text()
    )
    assert described["format"] == 2
    assert {len(digest) for digest in described["files"].values()} == {64}
    assert np.isfinite(load_classifier("checkpoints/birds").features.mean).all()


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "C64", "F4"])
def test_safetensors_of_another_number_format(tmp_path, kind):
    size = {"C64": 8, "F4": 0.5}.get(kind, 1)
    header = {"fc.weight": {"dtype": kind, "shape": [4], "data_offsets": [0, int(4 * size)]}}
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(int(4 * size)))
    with pytest.raises(InputError, match=r"w\.safetensors: ") as error:
        read_weights(path)
    assert f"fc.weight is {kind}, expected F64, F32, F16, BF16 or whole numbers" in str(error.value)


def test_safetensors_whose_header_declares_too_much(tmp_path):
    header = {"fc.weight": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(InputError, match=r"not a readable \.safetensors file"):
        read_weights(path)
