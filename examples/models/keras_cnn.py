"""A model of Keras 3 on JAX, as a classifier (`pip install keras`).

    KERAS_BACKEND=jax fgvce explain --data.name digits \
      --model.factory examples.models.keras_cnn:classifier

The models of `keras.applications` and keras-hub go the same way, with
`classifier_activation=None`: what is explained are logits.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras

import fgvce_jax as fg


def model() -> keras.Model:
    """Random weights; `keras.models.load_model` reads yours."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(16, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )


def classifier() -> fg.Classifier:
    """The pixels of Keras's models are usually 0 to 255: `std` turns ours into them."""
    return fg.wrap(model(), 32, std=(1 / 255, 1 / 255, 1 / 255))


if __name__ == "__main__":
    print(classifier().head)
