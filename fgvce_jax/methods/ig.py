"""Integrated gradients (Sundararajan et al., ICML 2017)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fgvce_jax.errors import InputError
from fgvce_jax.methods.scores import image_gradients
from fgvce_jax.models.classifier import Classifier


def _middle(steps: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1 - steps, steps, 2) / steps, np.full(steps, 2 / steps)


# From a number of steps, points in [-1, 1] and their weights, which sum to 2.
RULES = {"middle": _middle, "gauss_legendre": np.polynomial.legendre.leggauss}


@partial(jax.jit, static_argnames=("steps", "rule"))
def ig(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    steps: int = 50,
    rule: str = "gauss_legendre",
) -> Float[Array, "B H W"]:
    """Integral of the class logit's gradient on the way from black, times the image.

    Summed over channels in absolute value.

    Args:
        steps: Points on the way; one gradient of the whole batch is held at a time.
        rule: Where they lie: "gauss_legendre", or "middle" of equal parts.

    Raises:
        InputError: An unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    points, weights = RULES[rule](steps)
    path = jnp.float32((points + 1) / 2), jnp.float32(weights / 2)

    def add(total, step):
        point, weight = step
        return total + weight * image_gradients(clf, point * images, classes), None

    integral, _ = jax.lax.scan(add, jnp.zeros_like(images), path)
    return jnp.abs(images * integral).sum(-1)
