"""Insertion and deletion: does the class score follow the map? (RISE, Petsiuk et al., BMVC 2018.)

Pixels are exchanged between the image and a substrate, the most important first, a fixed share a
step. Insertion starts from its substrate, deletion from the image, and both are scored by the area
under the class's probability. The substrate is a heavily blurred image for both, as in the FG-VCE
paper, or those of RISE's code: a slight blur for insertion, zeros for deletion.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fgvce_jax.blur import blurred, filtered, folded_taps
from fgvce_jax.checks import check_choice, check_chunk
from fgvce_jax.metrics.maps import at_pixels
from fgvce_jax.models.classifier import Classifier, mean_colour

SHARE = 0.018
"""Of the pixels, exchanged in one step: 56 steps at 224 x 224."""

RISE_BLUR = 11, 5.0
"""Taps and standard deviation, in pixels, of the blur in RISE's code."""

LEVELS = 2**20
"""Of a map's values up to its largest magnitude; the rounding of the upsampling is below one."""


class Curves(NamedTuple):
    """Probabilities of the class while pixels are exchanged, S steps.

    Attributes:
        fraction: Share of the pixels exchanged so far, from 0 to 1. Steps that fall into one group
            of tied pixels have the same.
        insertion: Of insertion's substrate with that share of the image put in.
        deletion: Of the image with that share of it taken from deletion's substrate.
    """

    fraction: Float[Array, "B points"]
    insertion: Float[Array, "B points"]
    deletion: Float[Array, "B points"]


def score(
    fraction: Float[Array | np.ndarray, "*#batch points"],
    curve: Float[Array | np.ndarray, "*batch points"],
) -> Float[Array, "*batch"]:
    """Area under a curve of `Curves` by the trapezoid rule, in percent."""
    return 100 * jnp.trapezoid(curve, fraction)


def pixel_ranks(
    values: Float[Array | np.ndarray, "m m"], size: tuple[int, int], ties: str = "together"
) -> Int[Array, "H W"]:
    """Place of every pixel of the upsampled map: 0 is the highest.

    Tied pixels "together" have the place of the first of them, and values are tied that are the
    same of `LEVELS`; "in_order" ties go to the lowest index.
    """
    falling = -at_pixels(values, size).ravel()
    if ties == "together":
        most = jnp.abs(falling).max()
        level = jnp.round(falling / jnp.where(most > 0, most, 1) * LEVELS).astype(jnp.int32)
        return jnp.searchsorted(jnp.sort(level), level).astype(jnp.int32).reshape(size)
    order = jnp.argsort(falling, stable=True)
    ranks = jnp.zeros(order.size, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
    return ranks.reshape(size)


def substrates(
    clf: Classifier,
    image: Float[Array, "H W 3"],
    kind: str,
    sigma: float | Float[Array, ""],
) -> tuple[Float[Array, "H W 3"], Float[Array, "H W 3"]]:
    """The images that insertion starts from and that deletion ends at.

    "blur": the image under a Gaussian of `sigma`, for both. "rise": for insertion a blur of 11 x 11
    pixels with a standard deviation of 5, for deletion zeros, both of the normalised image (zeros
    are the classifier's mean colour; black for features of the user's own).
    """
    if kind == "blur":
        blurry = blurred(image, sigma)
        return blurry, blurry
    zero = mean_colour(clf)
    return filtered(image, folded_taps(*RISE_BLUR), zero), jnp.broadcast_to(zero, image.shape)


@partial(jax.jit, static_argnames=("share", "chunk", "substrate", "ties"))
def faithfulness(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    maps: Float[Array, "B m m"],
    classes: Int[Array, "B"],
    *,
    share: float = SHARE,
    sigma: float | Float[Array, ""] | None = None,
    chunk: int = 64,
    substrate: str = "blur",
    ties: str = "together",
) -> Curves:
    """Insertion and deletion curves; `score` makes percentages of them.

    The curves share their ends where they can, so S steps take 2 S forward passes of one image,
    and one more with RISE's substrates, `chunk` at a time, whichever maps they belong to.

    Args:
        images: In [0, 1].
        maps: Any side m; they are upsampled bilinearly.
        classes: The class each map explains.
        share: Of the pixels exchanged in one step, rounded down to whole pixels, at least 1.
        sigma: Of the "blur", in pixels; by default 10 for a height of 224, and in proportion.
        chunk: Images in one forward pass.
        substrate: "blur" or "rise", see `substrates`.
        ties: Pixels with the same value are exchanged "together", in the step that reaches the
            first of them, so that no order is invented; or "in_order" of their index, as many in
            each step (RISE's code leaves their order to a sort).

    Raises:
        InputError: A chunk below 1, or another substrate or way with ties.
    """
    check_chunk(chunk)
    check_choice("substrate", substrate, ("blur", "rise"))
    check_choice("ties", ties, ("together", "in_order"))
    size = (images.shape[1], images.shape[2])
    counts = _counts(size[0] * size[1], share)
    steps = len(counts) - 1
    sigma = 10 * size[0] / 224 if sigma is None else sigma
    starts, ends = jax.vmap(lambda image: substrates(clf, image, substrate, sigma))(images)
    ranks = jax.vmap(lambda values: pixel_ranks(values, size, ties))(maps)

    # Insertion with 0, 1, ... S steps, then deletion with 1 ... S - 1, and S where it ends
    # elsewhere than where insertion starts.
    deleting = steps if substrate == "rise" else steps - 1
    count = jnp.concatenate([counts, counts[1 : deleting + 1]])[:, None, None]
    inserting = (jnp.arange(len(count)) <= steps)[:, None, None, None]

    def exchanged(sample, k):
        inside = (ranks[sample] < count[k])[..., None]
        other = jnp.where(inserting[k], starts[sample], ends[sample])
        return jnp.where(inside == inserting[k], images[sample], other)

    p = _probabilities(clf, exchanged, classes, len(count), chunk)
    insertion, inside = p[:, : steps + 1], p[:, steps + 1 :]
    deletion = jnp.concatenate([insertion[:, -1:], inside], axis=1)
    if substrate == "blur":
        deletion = jnp.concatenate([deletion, insertion[:, :1]], axis=1)
    fraction = jax.vmap(lambda own: (own < counts[:, None, None]).mean((1, 2)))(ranks)
    return Curves(fraction, insertion, deletion)


def _counts(pixels: int, share: float) -> Int[Array, "steps"]:
    """How many pixels are exchanged after each step, from none to all."""
    step = max(1, int(share * pixels))
    return jnp.minimum(jnp.arange(-(-pixels // step) + 1) * step, pixels)


def _probabilities(
    clf: Classifier,
    images_of: Callable[[Any, Any], Any],
    classes: Int[Array, "B"],
    count: int,
    chunk: int,
) -> Float[Array, "B count"]:
    """Of each sample's class in each of its `count` images, `images_of` (samples, numbers)."""
    work = len(classes) * count
    chunk = min(chunk, work)
    places = jnp.arange(-(-work // chunk) * chunk).reshape(-1, chunk) % work

    def passes(places):
        sample, number = jnp.divmod(places, count)
        p = jax.nn.softmax(clf(images_of(sample, number)))
        return jnp.take_along_axis(p, classes[sample, None], axis=-1)[:, 0]

    return jax.lax.map(passes, places).ravel()[:work].reshape(len(classes), count)
