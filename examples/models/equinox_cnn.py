"""An Equinox module, as a classifier (`pip install equinox`).

    fgvce explain --data.name digits --model.factory examples.models.equinox_cnn:classifier

A module that keeps a state, for its batch norms say, is given as a function of a batch:
`lambda x: jax.vmap(lambda i: net(i, state)[0])(x.transpose(0, 3, 1, 2))`.
"""

import equinox as eqx
import jax

import fgvce_jax as fg


class Net(eqx.Module):
    """Two convolutions, the mean, a linear layer; one image, channels first."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(3, 16, 3, stride=2, padding=1, key=keys[0])
        self.second = eqx.nn.Conv2d(16, 32, 3, stride=2, padding=1, key=keys[1])
        self.last = eqx.nn.Linear(32, 10, key=keys[2])

    def __call__(self, x):
        """Logits of an image [3, 32, 32]."""
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(x))))
        return self.last(x.mean((1, 2)))


def model() -> Net:
    """Random weights; `eqx.tree_deserialise_leaves` reads yours."""
    return Net(jax.random.key(0))


def classifier() -> fg.Classifier:
    """Images are 32 pixels, in [0, 1] as they come."""
    return fg.wrap(model(), 32)


if __name__ == "__main__":
    print(classifier().head)
