"""Where to cut a network, by evidence: its explanations at every possible cut, and their cost
(`fgvce cuts`)."""

from fgvce_jax.cuts.config import CutsConfig
from fgvce_jax.cuts.run import compare_cuts, distinct_cuts

__all__ = ["CutsConfig", "compare_cuts", "distinct_cuts"]
