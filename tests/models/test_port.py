"""`fgvce port` on what people have: folders of Hugging Face's and timm's, and files."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_transformers import TINY, tiny_transformers

from fgvce_jax.cli import main
from fgvce_jax.errors import InputError
from fgvce_jax.models import load_classifier, port
from fgvce_jax.models.hugging_face import described
from fgvce_jax.models.recognise import recognised, title
from fgvce_jax.models.spec import NETWORKS
from fgvce_jax.models.tensor_names import expected_shapes

LABELS = {"0": "crane", "1": "auk", "2": "crane"}
CONFIG = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "id2label": LABELS,
    "layer_norm_eps": 1e-12,
    "num_attention_heads": TINY.heads,
    "hidden_act": "gelu",
}
PROCESSOR = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    expected_shapes.cache_clear()
    tiny_transformers(monkeypatch)
    yield
    expected_shapes.cache_clear()


def state(arch="vit_s_16", positions=17, seed=0):
    """Random tensors under timm's names."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(arch, 3).items():
        if name.endswith("pos_embed"):
            shape = (1, positions, shape[-1])
        name = name.removeprefix("patch_embed.") if "token" in name or "pos" in name else name
        tensors[name] = np.float32(rng.normal(size=shape) * 0.3)
    return tensors


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(state(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def last_error(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("given", ["", "model.safetensors"])
def test_a_folder_of_hugging_face(folder, tmp_path, capsys, given):
    assert main(["port", str(folder / given), "--out", str(tmp_path / "c")]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip().endswith("c: vit_s_16, 3 classes")
    assert (
        "images: the whole image resized to 32 x 32 px, mean 0.5 0.5 0.5, std 0.5 0.5 0.5 "
        "(preprocessor_config.json)" in printed.err
    )
    clf = load_classifier(tmp_path / "c")
    assert clf.class_names == ("crane (0)", "auk", "crane (2)")
    assert (clf.image_size, clf.resize_to, clf.spec.epsilon) == (32, None, 1e-12)
    np.testing.assert_array_equal(clf.features.mean, np.float32([0.5] * 3))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": 32}, (32, None)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, (32, 40)),
        (
            {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}},
            (32, 40),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, None)),
        ({"size": 32, "do_center_crop": False, "crop_size": 24}, (32, None)),
        ({"size": {"shortest_edge": 32}}, (32, 32)),
    ],
)
def test_how_a_processor_cuts_images_out(folder, processor, expected):
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    found = described(folder).preprocessing
    assert (found.image_size, found.resize_to) == expected


def test_a_folder_of_timm(folder, tmp_path):
    own = {"input_size": [3, 32, 32], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.25] * 3}
    config = {"architecture": "vit_small_patch16_224", "pretrained_cfg": own}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").unlink()
    clf = port(folder, tmp_path / "c")
    assert (clf.image_size, clf.resize_to, clf.spec.epsilon) == (32, 35, None)
    np.testing.assert_array_equal(clf.features.std, np.float32([0.25] * 3))


def test_weights_in_several_files(folder, tmp_path):
    tensors = state()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    clf = port(folder, tmp_path / "c")
    kernel = clf.head.outputs[0][0]
    np.testing.assert_array_equal(kernel, tensors["head.weight"].T)
    index["weight_map"]["more"] = "b.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"not in its files: more"):
        port(folder, tmp_path / "d")
    index["weight_map"]["more"] = "../b.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"expected files beside it, got \.\./b"):
        port(folder, tmp_path / "d")


def write(name, value):
    return lambda folder: (folder / name).write_text(json.dumps(value))


def processor(**changes):
    return write("preprocessor_config.json", PROCESSOR | changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "a folder without config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "expected model.safetensors or"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (write("config.json", CONFIG | {"id2label": {"0": "a"}}), "expected 3 names, got 1"),
        (write("config.json", CONFIG | {"id2label": {"1": "a"}}), "expected the numbers from 0"),
        (write("config.json", CONFIG | {"hidden_act": "quick_gelu"}), "expected gelu or relu"),
        (
            write("config.json", CONFIG | {"num_attention_heads": 4}),
            "4 attention heads, expected 3",
        ),
        (write("config.json", CONFIG | {"layer_norm_eps": "x"}), "epsilon 'x': expected a number"),
        (write("preprocessor_config.json", PROCESSOR | {"rescale_factor": 1.0}), "expected 1/255"),
        (
            write("preprocessor_config.json", PROCESSOR | {"size": {"height": 32, "width": 40}}),
            "square",
        ),
        (write("preprocessor_config.json", PROCESSOR | {"image_std": [0, 1, 1]}), "std"),
        (write("preprocessor_config.json", PROCESSOR | {"image_mean": "grey"}), "mean"),
        (write("preprocessor_config.json", []), "expected a JSON object"),
    ],
)
def test_a_folder_that_is_not_right_is_one_line(folder, tmp_path, capsys, damage, message):
    damage(folder)
    assert main(["port", str(folder), "--out", str(tmp_path / "c")]) == 2
    assert message in last_error(capsys)
    assert not (tmp_path / "c").exists()


def test_options_come_before_what_is_found(folder, tmp_path, capsys):
    command = ["port", str(folder), "--out", str(tmp_path / "c"), "--mean", "0.1", "0.2", "0.3"]
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    command += ["--image_size", "48", "--resize_to", "50", "--cut", "blocks.0"]
    assert main([*command, "--class_names", str(tmp_path / "names.txt")]) == 0
    clf = load_classifier(tmp_path / "c")
    assert (clf.image_size, clf.resize_to, clf.spec.cut) == (48, 50, "blocks.0")
    assert clf.class_names == ("a", "b", "c")
    assert "short side resized to 50 px, centre of 48 x 48 px, mean 0.1 0.2 0.3" in (
        capsys.readouterr().err
    )
    assert main(["port", str(folder), "--out", str(tmp_path / "d"), "--resize_to", "16"]) == 2
    assert "resize_to 16: expected 0, or at least the image size, 32" in last_error(capsys)
    clf = port(folder, tmp_path / "e", resize_to=0)
    assert clf.resize_to is None


@pytest.mark.parametrize(
    ("arch", "positions", "expected"),
    [
        ("vit_s_16", 28 * 28 + 1, (224, 256)),  # patches of 8 pixels
        ("vit_s_16", 48 * 48 + 1, (384, 384)),
        ("dinov2_s_14", 37 * 37 + 1, (224, 256)),
        ("swin_t", None, (224, 232)),
    ],
)
def test_what_weights_are_evaluated_with(tmp_path, capsys, arch, positions, expected):
    save_file(state(arch, positions), tmp_path / "w.safetensors")
    clf = port(tmp_path / "w.safetensors", tmp_path / "c")
    assert clf.spec.arch == arch
    assert (clf.image_size, clf.resize_to) == expected
    assert "as the published weights of this network are evaluated" in capsys.readouterr().err
    np.testing.assert_allclose(clf.features.mean, NETWORKS[arch].mean, rtol=1e-6)


def test_a_new_size_keeps_the_share_that_is_cut_off(tmp_path):
    save_file(state(), tmp_path / "w.safetensors")
    clf = port(tmp_path / "w.safetensors", tmp_path / "c", image_size=112)
    assert (clf.image_size, clf.resize_to) == (112, 112)  # trained at 32: no border
    save_file(state(positions=785), tmp_path / "v.safetensors")
    clf = port(tmp_path / "v.safetensors", tmp_path / "d", image_size=112)
    assert (clf.image_size, clf.resize_to) == (112, 128)


def test_efficientnet_lite0_has_its_own_scale(tmp_path, capsys):
    shapes = expected_shapes("efficientnet_lite0", 3)
    save_file({n: np.zeros(s, np.float32) for n, s in shapes.items()}, tmp_path / "w.safetensors")
    assert main(["port", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "c")]) == 0
    assert "mean 0.498 0.498 0.498, std 0.502 0.502 0.502" in capsys.readouterr().err
    clf = load_classifier(tmp_path / "c")
    pixels = np.arange(256) / 255
    scaled = (pixels[:, None] - np.asarray(clf.features.mean)) / np.asarray(clf.features.std)
    np.testing.assert_allclose(scaled[:, 0], (np.arange(256) - 127) / 128, atol=1e-6)


# --- what a file's tensors are of ---------------------------------------------------------------


def test_another_network_than_the_asked_one_is_named(tmp_path, capsys):
    save_file(state("swin_t"), tmp_path / "w.safetensors")
    command = ["port", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "c")]
    assert main([*command, "--arch", "vit_s_16"]) == 2
    error = last_error(capsys)
    assert error.endswith("these look like a Swin-T's (--arch swin_t); expected a ViT-S/16's")
    assert len(error) < 300


def test_what_is_almost_a_network_is_compared_with_it():
    tensors = state()
    for name in [n for n in tensors if n.startswith("blocks.2")]:
        del tensors[name]
    with pytest.raises(
        InputError, match=r"^w: these look like a ViT-S/16's, but: missing: "
    ) as caught:
        recognised(tensors, "w")
    assert "and 7 more" in str(caught.value)
    with pytest.raises(InputError, match=r"^w: a\.weight, ... are the tensors of no network"):
        recognised({"a.weight": np.zeros(3)}, "w")


def test_tokens_that_form_no_square(tmp_path, capsys):
    save_file(state(positions=19), tmp_path / "w.safetensors")
    assert main(["port", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "c")]) == 2
    assert "pos_embed: expected 1 and a square number of tokens, got 19" in last_error(capsys)


def test_every_network_has_a_title():
    titles = {arch: title(arch) for arch in NETWORKS}
    assert len(set(titles.values())) == len(titles) - 3  # two readings of a distilled DeiT
    assert titles["efficientnet_lite0"] == "an EfficientNet-Lite0"
    assert titles["resnet18"] == "a ResNet-18"
    assert titles["deit_ti_16_distilled"] == "a DeiT-Ti/16 (distilled)"
    assert titles["dinov2_b_14_reg"] == "a DINOv2-B/14 with registers"
    assert titles["vgg19_bn"] == "a VGG-19 with batch norm"
