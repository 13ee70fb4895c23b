"""CE: why P, rather than Q (Prabhushankar et al., ICIP 2020)."""

from __future__ import annotations

from functools import partial

import jax
from jaxtyping import Array, Float, Int

from fgvce_jax.methods.cams import gradcam_weights
from fgvce_jax.methods.scores import with_sp
from fgvce_jax.models.classifier import Classifier, head_of


@partial(jax.jit, static_argnames="sp_sigma")
def ce(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    *,
    sp_sigma: float | None = None,
) -> Float[Array, "B n n"]:
    """GradCAM of the cross-entropy J(logits, Q) in the place of a class logit; 0 or more.

    High where a stronger activation would move the model further from Q. `sp_sigma` is that of
    `with_sp`, by the contributions to P; nothing else depends on P.
    """
    feature_map = clf.feature_map(images)

    def one(of_image, contrast):
        head, cells = head_of(clf, of_image), of_image.cells

        def loss(cells):
            return -jax.nn.log_softmax(head(cells))[contrast]

        return jax.nn.relu(cells @ gradcam_weights(cells, jax.grad(loss)(cells)))

    with jax.default_matmul_precision("highest"):
        maps = jax.vmap(one)(feature_map, contrast_classes)
    return with_sp(maps, clf, feature_map, classes, sp_sigma)
