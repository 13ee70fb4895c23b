"""Extremal perturbations: the mask of a given area through which the class is seen best (Fong et
al., ICCV 2019), by default as the authors' code (TorchRay) has it."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fgvce_jax.blur import blurred, filtered, gaussian_taps
from fgvce_jax.checks import check_choice
from fgvce_jax.errors import InputError
from fgvce_jax.methods.scores import stream
from fgvce_jax.models.classifier import Classifier, mean_colour

LEVELS = 8  # of the blur pyramid
MAX_BLUR = 20.0  # pixels, standard deviation of its first level
COLDNESS = 20.0  # of the smooth maximum
LEARNING_RATE = 0.01
MOMENTUM = 0.9  # and dampening
AREA_WEIGHT, AREA_GROWTH = 300.0, 1.0035


class Kernel(NamedTuple):
    """Parameters one every `step` pixels, whose weight falls to exp(-1/2) at `sigma` pixels."""

    step: int
    sigma: float

    @property
    def margin(self) -> int:
        """Cells by which the whole mask goes past the parameters on each side."""
        return math.ceil(self.sigma / self.step)


def blur_pyramid(
    image: Float[Array, "H W 3"], beyond: Float[Array, "3"] | None = None
) -> Float[Array, "L H W 3"]:
    """The image blurred by Gaussians, from `MAX_BLUR` down to none.

    `beyond` is the colour beyond its border, up to 4 standard deviations away; with None nothing
    is there, and the weights inside the image sum to 1.
    """
    sigmas = [MAX_BLUR * (1 - level / (LEVELS - 1)) for level in range(LEVELS - 1)]
    if beyond is None:
        levels = [blurred(image, sigma) for sigma in sigmas]
    else:
        levels = [filtered(image, gaussian_taps(sigma), beyond) for sigma in sigmas]
    return jnp.stack([*levels, image])


def perturbed(pyramid: Float[Array, "L H W 3"], mask: Float[Array, "H W"]) -> Float[Array, "H W 3"]:
    """The image where the mask is 1, the pyramid's first level where it is 0, in between linear."""
    level = mask * (LEVELS - 1)
    below = jnp.clip(jnp.floor(level), 0, LEVELS - 2)
    part = (level - below)[..., None]
    index = below.astype(int)[None, ..., None]
    low, high = (jnp.take_along_axis(pyramid, index + up, 0)[0] for up in (0, 1))
    return (1 - part) * low + part * high


def smooth_mask(parameters: Float[Array, "h w"], kernel: Kernel) -> Float[Array, "Hm Wm"]:
    """At every pixel the smooth maximum of the parameters around, weighted by their distance.

    The mask reaches `kernel.margin` cells past the outermost parameters, where they are 0.
    """
    step, margin = kernel.step, kernel.margin
    radius = margin + 1
    # A pixel's neighbourhood is the (2 radius + 1)^2 parameters around its cell, and the weights
    # are the same for every cell: [neighbour, 1, pixel y of the cell, 1, pixel x].
    offset = (jnp.arange(-radius, radius + 1)[:, None] * step - jnp.arange(step)) / kernel.sigma
    distance = jnp.hypot(offset[:, None, :, None], offset[None, :, None, :])
    weights = jnp.exp(-2 * jax.nn.relu(distance - 0.5) ** 2).reshape(-1, 1, step, 1, step)

    height, width = (side + 2 * margin for side in parameters.shape)
    padded, places = jnp.pad(parameters, margin + radius), range(2 * radius + 1)
    neighbours = jnp.stack([padded[y : y + height, x : x + width] for y in places for x in places])
    values = neighbours[:, :, None, :, None] * weights
    votes = jnp.exp(COLDNESS * (values - 1))
    mask = ((votes * values).sum(0) / votes.sum(0)).reshape(height * step, width * step)
    return mask[: 1 - step or None, : 1 - step or None]


def inside(
    mask: Float[Array, "Hm Wm"], size: tuple[int, int], kernel: Kernel
) -> Float[Array, "H W"]:
    """The part of a whole mask that covers the image."""
    start = kernel.margin * kernel.step
    return mask[start : start + size[0], start : start + size[1]]


class Search(NamedTuple):
    """The options of `ep` that hold for every image of a batch."""

    kernel: Kernel
    area: float
    iterations: int
    reward: str
    border: str


def search_mask(
    clf: Classifier,
    start: Float[Array, "h w"],
    options: Search,
    image: Float[Array, "H W 3"],
    class_index: Int[Array, ""],
) -> Float[Array, "H W"]:
    """The mask of one image, by gradient ascent on its parameters; see `ep`."""
    kernel, size = options.kernel, (image.shape[0], image.shape[1])
    pyramid = blur_pyramid(image, mean_colour(clf) if options.border == "mean" else None)

    def energy(parameters, area_weight, flip):
        whole = smooth_mask(parameters, kernel)
        seen = perturbed(pyramid, inside(whole, size, kernel))
        logits = clf(jnp.where(flip, seen[:, ::-1], seen)[None])[0]
        reward = logits[class_index]
        if options.reward == "contrastive":
            reward -= jnp.where(jnp.arange(len(logits)) == class_index, -jnp.inf, logits).max()
        # A mask of this area has this share of ones, sorted.
        wanted = jnp.arange(whole.size) >= int(whole.size * (1 - options.area))
        return reward - area_weight * jnp.mean((jnp.sort(whole.ravel()) - wanted) ** 2)

    def ascend(t, state):
        parameters, velocity = state
        gradient = jax.grad(energy)(parameters, AREA_WEIGHT * AREA_GROWTH**t, t % 2 == 0)
        damped = MOMENTUM * velocity + (1 - MOMENTUM) * gradient
        velocity = jnp.where(t == 0, gradient, damped)
        return jnp.clip(parameters + LEARNING_RATE * velocity, 0, 1), velocity

    state = (start, jnp.zeros_like(start))
    parameters, _ = jax.lax.fori_loop(0, options.iterations, ascend, state)
    return inside(smooth_mask(parameters, kernel), size, kernel)


@partial(
    jax.jit,
    static_argnames=(
        *("area", "iterations", "step", "sigma", "chunk"),
        *("reward", "border", "after_last_step"),
    ),
)
def ep(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    start: Float[Array, "h w"] | None = None,
    area: float = 0.1,
    iterations: int = 800,
    step: int = 7,
    sigma: float = 21.0,
    chunk: int = 8,
    reward: str = "simple",
    border: str = "mean",
    after_last_step: bool = False,
) -> Float[Array, "B H W"]:
    """The mask that keeps `area` of the image sharp and best preserves the class.

    It maximises a reward of the image blurred outside the mask (mirrored in every second
    iteration), less 300 * 1.0035^t times the mean squared difference of the sorted mask from one
    of the wanted area. The last three options are by default as in the authors' code.

    Args:
        start: The parameters to begin with, in [0, 1], h = ceil(H / step); ones by default.
        area: Share of the mask (margins included) that is 1.
        iterations: Steps of gradient ascent, each a forward and a backward pass.
        step: Pixels between parameters.
        sigma: Reach of a parameter in pixels.
        chunk: Images whose masks are searched together.
        reward: "simple", the class logit, or "contrastive", the class logit less the largest other.
        border: What the blur meets beyond the image: the classifier's "mean" colour, the zeros of
            a normalised image (black for features of the user's own), or "none", where the
            weights inside the image sum to 1.
        after_last_step: Return the mask that the last step leads to. The authors' code returns
            the one before it, so that `iterations` - 1 steps are made.

    Raises:
        InputError: A chunk below 1, no iterations, or another reward or border.
    """
    check_choice("reward", reward, ("simple", "contrastive"))
    check_choice("border", border, ("mean", "none"))
    if iterations < 1:
        raise InputError(f"iterations {iterations}: expected 1 or more")
    if start is None:
        start = jnp.ones([-(-side // step) for side in images.shape[1:3]])
    steps = iterations if after_last_step else iterations - 1
    options = Search(Kernel(step, sigma), area, steps, reward, border)
    return stream(partial(search_mask, clf, start, options), chunk, images, classes)
