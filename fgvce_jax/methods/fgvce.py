"""FG-VCE under the methods' signature (Zhang et al., Section 3), its ablations, and "+SP".

The weight of the contrastive maps is the contributions s, another attribution (Fig. 3), or the
attribution times s. "Without SP" is `sigma=0`, for the bank as well: masks of single cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.config import SearchConfig
from fgvce_jax.contrast import weighted_difference
from fgvce_jax.explain import explain_cells
from fgvce_jax.heads import searchable
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.partition import contributions as cell_contributions
from fgvce_jax.search import edited_cells

DEFAULT_SEARCH = SearchConfig()

Attribution = Callable[[Classifier, Any, Any], Any]
"""(classifier, images [B, H, W, 3] in [0, 1], classes [B]) -> maps [B, n, n]."""


@partial(jax.jit, static_argnames="sigma")
def contributions(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    sigma: float = 0.8,
) -> Float[Array, "B n n"]:
    """What each cell adds to the class's probability (Eq. 1-4), signed, in [-1, 1].

    Args:
        clf: The classifier.
        images: float32 in [0, 1].
        classes: The class to explain in each image.
        sigma: Width of the Gaussian masks, in cells; 0 masks single cells.
    """
    cells = clf.features(images)
    return jax.vmap(lambda h, c: cell_contributions(clf.head, h, c, sigma))(cells, classes)


def with_sp(
    maps: Float[Array, "B n n"],
    head: Callable[[Any], Any],
    cells: Float[Array, "B n n C"],
    classes: Int[Array, "B"],
    sigma: float | None,
) -> Float[Array, "B n n"]:
    """Maps "+SP" (Table 3): times contributions, clipped at 0 and divided by their maximum.

    All 0 where no cell speaks for the class. Where `sigma` is None, the method is without SP and
    its maps stay as they are.
    """
    if sigma is None:
        return maps
    scores = jax.vmap(lambda h, c: cell_contributions(head, h, c, sigma))(cells, classes)
    scores = jnp.maximum(scores, 0)
    highest = scores.max((-2, -1), keepdims=True)
    return maps * (scores / jnp.where(highest > 0, highest, 1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EditedFeatures:
    """Features in which some cells are replaced, whatever the image: a counterfactual classifier's.

    So an attribution that wants a classifier and an image can be asked about h*, also one that
    looks at many versions of the image (ScoreCAM).

    Attributes:
        features: Images [B, H, W, 3] to cells [B, n, n, C].
        replaced: Which cells are replaced, bool [n, n].
        cells: What they are replaced by, [n, n, C].
    """

    features: Callable[[Any], Any]
    replaced: Bool[Array, "n n"]
    cells: Float[Array, "n n C"]

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B n n C"]:
        """The image's cells, but for those replaced."""
        return jnp.where(self.replaced[..., None], self.cells, self.features(images))


_jitted = partial(jax.jit, static_argnames=("weight", "times_contributions", "config"))


@_jitted
def fgvce(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    *,
    bank: Bank,
    weight: Attribution | None = None,
    times_contributions: bool = False,
    config: SearchConfig = DEFAULT_SEARCH,
) -> tuple[Float[Array, "B n n"], Float[Array, "B n n"]]:
    """The invariant and the dominant map (Eq. 10-11), signed.

    Args:
        clf: The classifier.
        images: float32 in [0, 1].
        classes: P, the class the model says: what the invariant map explains.
        contrast_classes: Q, the correct class: what the dominant map explains.
        bank: Candidates, from `fgvce_jax.build_bank` with the same classifier.
        weight: The attribution that weighs the difference of features, asked about P in the
            image, and about Q in the edited features; by default the contributions s.
        times_contributions: Multiply `weight` by s.
        config: The search.
    """
    cells = clf.features(images)
    found = explain_cells(searchable(clf.head), bank, cells, contrast_classes, config)
    edited, replaced = jax.vmap(_apply_edits, (None, 0, 0, 0, 0))(
        bank, cells, contrast_classes, found.edit_cell, found.edit_candidate
    )
    before = after = jnp.ones(cells.shape[:-1])
    if weight is None or times_contributions:
        score = jax.vmap(lambda h, c: cell_contributions(clf.head, h, c, config.sigma))
        before, after = score(cells, classes), score(edited, contrast_classes)
    if weight is not None:
        before = before * weight(clf, images, classes)
        after = after * _weight_after(weight, clf, images, contrast_classes, replaced, edited)
    return jax.vmap(weighted_difference)(cells, edited, before, after)


def _apply_edits(
    bank: Bank,
    cells: Float[Array, "n n C"],
    target: Int[Array, ""],
    edit_cell: Int[Array, "T"],
    edit_candidate: Int[Array, "T"],
) -> tuple[Float[Array, "n n C"], Bool[Array, "n n"]]:
    """The edited feature map, and which cells were replaced."""
    n = cells.shape[0]
    unused = n * n  # out of bounds, so that the update is dropped
    place = jnp.where(edit_cell < 0, unused, edit_cell)
    source = jnp.full(n * n, -1).at[place].set(edit_candidate, mode="drop")
    edited = edited_cells(cells, jnp.asarray(bank.cells)[bank.group(target)], source)
    return edited, (source >= 0).reshape(n, n)


def _weight_after(
    weight: Attribution,
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    targets: Int[Array, "B"],
    replaced: Bool[Array, "B n n"],
    edited: Float[Array, "B n n C"],
) -> Float[Array, "B n n"]:
    """The attribution of Q in every sample's edited features, one sample after another."""

    def one(sample):
        image, target, replaced, edited = sample
        counterfactual = replace(clf, features=EditedFeatures(clf.features, replaced, edited))
        return weight(counterfactual, image[None], target[None])[0]

    return jax.lax.map(one, (images, targets, replaced, edited))


@_jitted
def fgvce_invariant(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    **options: Any,
) -> Float[Array, "B n n"]:
    """What spoke for P and had to go (Eq. 10); it explains P. See `fgvce` for the options."""
    return fgvce(clf, images, classes, contrast_classes, **options)[0]


@_jitted
def fgvce_dominant(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    **options: Any,
) -> Float[Array, "B n n"]:
    """What decides for Q once it is there (Eq. 11); it explains Q. See `fgvce` for the options."""
    return fgvce(clf, images, classes, contrast_classes, **options)[1]
