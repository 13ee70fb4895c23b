"""The presets in configs/: every one is a config, and holds the setting its name says."""

from pathlib import Path

import pytest
import yaml

from fgvce_jax.cli import main
from fgvce_jax.config import MATCHED, ExplainConfig, from_dict
from fgvce_jax.data import DATASETS
from fgvce_jax.train import TrainConfig

CONFIGS = Path(__file__).parents[1] / "configs"
PAPER = [f"{data}_{arch}" for data in ("cub", "dogs") for arch in ("resnet50", "vgg16", "vgg19")]


def read(name, kind):
    return from_dict(kind, yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_setting(name):
    config = read(name, ExplainConfig)
    assert config.data.name == name.split("_")[0]
    assert config.data.name in DATASETS
    assert config.model.checkpoint == f"classifiers/{name}"
    assert (config.bank.per_class, config.bank.top_m, config.bank.reference) == (20, 10, "class")
    assert (config.search.sigma, config.search.max_iterations) == (0.8, 100)
    assert (config.split, config.reference_split, config.limit) == ("test", "train", None)


def test_our_own_search():
    config = read("matched", ExplainConfig)
    assert (config.search, config.bank.top_m) == (MATCHED, None)


@pytest.mark.parametrize("name", PAPER)
def test_the_fine_tuning_recipes(name):
    config = read(f"train_{name}", TrainConfig)
    assert f"{config.data.name}_{config.model.arch}" == name
    assert config.model.image_size == 224
    # What the two presets say of each other.
    text = (CONFIGS / f"train_{name}.yaml").read_text()
    assert f"--out {read(name, ExplainConfig).model.checkpoint}\n" in text


EXPLAIN = {*PAPER, "demo", "matched", "photos"}
TRAIN = {*(f"train_{name}" for name in PAPER), "birds", "birds_vit", "digits"}


def test_the_list_holds_every_preset_with_its_command(capsys):
    assert main(["presets"]) == 0
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _, _ in rows] == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert {name for name, command, _ in rows if command == "explain"} == EXPLAIN
    assert {name for name, command, _ in rows if command == "train"} == TRAIN
    for name, _, summary in rows:
        assert (CONFIGS / f"{name}.yaml").read_text().startswith(f"# {summary}\n")


@pytest.mark.parametrize("name", sorted(TRAIN | EXPLAIN - {"demo"}))
def test_the_command_in_a_preset_is_its_own(name):
    command = "train" if name in TRAIN else "explain"
    second = (CONFIGS / f"{name}.yaml").read_text().splitlines()[1]
    assert second.startswith(f"# fgvce {command} --config {name} ")


def printed_config(*words, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*words, "--print_config"])
    assert exit.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "--config", "demo"],
        ["explain", "--config=demo"],
        ["explain", "--config", "configs/demo.yaml"],
        ["explain", "--config", str(CONFIGS / "demo.yaml")],
        ["demo"],
    ],
)
def test_a_preset_is_found_by_name_and_by_path(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder of that name is no preset
    config = printed_config(*words, capsys=capsys)
    assert config["model"]["checkpoint"] == "checkpoints/birds"
    assert config["batch_size"] == 64
    assert config["out"] == ("fgvce-demo" if words == ["demo"] else "fgvce-run")
    changed = printed_config(*words, "--batch_size", "8", capsys=capsys)
    assert changed == {**config, "batch_size": 8}


def test_a_file_of_ones_own_comes_before_a_preset(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cub_vgg16").write_text("split: mine")
    config = printed_config("explain", "--config", "cub_vgg16", capsys=capsys)
    assert (config["split"], config["data"]["name"]) == ("mine", "birds")


@pytest.mark.parametrize(
    ("command", "preset", "own"),
    [
        ("explain", "birds", "train"),
        ("demo", "birds", "train"),
        ("explain", "configs/train_cub_vgg16.yaml", "train"),
        ("explain", "mine.yaml", "train"),
        ("train", "demo", "explain"),
        ("train", "cub_resnet50", "explain"),
    ],
)
def test_another_commands_preset_is_refused(command, preset, own, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("epochs: 3\nout: there")
    assert main([command, "--config", preset]) == 2
    expected = f"config {preset}: a preset of `fgvce {own}`, not of `fgvce {command}`"
    assert capsys.readouterr().err == f"fgvce: error: {expected}\n"


@pytest.mark.parametrize("command", ["explain", "train"])
def test_fields_that_both_commands_have_are_for_both(command, capsys, tmp_path):
    (tmp_path / "both.yaml").write_text("batch_size: 5\ndata.name: digits")
    config = printed_config(command, "--config", str(tmp_path / "both.yaml"), capsys=capsys)
    assert (config["batch_size"], config["data"]["name"]) == (5, "digits")


def test_an_unknown_name_points_to_the_list(capsys):
    assert main(["explain", "--config", "burds"]) == 2
    expected = "config burds: no such file, nor a preset of that name; `fgvce presets` lists them"
    assert capsys.readouterr().err == f"fgvce: error: {expected}\n"
