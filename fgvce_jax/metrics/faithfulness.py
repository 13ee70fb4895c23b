"""Insertion and deletion: does the class score follow the map? (RISE, Petsiuk et al., BMVC 2018.)

Pixels are exchanged between the image and a heavily blurred version of it, the most important
first, a fixed share a step. Insertion starts from the blurred image, deletion from the image, and
both are scored by the area under the class's probability.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fgvce_jax.blur import blurred
from fgvce_jax.checks import check_chunk
from fgvce_jax.metrics.maps import at_pixels
from fgvce_jax.models.classifier import Classifier

SHARE = 0.018
"""Of the pixels, exchanged in one step: 56 steps at 224 x 224."""


class Curves(NamedTuple):
    """Probabilities of the class while pixels are exchanged, S steps.

    Attributes:
        fraction: Share of the pixels exchanged so far, from 0 to 1.
        insertion: Of the blurred image with that share of the image put back.
        deletion: Of the image with that share of it blurred.
    """

    fraction: Float[Array, "points"]
    insertion: Float[Array, "B points"]
    deletion: Float[Array, "B points"]


def score(
    fraction: Float[Array | np.ndarray, "points"],
    curve: Float[Array | np.ndarray, "*batch points"],
) -> Float[Array, "*batch"]:
    """Area under a curve of `Curves` by the trapezoid rule, in percent."""
    return 100 * jnp.trapezoid(curve, fraction)


def pixel_ranks(
    values: Float[Array | np.ndarray, "m m"], size: tuple[int, int]
) -> Int[Array, "H W"]:
    """Place of every pixel of the upsampled map: 0 is the highest; ties go to the lowest index."""
    order = jnp.argsort(-at_pixels(values, size).ravel(), stable=True)
    ranks = jnp.zeros(order.size, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
    return ranks.reshape(size)


@partial(jax.jit, static_argnames=("share", "chunk"))
def faithfulness(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    maps: Float[Array, "B m m"],
    classes: Int[Array, "B"],
    *,
    share: float = SHARE,
    sigma: float | Float[Array, ""] | None = None,
    chunk: int = 64,
) -> Curves:
    """Insertion and deletion curves; `score` makes percentages of them.

    The image and the blurred image are ends of both curves, so S steps take 2 S forward passes of
    one image. They are made `chunk` at a time, whichever maps they belong to.

    Args:
        images: In [0, 1].
        maps: Any side m; they are upsampled bilinearly.
        classes: The class each map explains.
        share: Of the pixels exchanged in one step, rounded down to whole pixels, at least 1.
        sigma: Of the blur, in pixels; by default 10 for a height of 224, and in proportion.
        chunk: Images in one forward pass.

    Raises:
        InputError: A chunk below 1.
    """
    check_chunk(chunk)
    size = (images.shape[1], images.shape[2])
    pixels = size[0] * size[1]
    step = max(1, int(share * pixels))
    steps = -(-pixels // step)
    counts = jnp.minimum(jnp.arange(steps + 1) * step, pixels)
    sigma = 10 * size[0] / 224 if sigma is None else sigma
    substrates = jax.vmap(lambda image: blurred(image, sigma))(images)
    ranks = jax.vmap(lambda values: pixel_ranks(values, size))(maps)

    # Insertion with 0, 1, ... S steps, then deletion with 1 ... S - 1.
    count = jnp.concatenate([counts, counts[1:-1]])[:, None, None]
    inserting = jnp.arange(2 * steps)[:, None, None] <= steps
    work = len(images) * 2 * steps
    chunk = min(chunk, work)
    places = jnp.arange(-(-work // chunk) * chunk).reshape(-1, chunk) % work

    def passes(places):
        sample, k = jnp.divmod(places, 2 * steps)
        original = (ranks[sample] < count[k]) == inserting[k]
        batch = jnp.where(original[..., None], images[sample], substrates[sample])
        p = jax.nn.softmax(clf(batch))
        return jnp.take_along_axis(p, classes[sample, None], axis=-1)[:, 0]

    p = jax.lax.map(passes, places).ravel()[:work].reshape(len(images), 2 * steps)
    insertion, inside = p[:, : steps + 1], p[:, steps + 1 :]
    deletion = jnp.concatenate([insertion[:, -1:], inside, insertion[:, :1]], axis=1)
    return Curves(counts / pixels, insertion, deletion)
