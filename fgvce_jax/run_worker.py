"""The work of a run on the devices of one process: the bank, the confused classes, the parts."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from fgvce_jax import __version__
from fgvce_jax.bank import Bank, build_bank
from fgvce_jax.bank_file import Skipped
from fgvce_jax.config import BankConfig, ExplainConfig
from fgvce_jax.data.pipeline import image_loader
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.inference import Explainer, Predictor, confusion_votes
from fgvce_jax.results import ImageResult
from fgvce_jax.results.parts import part_path, write_part
from fgvce_jax.run_inputs import RunInputs, SentInputs


class Explained(NamedTuple):
    """A part that is done.

    Attributes:
        results: Of its images, where the worker does not see the run's folder; None where the part
            is written.
        device: The devices that it was computed on.
        worker: The worker, by a name of its own.
        seconds: Of its time, by what they were spent on; see `Explainer.clock`.
    """

    results: list[ImageResult] | None
    device: str
    worker: str
    seconds: dict[str, float]


class Worker:
    """Does the pieces of a run's work.

    Whoever gives them out asks for `build_bank` and `count_confusions` as needed, then calls
    `hold`, then asks for `explain`.
    """

    def __init__(self, config: ExplainConfig, inputs: RunInputs, mark: Path):
        """`mark` is a file in the folder of the run's parts, `Run.mark`."""
        self._config, self._inputs, self._mark = config, inputs, mark
        self._predictor = Predictor(inputs.clf, config.batch_size, config.data.num_workers)
        self._held: tuple = ()
        self._explainer: Explainer | None = None

    def build_bank(
        self, config: BankConfig, advance: Callable[[int], None] = lambda count: None
    ) -> tuple[Bank, Skipped]:
        """The bank, its arrays in the host's memory, and the references that cannot be read."""
        inputs, clf, size, skipped = self._inputs, self._inputs.clf, self._predictor.batch_size, []

        def skip(error: UnreadableImage) -> None:
            skipped.append({"id": error.id, "why": error.why})

        options = {"num_workers": self._predictor.num_workers, "on_skip": skip}
        load = image_loader(inputs.references, size, clf.image_size, clf.resize_to, **options)
        labels = inputs.reference_labels
        classes = inputs.asked(self._config.pairs)
        options = {"classes": classes, "batch_size": size, "advance": advance}
        bank = build_bank(clf, load, labels, config, **options)
        return jax.device_get(bank), skipped

    def count_confusions(
        self, part: range, advance: Callable[[int], None] = lambda count: None
    ) -> Float[np.ndarray, "2 K K"]:
        """The votes of `inference.confusion_votes` over the images of a part."""
        inputs = self._inputs
        return confusion_votes(self._predictor, inputs.dataset, inputs.labels, part, advance)

    def hold(
        self, bank: Bank, all_cells: Bank | None, confused_with: Int[np.ndarray, "K"] | None
    ) -> None:
        """Keep what every part needs; see `inference.Explainer`."""
        self._held = bank, all_cells, confused_with

    def explain(
        self, number: int, part: range, advance: Callable[[int], None] = lambda count: None
    ) -> Explained:
        """Explain the images of part `number` and write it, where the run's folder is seen."""
        if self._explainer is None:
            bank, all_cells, confused_with = self._held
            self._explainer = Explainer(
                self._predictor,
                self._config.search,
                bank,
                self._inputs.references.ids,
                tuple(dict.fromkeys(self._config.methods)),
                all_cells,
                confused_with,
            )
        results = self._explainer(self._inputs.dataset, self._inputs.labels, part, advance)
        if seen := self._mark.exists():
            write_part(part_path(self._mark.parent, number), number, results)
        devices = jax.local_devices()
        return Explained(
            None if seen else results,
            f"{len(devices)} x {devices[0].device_kind}",
            f"{platform.node()}-{os.getpid()}",
            self._explainer.clock.take(),
        )


def versions() -> dict[str, str]:
    """Of this package, of Python and of the packages that results depend on."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    ours = {"fgvce_jax": __version__, "python": platform.python_version()}
    return ours | {name: version(name) for name in packages}


def open_worker(
    config: ExplainConfig,
    sent: SentInputs,
    mark: Path,
    driver: Mapping[str, str],
    settings: Mapping[str, Any],
) -> Worker:
    """A worker on another machine, or merely in another process.

    Args:
        config: Of the run.
        sent: What it works on.
        mark: As for `Worker`.
        driver: The driver's `versions`.
        settings: Of JAX.

    Raises:
        InputError: The machine has other versions or other images than the driver.
    """
    here = platform.node()
    for name, found in versions().items():
        if found != driver[name]:
            raise InputError(
                f"ray: machine {here}: expected {name} {driver[name]}, as where the command was "
                f"given, got {found}"
            )
    for name, value in settings.items():
        jax.config.update(name, value)
    try:
        inputs = sent.open()
    except InputError as error:
        raise InputError(f"ray: machine {here}: {error}") from error
    return Worker(config, inputs, mark)
