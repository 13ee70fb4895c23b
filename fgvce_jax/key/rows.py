"""The rows of the key by name."""

from __future__ import annotations

from fgvce_jax.key.config import KeyConfig
from fgvce_jax.key.controls import CONTROLS
from fgvce_jax.key.explainers import EDITS, Answer, Explainer, of_ones_own
from fgvce_jax.key.network import Network
from fgvce_jax.key.samples import Samples
from fgvce_jax.methods import METHODS


def explainer(name: str, config: KeyConfig) -> Explainer:
    """The row of that name.

    Raises:
        InputError: Neither a method nor a search nor a function that can be imported.
    """
    if name in EDITS | CONTROLS:
        return (EDITS | CONTROLS)[name]
    if ":" in name:
        return of_ones_own(name)
    method = METHODS[name]
    options = {
        "rise": {"num_masks": config.rise_masks},
        "ep": {"iterations": config.ep_iterations},
    }.get(name, {})

    def answer(network: Network, batch: Samples) -> Answer:
        bank = None
        if method.needs & {"bank", "all_cells"}:
            bank = network.bank(None) if "all_cells" in method.needs else network.bank()
        asked = batch.pixels, batch.predicted, batch.target
        return Answer(maps=method(network.clf, *asked, bank=bank, **options))

    return Explainer(method.label, method.explains, answer, method.load())
