"""Options are checked when they are made, and a run's bank follows its search."""

import pytest

import fgvce_jax as fg
from fgvce_jax.config import DataConfig, ExplainConfig, ModelConfig, from_dict
from fgvce_jax.data.augment import AugmentConfig
from fgvce_jax.models import ModelSpec
from fgvce_jax.train import TrainConfig


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (fg.SearchConfig, {"sigma": -1.0}, "sigma: expected 0 or more, got -1"),
        (fg.SearchConfig, {"sigma": float("nan")}, "sigma: expected 0 or more, got nan"),
        (fg.SearchConfig, {"sigma": float("inf")}, "sigma: expected a finite number, got inf"),
        (fg.SearchConfig, {"sigma": 1e300}, r"sigma: expected at most 1000, got 1e\+300"),
        (fg.SearchConfig, {"lambda_cls": float("nan")}, "lambda_cls: expected a finite number"),
        (
            fg.SearchConfig,
            {"lambda_cls": 1e39},
            r"lambda_cls: expected at most 1000000, got 1e\+39",
        ),
        (fg.SearchConfig, {"lambda_sim": -1e39}, "lambda_sim: expected -1000000 or more"),
        (fg.SearchConfig, {"max_iterations": 0}, "max_iterations: expected 1 or more, got 0"),
        (fg.SearchConfig, {"shortlist": 0}, "shortlist: expected 1 or more, got 0"),
        (
            fg.SearchConfig,
            {"evidence": "p"},
            "evidence: expected predicted, margin or",
        ),
        (fg.BankConfig, {"per_class": 0}, "per_class: expected 1 or more, got 0"),
        (fg.BankConfig, {"reference": "some"}, "reference: expected class or all, got 'some'"),
        (fg.BankConfig, {"sigma": -0.5}, "sigma: expected 0 or more, got -0.5"),
        (fg.BankConfig, {"sigma": float("inf")}, "sigma: expected at most 1000, got inf"),
        (DataConfig, {"num_workers": 10**9}, "num_workers: expected at most 1000, got 1000000000"),
        (ModelConfig, {"image_size": 10**9}, "image_size: expected at most 8192"),
        (ModelConfig, {"resize_to": 10**9}, "resize_to: expected at most 8192"),
        (ExplainConfig, {"batch_size": 10**9}, "batch_size: expected at most 1000000"),
        (TrainConfig, {"batch_size": 10**9}, "batch_size: expected at most 1000000"),
        (TrainConfig, {"epochs": 10**30}, "epochs: expected at most 1000000"),
        (TrainConfig, {"seed": 10**30}, "seed: expected at most 4294967295"),
        (TrainConfig, {"learning_rate": float("inf")}, "learning_rate: expected at most 1000000"),
        (TrainConfig, {"weight_decay": float("inf")}, "weight_decay: expected at most 1000000"),
        (AugmentConfig, {"crop_padding": 10**9}, "crop_padding: expected at most 8192"),
        (ModelSpec, {"blocks": (3000, 1, 1)}, r"blocks \(3000, 1, 1\): .* and 200 blocks in all"),
        (ModelSpec, {"widths": (10**9, 1, 1)}, r"widths \(1000000000, 1, 1\).* 65536 channels"),
        (ModelSpec, {"widths": (1,) * 9, "blocks": (1,) * 9}, "at most 8 stages"),
        (ModelSpec, {"widths": "12", "blocks": "12"}, "widths '12'.* expected whole numbers"),
        (ModelSpec, {"widths": 5}, "widths 5.* expected whole numbers"),
        (ModelSpec, {"blocks": (1, 1, 1.5)}, "expected whole numbers"),
        (ModelSpec, {"arch": ["resnet50"]}, r"arch \['resnet50'\]: expected one of"),
    ],
)
def test_an_option_out_of_range_is_named(kind, options, message):
    with pytest.raises(fg.InputError, match=message):
        kind(**options)


def test_a_run_builds_its_bank_with_the_searchs_sigma():
    config = ExplainConfig(search=fg.SearchConfig(sigma=0.0))
    assert config.bank.sigma == 0.0
    assert ExplainConfig().bank.sigma == fg.SearchConfig.sigma
    with pytest.raises(fg.InputError, match=r"^bank.sigma: expected the search's, 0.8, got 0.5"):
        ExplainConfig(bank=fg.BankConfig(sigma=0.5))


def test_a_config_comes_back_from_json():
    from dataclasses import asdict

    config = ExplainConfig(search=fg.SearchConfig(evidence="margin", shortlist=50), methods="ce,ig")
    assert config.methods == ("ce", "ig")
    assert from_dict(ExplainConfig, asdict(config)) == config
