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
    return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)


def _gauss_legendre(steps: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


# Points in [0, 1] and their weights, which sum to 1.
RULES = {"middle": _middle, "gauss_legendre": _gauss_legendre}


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

    Args:
        clf: Any classifier.
        images: In [0, 1].
        classes: The class that each map explains.
        steps: Points on the way; one gradient of the whole batch is held at a time.
        rule: Where they lie: "gauss_legendre", or "middle" of equal parts.

    Returns:
        Attributions summed over channels in absolute value.

    Raises:
        InputError: An unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    points, weights = (jnp.asarray(values, jnp.float32) for values in RULES[rule](steps))

    def add(total, step):
        point, weight = step
        return total + weight * image_gradients(clf, point * images, classes), None

    integral, _ = jax.lax.scan(add, jnp.zeros_like(images), (points, weights))
    return jnp.abs(images * integral).sum(-1)
