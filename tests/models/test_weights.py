"""Weights files under every naming, and checkpoints."""

import json

import jax
import numpy as np
import numpy_resnet as reference
import pytest
from safetensors.numpy import save_file

from fgvce_jax import assets
from fgvce_jax.cli import main
from fgvce_jax.errors import InputError
from fgvce_jax.heads import PooledLinear
from fgvce_jax.models import (
    Classifier,
    ModelSpec,
    build,
    load_classifier,
    named,
    port,
    recut,
    save_classifier,
)
from fgvce_jax.models.convert import classifier_from_weights, fold_adaptive_pool
from fgvce_jax.models.resnet import HUGGING_FACE
from fgvce_jax.models.spec import template
from fgvce_jax.models.tensor_names import expected_shapes, published_names

SPEC = ModelSpec(widths=reference.WIDTHS, blocks=reference.BLOCKS)


def load(path, **options):
    return classifier_from_weights(path, SPEC, reference.SIZE, **options)


@pytest.fixture(scope="module")
def weights():
    return reference.state_dict()


@pytest.fixture(scope="module")
def clf(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(weights, path)
    return load(path, class_names=list("abcde"), resize_to=80)


@pytest.fixture(scope="module")
def checkpoint(clf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    save_classifier(clf, folder)
    return folder


def test_logits_are_those_of_the_file(clf, weights):
    image = np.random.default_rng(2).uniform(size=(32, 32, 3)).astype(np.float32)
    assert (clf.num_classes, clf.class_names, clf.image_size) == (5, tuple("abcde"), 32)
    np.testing.assert_allclose(
        clf(image[None])[0], reference.small_resnet(weights, image)[1], atol=2e-5
    )


def prefixed(prefix):
    return lambda weights: {f"{prefix}{name}": array for name, array in weights.items()}


@pytest.mark.parametrize(
    "rename",
    [
        prefixed("model."),
        prefixed("module."),
        prefixed("model.resnet."),
        prefixed("module.model.backbone."),
        reference.hugging_face_names,
        lambda weights: prefixed("model.")(reference.hugging_face_names(weights)),
        lambda weights: {k: v for k, v in weights.items() if "num_batches" not in k},
        lambda weights: {k: v.astype(np.float64) for k, v in weights.items()},
    ],
    ids=[
        "lightning",
        "data-parallel",
        "lightning-resnet",
        "nested",
        "hugging-face",
        "hugging-face-lightning",
        "no-counters",
        "float64",
    ],
)
def test_names_and_types_are_understood(tmp_path, clf, weights, rename):
    save_file(rename(weights), tmp_path / "w.safetensors")
    ported = load(tmp_path / "w.safetensors")
    for ours, expected in zip(jax.tree.leaves(ported), jax.tree.leaves(clf), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_everything_wrong_with_the_tensors_is_in_one_line(tmp_path, weights):
    broken = dict(weights)
    del broken["layer1.1.conv2.weight"], broken["fc.bias"]
    broken["aux.weight"] = np.zeros(3, np.float32)
    broken["bn1.bias"] = np.zeros(9, np.float32)
    broken["layer2.0.conv1.weight"] = np.zeros((6, 4, 1, 1), np.float32)
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "\n" not in message
    assert "missing: layer1.1.conv2.weight, fc.bias" in message
    assert "unexpected: aux.weight" in message
    assert "bn1.bias (9,), expected (4,)" in message
    assert "layer2.0.conv1.weight (6, 4, 1, 1), expected (6, 4, 3, 3)" in message


def test_not_finite_weights_are_named(tmp_path, weights):
    broken = {**weights, "bn1.bias": np.full(4, np.nan, np.float32)}
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"not finite: bn1\.bias"):
        load(tmp_path / "w.safetensors")


def test_two_tensors_of_one_name_are_refused(tmp_path, weights):
    save_file({**weights, "model.fc.bias": weights["fc.bias"]}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"model\.fc\.bias"):
        load(tmp_path / "w.safetensors")


def torch_state(arch):
    """A state dict of zeros."""
    return {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(arch, 3).items()}


def test_another_architecture_is_recognised(tmp_path):
    save_file(torch_state("resnet18"), tmp_path / "r.safetensors")
    for arch, name in (("resnet50", "ResNet-50"), ("vgg16", "VGG-16"), ("vit_s_16", "ViT-S/16")):
        message = rf"look like a ResNet-18's \(--arch resnet18\); expected a {name}'s$"
        with pytest.raises(InputError, match=message):
            load_classifier(arch, tmp_path / "r.safetensors")
    save_file({"encoder.0.weight": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"encoder\.0\.weight, ... are another network's;"):
        load_classifier("resnet50", tmp_path / "other.safetensors")


def test_hugging_face_names_of_a_bottleneck():
    names = [
        "resnet.encoder.stages.3.layers.0.layer.2.normalization.running_var",
        "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight",
        "resnet.embedder.embedder.normalization.num_batches_tracked",
        "classifier.1.bias",
    ]
    assert published_names(names, HUGGING_FACE) == {
        "layer4.0.bn3.running_var": (names[0],),
        "layer1.0.downsample.0.weight": (names[1],),
        "fc.bias": (names[3],),
    }
    assert published_names(["vgg.classifier.1.bias"]) == {
        "classifier.1.bias": ("vgg.classifier.1.bias",)
    }


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_pooling_folds_into_the_dense_kernel(n):
    rng = np.random.default_rng(n)
    cells, kernel = rng.normal(size=(n, n, 3)), rng.normal(size=(7, 7, 3, 4))
    pooled = np.empty((7, 7, 3))
    for i in range(7):
        for j in range(7):
            rows = slice(int(np.floor(i * n / 7)), int(np.ceil((i + 1) * n / 7)))
            columns = slice(int(np.floor(j * n / 7)), int(np.ceil((j + 1) * n / 7)))
            pooled[i, j] = cells[rows, columns].mean((0, 1))
    np.testing.assert_allclose(
        np.einsum("ijc,ijcd->d", cells, fold_adaptive_pool(kernel, n)),
        np.einsum("ijc,ijcd->d", pooled, kernel),
        atol=1e-10,
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.safetensors", None, "no such file"),
        ("w.safetensors", b"", "not a readable"),
        ("w.safetensors", b"\x80" * 100, "not a readable"),
        ("w.txt", b"hello", "ending in one of .safetensors"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / name)
    assert name in str(caught.value)


def test_a_truncated_file_and_one_without_tensors(tmp_path, weights):
    save_file(weights, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a readable"):
        load(tmp_path / "w.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(InputError, match="no tensors"):
        load(tmp_path / "empty.safetensors")


def test_a_checkpoint_comes_back_exactly(clf, checkpoint):
    again = load_classifier(checkpoint)
    assert jax.tree.structure(again) == jax.tree.structure(clf)
    assert (again.spec, again.class_names, again.resize_to) == (SPEC, tuple("abcde"), 80)
    for ours, expected in zip(jax.tree.leaves(again), jax.tree.leaves(clf), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


def test_a_checkpoint_is_compact_and_says_nothing_of_where_it_was_made(checkpoint):
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40_000
    for path in files:
        assert str(checkpoint.parent).encode() not in path.read_bytes()
    assert [path.name for path in checkpoint.parent.iterdir()] == ["small"]


def test_a_checkpoint_is_loaded_with_another_cut_names_and_normalisation(clf, checkpoint):
    images = np.random.default_rng(3).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    other = load_classifier(checkpoint, cut="layer1", class_names=list("vwxyz"), resize_to=72)
    assert other.features(images).shape == (2, 8, 8, 4)
    assert (other.class_names, other.resize_to) == (tuple("vwxyz"), 72)
    np.testing.assert_allclose(other(images), clf(images), atol=1e-5)
    shifted = load_classifier(checkpoint, mean=reference.MEAN + 0.1, std=reference.STD)
    np.testing.assert_allclose(shifted(images + 0.1), clf(images), atol=1e-4)
    assert load_classifier(checkpoint, image_size=64).image_size == 64


def test_a_cut_classifier_is_saved_cut(clf, tmp_path):
    save_classifier(recut(clf, "layer1.0"), tmp_path / "cut")
    again = load_classifier(tmp_path / "cut")
    assert again.spec.cut == "layer1.0"
    images = np.random.default_rng(4).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(again(images), clf(images), atol=1e-5)


def test_saving_replaces_a_checkpoint_and_nothing_else(clf, tmp_path):
    save_classifier(clf, tmp_path / "c")
    fresh = build(SPEC, 5, 32, jax.random.key(0))
    save_classifier(fresh, tmp_path / "c")
    assert load_classifier(tmp_path / "c").class_names == ("0", "1", "2", "3", "4")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match="photos"):
        save_classifier(clf, tmp_path / "photos")
    own = Classifier(lambda x: x, PooledLinear(np.eye(3), np.zeros(3)), 3, 4)
    with pytest.raises(InputError, match="own"):
        save_classifier(own, tmp_path / "own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "photos"]


def test_a_failed_save_leaves_the_earlier_checkpoint(clf, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    save_classifier(clf, tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save_classifier(build(SPEC, 5, 32, jax.random.key(0)), tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert load_classifier(tmp_path / "c").class_names == tuple("abcde")


def test_a_damaged_checkpoint(clf, tmp_path, capfd):
    save_classifier(clf, tmp_path / "c")
    description = tmp_path / "c" / "classifier.json"
    described = json.loads(description.read_text())
    for damage, message in (
        (json.dumps({**described, "num_classes": 6}), r"fc\.kernel \(6, 5\), expected \(6, 6\)"),
        (json.dumps({**described, "format": 99}), "format 99, expected 2"),
        (json.dumps({**described, "model": {"arch": "vit"}}), "arch 'vit'"),
        (json.dumps({**described, "model": None}), "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
    ):
        description.write_text(damage)
        with pytest.raises(InputError, match=message) as caught:
            load_classifier(tmp_path / "c")
        assert str(tmp_path / "c") in str(caught.value)
    description.write_text(json.dumps(described))
    largest = max((tmp_path / "c").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    for damage in (content[:100], content[:-9] + bytes(9)):
        largest.write_bytes(damage)
        with pytest.raises(InputError, match=largest.name):
            load_classifier(tmp_path / "c")
    largest.unlink()
    with pytest.raises(InputError, match=largest.name):
        load_classifier(tmp_path / "c")
    assert capfd.readouterr().err == ""


def test_a_checkpoint_is_one_of_orbax(clf, checkpoint):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        weights = checkpointer.restore(checkpoint)
    for name, array in named(clf).items():
        np.testing.assert_array_equal(weights[name], array)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such checkpoint.*resnet50"),
        ("resnet50", "file of weights"),
        (".", "classifier.json"),
    ],
)
def test_what_is_no_classifier(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_classifier(name)
    with pytest.raises(InputError, match="expected one of small_resnet, small_vit, resnet18"):
        load_classifier("resnet51", weights="w.safetensors")


def test_shipped_checkpoints_are_found_from_anywhere(clf, tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "fgvce_jax"
    monkeypatch.setattr(assets, "PACKAGE", package)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert assets.shipped("checkpoints/tiny") is None
    save_classifier(clf, package.parent / "checkpoints" / "tiny")  # as in a checkout
    assert load_classifier("checkpoints/tiny").class_names == tuple("abcde")
    save_classifier(build(SPEC, 5, 32, jax.random.key(0)), package / "checkpoints" / "tiny")
    assert load_classifier("checkpoints/tiny").class_names == ("0", "1", "2", "3", "4")
    save_classifier(recut(clf, "layer1"), "checkpoints/tiny")  # the working directory comes first
    assert load_classifier("checkpoints/tiny").spec.cut == "layer1"
    assert assets.shipped("../fgvce_jax") is None
    assert assets.shipped("/etc") is None


def test_port(tmp_path):
    """Kernels are 0 and biases 1, so the cells are known: a block adds 1 to its shortcut's 1."""
    arrays = {}
    for name, leaf in named(template(ModelSpec(), 3, 32)).items():
        layer, _, kind = name.rpartition(".")
        if len(leaf.shape) == 4:
            arrays[f"{layer}.weight"] = np.zeros(np.array(leaf.shape)[[3, 2, 0, 1]], np.float32)
        elif layer and kind in ("bias", "scale", "mean", "var"):
            torch_kind = {"scale": "weight", "bias": "bias"}.get(kind, f"running_{kind}")
            arrays[f"{layer}.{torch_kind}"] = np.full(leaf.shape, kind in ("bias", "var"), "f")
    arrays["fc.weight"] = np.float32([[1], [2], [3]]) * np.ones((3, 192), np.float32)
    save_file(arrays, tmp_path / "w.safetensors")
    (tmp_path / "names.txt").write_text("1 001.Albatross\n2 002.Auk\n3 003.Bunting\n")
    options = {"cut": "layer2", "image_size": 32, "class_names": tmp_path / "names.txt"}
    options |= {"resize_to": 40, "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
    port(tmp_path / "w.safetensors", tmp_path / "out" / "small", "small_resnet", **options)
    again = load_classifier(tmp_path / "out" / "small")
    assert again.class_names == ("001.Albatross", "002.Auk", "003.Bunting")
    assert again.resize_to == 40
    np.testing.assert_allclose(again.features.mean, [0.4, 0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(again.features.std, [0.1, 0.2, 0.3], rtol=1e-6)
    cells = again.features(np.zeros((1, 32, 32, 3), np.float32))
    np.testing.assert_array_equal(cells, np.full((1, 4, 4, 96), 2))
    np.testing.assert_allclose(again.head(cells)[0], 2 * 192 * np.array([1, 2, 3]) + 1, rtol=1e-6)

    port(tmp_path / "w.safetensors", tmp_path / "out" / "small", "small_resnet", **options)
    with pytest.raises(InputError, match="out/small"):
        port(tmp_path / "w.safetensors", tmp_path / "out" / "small", "small_resnet", image_size=32)
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="expected 3 names, got 2"):
        port(tmp_path / "w.safetensors", tmp_path / "out" / "other", "small_resnet", **options)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": -4}, "image_size -4: expected at least 1 pixel"),
        ({"image_size": 0}, "image_size 0"),
        ({"resize_to": 4}, "resize_to 4: expected at least the image size"),
        ({"mean": (1, 2)}, r"mean \[1, 2\]: expected three numbers"),
    ],
)
def test_options_out_of_range(checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        load_classifier(checkpoint, **options)


def test_a_checkpoint_that_cannot_be_written(tmp_path, clf):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=r"file/out: cannot be written \(File exists\)"):
        save_classifier(clf, tmp_path / "file" / "out")


def test_port_from_the_command_line(tmp_path, capsys, clf, weights):
    save_file(weights, tmp_path / "w.safetensors")
    command = ["port", str(tmp_path / "w.safetensors"), "--arch", "small_resnet"]
    command += ["--out", str(tmp_path / "out"), "--std", "0.3", "0.2"]
    assert main([*command, "0"]) == 2
    assert "std [0.3, 0.2, 0.0]: expected three numbers above 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
