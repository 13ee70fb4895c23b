"""FG-VCE: why an image classifier predicts P and not Q, down to the part of the object."""

from importlib import import_module
from os import PathLike
from typing import Any

from fgvce_jax.bank import Bank, Candidates, build_bank
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.contrast import contrastive_maps
from fgvce_jax.errors import InputError
from fgvce_jax.explain import explain
from fgvce_jax.explanation import Explanation
from fgvce_jax.heads import AdditiveHead, Dense, Direct, PooledLinear
from fgvce_jax.models import Classifier, load_classifier, wrap
from fgvce_jax.partition import contributions
from fgvce_jax.search import Counterfactual, counterfactual

__version__ = "0.2.0"


def read_run(folder: str | PathLike[str]) -> Any:
    """A finished run, `fgvce_jax.results.RunResults`: its tables, its maps and run.json.

    Raises:
        InputError: There is none, it is not finished, or a file of it is damaged.
    """
    # Parquet is read by a package that the functions above do without.
    return import_module("fgvce_jax.results").read_run(folder)


def why(
    clf: Classifier,
    image: Any,
    bank: Bank,
    label: str | int | None = None,
    config: SearchConfig = SearchConfig(),
) -> Explanation:
    """Why one image, a file or pixels, is P and not `label`, or not the runner-up.

    See `fgvce_jax.ask.why`, which needs Pillow.
    """
    return import_module("fgvce_jax.ask").why(clf, image, bank, label, config)


__all__ = [
    "AdditiveHead",
    "Bank",
    "BankConfig",
    "Candidates",
    "Classifier",
    "Counterfactual",
    "Dense",
    "Direct",
    "Explanation",
    "InputError",
    "PooledLinear",
    "SearchConfig",
    "build_bank",
    "contrastive_maps",
    "contributions",
    "counterfactual",
    "explain",
    "load_classifier",
    "read_run",
    "why",
    "wrap",
]
