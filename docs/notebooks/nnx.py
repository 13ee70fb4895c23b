# %% [markdown]
# # Bring a Flax NNX model
#
# Any JAX model that ends in logits can be explained. This notebook trains a small Flax NNX network on
# scikit-learn's digits (`pip install 'fgvce-jax[digits]'`), wraps it as it is, and asks about its
# mistakes.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import fgvce_jax as fg
from fgvce_jax.data import open_dataset


def arrays(split):
    data = open_dataset("digits", split)
    pixels = np.stack([data[i].image for i in range(len(data))]) / np.float32(255)
    return pixels, np.asarray(data.labels)


images, labels = arrays("train")
test_images, test_labels = arrays("test")
images.shape, test_images.shape

# %% [markdown]
# The model. Nothing in it knows of explanations.


# %%
class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 16, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.second = nnx.Conv(16, 64, (3, 3), strides=2, rngs=rngs)
        self.last = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.first(x)))
        return self.last(jax.nn.relu(self.second(x)).mean((1, 2)))


model = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


rng = np.random.default_rng(0)
for epoch in range(20):
    order = rng.permutation(len(images))[: len(images) // 64 * 64].reshape(-1, 64)
    losses = [float(step(model, optimizer, images[i], labels[i])) for i in order]
print(f"last epoch's loss {np.mean(losses):.2f}")

# %% [markdown]
# Wrapped. The model is traced and cut where its logits last depend on a map; that the rest is a mean and
# a linear layer is recognised, so the search is a few matrix products.

# %%
model.eval()
clf = fg.wrap(model, 32, class_names=[str(digit) for digit in range(10)])
clf, type(clf.head).__name__

# %% [markdown]
# Its logits are the model's own, to rounding:

# %%
float(jnp.abs(clf(test_images[:8]) - model(test_images[:8])).max())

# %% [markdown]
# Its mistakes, explained:

# %%
wrong = np.flatnonzero(np.asarray(clf(test_images).argmax(-1)) != test_labels)
print(f"accuracy {1 - len(wrong) / len(test_labels):.1%}, {len(wrong)} mistakes")
bank = fg.build_bank(clf, images, labels)
out = fg.explain(clf, bank, test_images[wrong], test_labels[wrong])
print(out)

# %%
out[0]

# %% [markdown]
# On the command line the same model is a function by name, that returns the classifier:
#
# ```
# fgvce explain --data.name digits --model.factory mypackage.mymodel:classifier
# ```
