"""Which training: everything that its result depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fgvce_jax.config import MOST, DataConfig, ModelConfig, at_least, at_most, one_of
from fgvce_jax.data.augment import AugmentConfig
from fgvce_jax.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: Which images; the `train` split is trained on, the `test` split measured after every
            epoch.
        model: Which classifier: an architecture from scratch, or with weights (or a checkpoint) to
            fine-tune. Where the weights have another number of classes, the last layer starts anew.
        head: "own" trains the architecture's head by cross-entropy; "calm_em" and "calm_ml" put
            CALM's head in its place and train it by expectation-maximisation or by marginal
            likelihood, so that the method `calm` can be used.
        calm_detached: With CALM's head, let no gradient flow through the sum that its attention is
            divided by, as in the authors' code.
        augment: How training images are varied.
        epochs: Passes over the train split.
        batch_size: Images in one step.
        optimizer: adamw, or sgd with momentum 0.9.
        learning_rate: The highest, reached after the warm-up.
        milestones: Epochs after each of which the learning rate falls to a tenth; without any it
            goes down to 0 along a cosine.
        warmup_epochs: Epochs over which the learning rate rises from 0, a fraction allowed.
        weight_decay: Of kernels; biases and normalisation layers have none. Times the learning
            rate with adamw, added to the gradient with sgd.
        label_smoothing: Probability mass spread evenly over the classes, in [0, 1).
        seed: Of the initial weights, the order of images and the augmentation.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    head: Literal["own", "calm_em", "calm_ml"] = "own"
    calm_detached: bool = True
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 10
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0

    def __post_init__(self):
        at_least(self, 0, "seed", "weight_decay")
        at_most(self, MOST, "epochs", "batch_size", "learning_rate", "weight_decay")
        at_most(self, 2**32 - 1, "seed")
        one_of(self, "head", "optimizer")
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise InputError(
                f"warmup_epochs: expected 0 to {self.epochs} (epochs), got {self.warmup_epochs}"
            )
        if list(self.milestones) != sorted({m for m in self.milestones if m > 0}):
            raise InputError(
                f"milestones: expected epochs in ascending order, got {list(self.milestones)}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing: expected in [0, 1), got {self.label_smoothing}")
