"""Heads: the rest of a network behind the cut, in the shape the search needs, a file each."""

from fgvce_jax.heads.base import AdditiveHead, SearchHead
from fgvce_jax.heads.calm import CalmHead
from fgvce_jax.heads.dense import Dense
from fgvce_jax.heads.direct import Direct, searchable
from fgvce_jax.heads.pool_norm_linear import PoolNormLinear
from fgvce_jax.heads.pooled import PooledLinear

__all__ = [
    "AdditiveHead",
    "CalmHead",
    "Dense",
    "Direct",
    "PoolNormLinear",
    "PooledLinear",
    "SearchHead",
    "searchable",
]
