"""Training and fine-tuning: `loop` is the recipe, the other files are its parts."""

from fgvce_jax.train.config import TrainConfig
from fgvce_jax.train.disk import EpochRecord
from fgvce_jax.train.loop import accuracy, train
from fgvce_jax.train.step import Loss

__all__ = ["EpochRecord", "Loss", "TrainConfig", "accuracy", "train"]
