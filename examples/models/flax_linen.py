"""A Flax Linen module with its variables, as a classifier.

fgvce explain --data.name digits --model.factory examples.models.flax_linen:classifier
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

import fgvce_jax as fg


class Net(nn.Module):
    """A convolution with batch norm, the mean, a layer norm, a linear layer."""

    @nn.compact
    def __call__(self, x, train: bool):
        """Logits of images [B, 32, 32, 3]."""
        x = nn.Conv(32, (3, 3), strides=4)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(10)(nn.LayerNorm()(x.mean((1, 2))))


def model() -> Net:
    """A bound module; random variables, load yours here."""
    net = Net()
    return net.bind(net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))


def classifier() -> fg.Classifier:
    """Images are 32 pixels, in [0, 1] as they come."""
    return fg.wrap(model(), 32)


if __name__ == "__main__":
    print(classifier().head)
