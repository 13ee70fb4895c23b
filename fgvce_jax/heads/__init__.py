"""Heads: the rest of a network behind the cut, in the shape the search needs, a file each."""

from fgvce_jax.heads.base import AdditiveHead, Head, SearchHead, UnderMasks
from fgvce_jax.heads.calm import CalmHead
from fgvce_jax.heads.class_token import ClassToken
from fgvce_jax.heads.dense import Dense
from fgvce_jax.heads.direct import Direct, WholePasses, as_cells, of_one_image, searchable
from fgvce_jax.heads.pool_norm_linear import PoolNormLinear
from fgvce_jax.heads.pooled import PooledLinear, PooledTokens
from fgvce_jax.heads.tokens import Tokens

__all__ = [
    "AdditiveHead",
    "CalmHead",
    "ClassToken",
    "Dense",
    "Direct",
    "Head",
    "PoolNormLinear",
    "PooledLinear",
    "PooledTokens",
    "SearchHead",
    "Tokens",
    "UnderMasks",
    "WholePasses",
    "as_cells",
    "of_one_image",
    "searchable",
]
