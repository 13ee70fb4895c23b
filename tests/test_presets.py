"""The presets in configs/: every one is a config, and holds the setting its name says."""

from pathlib import Path

import pytest
import yaml

from fgvce_jax.config import ExplainConfig, from_dict
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


@pytest.mark.parametrize("name", PAPER)
def test_the_fine_tuning_recipes(name):
    config = read(f"train_{name}", TrainConfig)
    assert f"{config.data.name}_{config.model.arch}" == name
    assert config.model.image_size == 224
    # What the two presets say of each other.
    text = (CONFIGS / f"train_{name}.yaml").read_text()
    assert f"--out {read(name, ExplainConfig).model.checkpoint}\n" in text
