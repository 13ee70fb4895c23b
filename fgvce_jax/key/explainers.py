"""What is measured: an explainer answers for a batch of samples with maps, with edits, or both."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.config import MATCHED, SearchConfig
from fgvce_jax.errors import InputError
from fgvce_jax.key.network import Network
from fgvce_jax.key.samples import Samples
from fgvce_jax.methods.cve import cve_counterfactuals, cve_semantic_counterfactuals
from fgvce_jax.methods.fgvce import fgvce_edits
from fgvce_jax.search import Counterfactual


class Edits(NamedTuple):
    """Edits of a batch, in order: the part of a `Counterfactual` that is measured.

    Attributes:
        edit_cell: Row-major, -1 where unused.
        cells: The edited feature map h*.
        num_edits: Their number.
        flipped: Whether Q is predicted after them.
    """

    edit_cell: Int[Array, "B T"]
    cells: Float[Array, "B n n C"]
    num_edits: Int[Array, "B"]
    flipped: Bool[Array, "B"]

    @classmethod
    def of(cls, found: Counterfactual) -> Edits:
        """Of a search's result."""
        return cls(found.edit_cell, found.cells, found.num_edits, found.flipped)


class Answer(NamedTuple):
    """An explainer's answer for a batch: maps of cells or pixels, edits, or both."""

    maps: Float[Any, "B m m"] | None = None
    edits: Edits | None = None


@dataclass(frozen=True)
class Explainer:
    """A row of the key.

    Attributes:
        label: Its name in the tables.
        explains: The class of its maps, P or Q.
        answer: Its answer for a batch of samples.
        source: The function whose file's content tells whether a kept row still holds.
    """

    label: str
    explains: str
    answer: Callable[[Network, Samples], Answer]
    source: Callable[..., Any]

    def code(self) -> str:
        """A hash of the file that the function is in."""
        path = inspect.getsourcefile(inspect.unwrap(self.source))
        assert path is not None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


# --- searches -----------------------------------------------------------------------------------


def _search(label: str, config: SearchConfig) -> Explainer:
    def answer(network: Network, batch: Samples) -> Answer:
        if config.evidence == "matched":
            bank = network.bank(None, config.sigma)
            candidates = bank.for_targets(batch.target, batch.predicted)
        else:
            candidates = network.bank(sigma=config.sigma).for_targets(batch.target)
        found = fgvce_edits(network.clf, batch.pixels, batch.target, candidates, config)
        return Answer(edits=Edits.of(found))

    return Explainer(label, "P", answer, fgvce_edits)


def _exhaustive(label: str, function: Callable[..., Counterfactual]) -> Explainer:
    def answer(network: Network, batch: Samples) -> Answer:
        bank = network.bank(None)
        found = function(network.clf, batch.pixels, batch.target, bank=bank)
        return Answer(edits=Edits.of(found))

    return Explainer(label, "Q", answer, function)


EDITS: dict[str, Explainer] = {
    "fgvce": _search("FG-VCE (paper)", SearchConfig()),
    "fgvce_without_sp": _search("FG-VCE w/o SP", SearchConfig(sigma=0.0)),
    "fgvce_margin": _search("FG-VCE, margin evidence", SearchConfig(evidence="margin")),
    "fgvce_matched": _search("FG-VCE (matched)", MATCHED),
    "cve_edits": _exhaustive("CVE", cve_counterfactuals),
    "cve_semantic_edits": _exhaustive("CVE-semantic", cve_semantic_counterfactuals),
}
"""The searches whose edits are measured, beside the maps of `fgvce_jax.methods.METHODS`."""


# --- one's own ----------------------------------------------------------------------------------


def of_ones_own(name: str) -> Explainer:
    """A function `package.module:function` of the registry's signature.

    It is called with (clf, images, classes), and `contrast_classes` and `bank` where it takes them,
    and returns maps [B, m, m] or a `Counterfactual` with a leading axis.
    """
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)  # a console script does not look there by itself
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"methods {name}: expected package.module:function ({error})") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise InputError(f"methods {name}: expected a function, got {type(function).__name__}")
    parameters = inspect.signature(function).parameters.values()
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    taken = {p.name for p in parameters}

    def answer(network: Network, batch: Samples) -> Answer:
        given: dict[str, Any] = {}
        if everything or "contrast_classes" in taken:
            given["contrast_classes"] = batch.target
        if everything or "bank" in taken:
            given["bank"] = network.bank()
        found: Any = function(network.clf, batch.pixels, batch.predicted, **given)
        if isinstance(found, Counterfactual):
            return Answer(edits=Edits.of(found))
        shape = np.shape(found)
        if len(shape) != 3 or shape[0] != len(batch.index) or shape[1] != shape[2]:
            raise InputError(
                f"methods {name}: expected maps [{len(batch.index)}, m, m] or a Counterfactual, "
                f"got {list(shape) or type(found).__name__}"
            )
        return Answer(maps=found)

    return Explainer(name, "P", answer, function)
