"""The answer key: is an explanation right? Birds whose true reasons are known, and every method.

The renderer of `fgvce_jax.data.birds` draws the same bird as one of a sibling class, its twin: the
true counterfactual. Edits and maps are held to it (`fgvce benchmark`).
"""

from fgvce_jax.key.config import VERSION, KeyConfig
from fgvce_jax.key.explainers import EDITS, Answer, Edits, Explainer
from fgvce_jax.key.network import Network
from fgvce_jax.key.run import benchmark, measure
from fgvce_jax.key.samples import SETTINGS, Samples

__all__ = [
    "EDITS",
    "SETTINGS",
    "VERSION",
    "Answer",
    "Edits",
    "Explainer",
    "KeyConfig",
    "Network",
    "Samples",
    "benchmark",
    "measure",
]
