"""A Flax NNX model, as a classifier.

fgvce explain --data.name digits --model.factory examples.models.flax_nnx:classifier
"""

import jax
from flax import nnx

import fgvce_jax as fg


class Net(nnx.Module):
    """Two convolutions with batch norm, the mean, a linear layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, 16, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.last = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        """Logits of images [B, 32, 32, 3]."""
        x = jax.nn.relu(self.norm(self.first(x)))
        return self.last(jax.nn.relu(self.second(x)).mean((1, 2)))


def model() -> Net:
    """Random weights; load yours here."""
    return Net(nnx.Rngs(0))


def classifier() -> fg.Classifier:
    """Images are 32 pixels, in [0, 1] as they come."""
    return fg.wrap(model(), 32)


if __name__ == "__main__":
    print(classifier().head)
