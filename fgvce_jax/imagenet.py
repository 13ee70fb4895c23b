"""The 1000 classes of ImageNet (ILSVRC 2012), in the order in which classifiers number them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType


@cache
def imagenet_classes() -> Mapping[str, str]:
    """Each class's name by its WordNet id (n01440764: tench), in order; no name is there twice."""
    text = Path(__file__).with_suffix(".tsv").read_text("utf-8")
    return MappingProxyType(dict(line.split("\t") for line in text.splitlines()))


@cache
def wordnet_ids() -> Mapping[str, str]:
    """Each class's WordNet id by its name."""
    return MappingProxyType({name: id for id, name in imagenet_classes().items()})
