"""A dataset whose classes a small network learns in seconds, and such a network."""

import math

import jax
import numpy as np

from fgvce_jax.data.example import Example
from fgvce_jax.models import ModelSpec, build

SIZE = 16
NAMES = ("red", "green", "none")


class Killed(BaseException):
    """Stands for the process ending: nothing catches it."""


class Planted:
    """Noise with a red square, a green one, or none: the class."""

    in_memory = True
    class_names, keypoint_names, part_names = NAMES, (), ()

    def __init__(self, size, seed):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(size, dtype=np.int32) % 3
        self.ids = [str(i) for i in range(size)]
        self.pixels = rng.integers(0, 60, (size, SIZE, SIZE, 3), dtype=np.uint8)
        for label in (0, 1):
            self.pixels[self.labels == label, 4:12, 4:12, label] += 150
        self.reads_left = math.inf

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads_left -= 1
        if self.reads_left < 0:
            raise Killed
        return Example(self.pixels[index], int(self.labels[index]), self.ids[index])


def tiny_classifier():
    """Basic blocks with 8 channels and 4 x 4 cells, fresh."""
    spec = ModelSpec(widths=(8,), blocks=(1,), stem_stride=2)
    return build(spec, 3, SIZE, jax.random.key(0), class_names=NAMES)


def arrays(pytree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(pytree)]
