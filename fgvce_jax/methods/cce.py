"""CCE: the change of a saliency map under an attack that makes the model predict Q.

"Counterfactual-based Saliency Map: Towards Visual Contrastive Explanations for Neural Networks"
(Wang et al., ICCV 2023), with projected gradient descent (Madry et al., 2017) as its attack.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.methods.cams import gradcam
from fgvce_jax.methods.fgvce import Attribution
from fgvce_jax.methods.scores import with_sp
from fgvce_jax.models.classifier import Classifier


class Attack(NamedTuple):
    """The attacked images, in [0, 1], whether the target is predicted now, and the steps made."""

    images: Float[Array, "B H W 3"]
    flipped: Bool[Array, "B"]
    num_steps: Int[Array, "B"]


@jax.jit
def pgd(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    targets: Int[Array, "B"],
    *,
    eps: float | Float[Array, ""] = 0.1,
    step: float | Float[Array, ""] = 0.05,
    steps: int | Int[Array, ""] = 20,
    noise: Float[Array, "B H W 3"] | None = None,
) -> Attack:
    """Targeted projected gradient descent: steps against the sign of d J(logits, target) / d image.

    Every step is projected on the ball of `eps` (maximum norm) around the image and on [0, 1]. An
    image's attack ends as soon as its target is predicted.

    Args:
        targets: The class each should be classified as.
        eps: Largest change of a value, in units of [0, 1].
        step: Change of a value in one step, in the same units.
        steps: Most steps.
        noise: Added to the images before the first step (projected); none by default.
    """

    def one(image, target, noise):
        def project(attacked):
            return jnp.clip(jnp.clip(attacked, image - eps, image + eps), 0, 1)

        def loss(attacked):
            logits = clf(attacked[None])[0]
            return -jax.nn.log_softmax(logits)[target], jnp.argmax(logits) == target

        # One pass forward and back serves the end of this step and the start of the next.
        probe = jax.grad(loss, has_aux=True)

        def attacking(state):
            _, _, flipped, count = state
            return ~flipped & (count < steps)

        def descend(state):
            attacked, gradient, _, count = state
            attacked = project(attacked - step * jnp.sign(gradient))
            return attacked, *probe(attacked), count + 1

        start = project(image + noise)
        state = (start, *probe(start), jnp.array(0))
        attacked, _, flipped, count = jax.lax.while_loop(attacking, descend, state)
        return Attack(attacked, flipped, count)

    return jax.vmap(one)(images, targets, jnp.zeros_like(images) if noise is None else noise)


@partial(jax.jit, static_argnames=("region", "attribution", "sp_sigma"))
def cce(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    *,
    region: Literal["invariant", "dominant"] = "invariant",
    attribution: Attribution = gradcam,
    eps: float | Float[Array, ""] = 0.1,
    step: float | Float[Array, ""] = 0.05,
    steps: int | Int[Array, ""] = 20,
    noise: Float[Array, "B H W 3"] | None = None,
    sp_sigma: float | None = None,
) -> Float[Array, "B n n"]:
    """ReLU difference of a class's saliency in the image and in the image attacked towards Q.

    invariant: ReLU(M_P(image) - M_P(attacked)), the evidence for P that is lost; explains P.
    dominant: ReLU(M_Q(attacked) - M_Q(image)), the evidence for Q that is gained; explains Q.
    Where the attack fails, `attacked` is its last image.

    Args:
        region: Which of the two maps.
        attribution: The saliency M (Fig. 3 of FG-VCE compares several).
        eps: The attack, see `pgd`.
        step: Likewise.
        steps: Likewise.
        noise: Likewise.
        sp_sigma: That of `with_sp`, by the contributions to the class that the map explains, in
            the image of which that class is predicted: P in the original, Q in the attacked one.
    """
    attack = pgd(clf, images, contrast_classes, eps=eps, step=step, steps=steps, noise=noise)
    if region == "invariant":
        explained, with_it, without = classes, images, attack.images
    else:
        explained, with_it, without = contrast_classes, attack.images, images
    maps = jax.nn.relu(attribution(clf, with_it, explained) - attribution(clf, without, explained))
    return with_sp(maps, clf, clf.feature_map(with_it), explained, sp_sigma)
