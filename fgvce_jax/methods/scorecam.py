"""ScoreCAM: channels weighted by the class score of the image masked with them (Wang et al.,
CVPR workshop 2020)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.methods.scores import stream
from fgvce_jax.models.classifier import Classifier


def scored_cells(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    cells: Float[Array, "B n n C"],
    classes: Int[Array, "B"],
    chunk: int,
) -> Float[Array, "B n n C"]:
    """The terms w_c h_c of the map, before their sum over channels.

    w is the softmax over channels of the class logit of the image masked by each, scaled to [0, 1]
    and upsampled bilinearly. (The paper subtracts the logit of a baseline image, which the softmax
    does not see.)
    """

    def one(sample):
        image, cells, class_index = sample

        def logit(channel):
            channel = channel - channel.min()
            channel = channel / (channel.max() + 1e-8)
            mask = jax.image.resize(channel, image.shape[:2], "linear")
            return clf((image * mask[..., None])[None])[0, class_index]

        return jax.nn.softmax(stream(logit, chunk, jnp.moveaxis(cells, -1, 0))) * cells

    return jax.lax.map(one, (images, cells, classes))


@partial(jax.jit, static_argnames="chunk")
def scorecam(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    chunk: int = 64,
) -> Float[Array, "B n n"]:
    """ReLU(sum_c w_c h_c) with w of `scored_cells`; C forward passes an image.

    `chunk` of them are made together, 1 or more.
    """
    cells = clf.feature_map(images).cells
    return jax.nn.relu(scored_cells(clf, images, cells, classes, chunk).sum(-1))
