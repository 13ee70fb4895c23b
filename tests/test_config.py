"""Options are checked when they are made, and a run's bank follows its search."""

import pytest

import fgvce_jax as fg
from fgvce_jax.config import ExplainConfig, from_dict


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (fg.SearchConfig, {"sigma": -1.0}, "sigma: expected 0 or more, got -1"),
        (fg.SearchConfig, {"sigma": float("nan")}, "sigma: expected 0 or more, got nan"),
        (fg.SearchConfig, {"sigma": float("inf")}, "sigma: expected a finite number, got inf"),
        (fg.SearchConfig, {"lambda_cls": float("nan")}, "lambda_cls: expected a finite number"),
        (fg.SearchConfig, {"max_iterations": 0}, "max_iterations: expected 1 or more, got 0"),
        (fg.SearchConfig, {"shortlist": 0}, "shortlist: expected 1 or more, got 0"),
        (fg.SearchConfig, {"evidence": "p"}, "evidence: expected predicted or margin, got 'p'"),
        (fg.BankConfig, {"per_class": 0}, "per_class: expected 1 or more, got 0"),
        (fg.BankConfig, {"reference": "some"}, "reference: expected class or all, got 'some'"),
        (fg.BankConfig, {"sigma": -0.5}, "sigma: expected 0 or more, got -0.5"),
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
