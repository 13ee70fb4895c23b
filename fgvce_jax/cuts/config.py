"""The options of `fgvce cuts`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fgvce_jax.config import (
    BankConfig,
    DataConfig,
    ExplainConfig,
    ModelConfig,
    SearchConfig,
    at_least,
    at_most,
    one_of,
)
from fgvce_jax.errors import InputError


@dataclass(frozen=True)
class CutsConfig:
    """Explanations of the same images at every possible cut of a network.

    Attributes:
        data: Which images.
        model: Which classifier, one of this package.
        bank: The candidate cells.
        search: The counterfactual search.
        split: The split whose images are explained.
        reference_split: The split that reference images come from.
        asked: "mistakes" asks of misclassified images why they are P and not the correct class Q;
            "runner_up" of correct ones why they are P and not the second most probable class Q.
        cuts: Those to measure, in a list, or with commas between them; all by default. A wrong
            name lists them.
        images: Most images at a cut, the first of the split.
        seconds: Explaining at a cut ends with the image in which this time is over. At an early cut
            one image can take minutes, its candidates included.
        batch_size: Images in the forward pass that is the unit of time.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    split: str = "test"
    reference_split: str = "train"
    asked: Literal["mistakes", "runner_up"] = "mistakes"
    cuts: tuple[str, ...] | str = ()
    images: int = 100
    seconds: float = 120.0
    batch_size: int = 16

    def __post_init__(self):
        at_least(self, 1, "images", "batch_size")
        at_least(self, 0, "seconds")
        at_most(self, 10_000, "images", "batch_size")
        at_most(self, 1_000_000, "seconds")
        one_of(self, "asked")
        if isinstance(self.cuts, str):
            names = tuple(name.strip() for name in self.cuts.split(",") if name.strip())
            object.__setattr__(self, "cuts", names)
        if self.model.cut is not None:
            raise InputError(f"model.cut: expected none, got {self.model.cut}; `cuts` chooses")
        object.__setattr__(self, "bank", self.of_run().bank)  # with the search's sigma

    def of_run(self) -> ExplainConfig:
        """The part that a run has as well."""
        names = "data", "model", "bank", "search", "split", "reference_split", "batch_size"
        return ExplainConfig(**{name: getattr(self, name) for name in names})
