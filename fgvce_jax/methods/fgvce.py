"""FG-VCE under the methods' signature (Zhang et al., Section 3), and its ablations.

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
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from fgvce_jax.bank import Bank, Candidates
from fgvce_jax.config import MATCHED, SearchConfig
from fgvce_jax.contrast import weighted_difference
from fgvce_jax.explain import each_problem
from fgvce_jax.greedy import Problem, edited_cells
from fgvce_jax.heads import searchable
from fgvce_jax.methods.scores import contributions_of
from fgvce_jax.models.classifier import Classifier, FeatureMap
from fgvce_jax.search import Counterfactual, matched_weight, result, search

Attribution = Callable[[Classifier, Any, Any], Any]
"""(classifier, images [B, H, W, 3] in [0, 1], classes [B]) -> maps [B, n, n]."""


@partial(jax.jit, static_argnames="sigma")
def contribution_maps(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    sigma: float = SearchConfig.sigma,
) -> Float[Array, "B n n"]:
    """The contribution of each cell to the class's probability (Eq. 1-4), signed, in [-1, 1].

    `sigma` is the width of the Gaussian masks, in cells; 0 masks single cells.
    """
    return contributions_of(clf, clf.feature_map(images), classes, sigma)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EditedFeatures:
    """Features in which some cells are replaced, whatever the image: a counterfactual classifier's.

    So an attribution that wants a classifier and an image can be asked about h*, also one that
    looks at many versions of the image (ScoreCAM).

    Attributes:
        features: Images [B, H, W, 3] to cells [B, n, n, C] (and context).
        replaced: Which cells are replaced.
        cells: The cells in their place.
    """

    features: Callable[[Any], Any]
    replaced: Bool[Array, "n n"]
    cells: Float[Array, "n n C"]

    def __call__(self, images: Float[ArrayLike, "B H W 3"]) -> FeatureMap:
        """Cells of images, but for those replaced."""
        cells, context = FeatureMap.of(self.features(images))
        return FeatureMap(jnp.where(self.replaced[..., None], self.cells, cells), context)


def fgvce(
    clf: Classifier,
    images: Float[Any, "B H W 3"],
    classes: Int[Any, "B"],
    contrast_classes: Int[Any, "B"],
    *,
    bank: Bank,
    weight: Attribution | None = None,
    times_contributions: bool = False,
    config: SearchConfig = SearchConfig(),
) -> tuple[Float[Array, "B n n"], Float[Array, "B n n"]]:
    """The invariant map, which explains P, and the dominant, which explains Q (Eq. 10-11), signed.

    Args:
        classes: P, the predicted class.
        contrast_classes: Q, the correct class.
        bank: Candidates, from `fgvce_jax.build_bank` with the same classifier and sigma.
        weight: The attribution that weighs the difference of features, asked about P in the
            image, and about Q in the edited features; by default the contributions s.
        times_contributions: Multiply `weight` by s.
        config: The search.

    Raises:
        InputError: A bank of another classifier, or one built with another sigma.
    """
    bank.check(clf, config)
    matched = config.evidence == "matched"
    candidates = bank.for_targets(contrast_classes, classes if matched else None)
    samples = images, classes, contrast_classes, candidates
    return weighted_maps(clf, *samples, weight, times_contributions, config)


@partial(jax.jit, static_argnames=("weight", "times_contributions", "config"))
def weighted_maps(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    contrast_classes: Int[Array, "B"],
    candidates: Candidates,
    weight: Attribution | None,
    times_contributions: bool,
    config: SearchConfig,
) -> tuple[Float[Array, "B n n"], Float[Array, "B n n"]]:
    """`fgvce`, with the candidates of this batch."""

    def edit(problem: Problem, predicted: Int[Array, ""]):
        end = search(problem, config).end
        replaced = (end.source >= 0).reshape(problem.cells.shape[:2])
        edited = edited_cells(problem.cells, problem.candidates.cells, end.source)
        weights = None
        if config.evidence == "matched":
            weights = (
                matched_weight(problem, problem.cells, predicted),
                matched_weight(problem, edited, predicted, of_target=True),
            )
        return edited, replaced, weights

    head, targets, margin = searchable(clf.head), contrast_classes, config.evidence == "margin"
    feature_map = clf.feature_map(images)
    cells = feature_map.cells
    edited, replaced, weights = each_problem(
        edit, head, candidates, feature_map, targets, config.chunk, jnp.asarray(classes)
    )
    before = after = jnp.ones(cells.shape[:-1])
    if weights is not None and (weight is None or times_contributions):
        before, after = weights
    elif weight is None or times_contributions:
        before, after = (
            contributions_of(clf, at_cut, of, config.sigma, against if margin else None)
            for at_cut, of, against in (
                (feature_map, classes, targets),
                (feature_map._replace(cells=edited), targets, classes),
            )
        )
    if weight is not None:

        def weight_after(sample):
            image, target, *edits = sample
            counterfactual = replace(clf, features=EditedFeatures(clf.features, *edits))
            return weight(counterfactual, image[None], target[None])[0]

        before = before * weight(clf, images, classes)
        after = after * jax.lax.map(weight_after, (images, targets, replaced, edited))
    return jax.vmap(weighted_difference)(cells, edited, before, after)


@partial(jax.jit, static_argnames="config")
def fgvce_edits(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    targets: Int[Array, "B"],
    candidates: Candidates,
    config: SearchConfig,
    orders: Float[Array, "B cells"] | None = None,
) -> Counterfactual:
    """The search of a batch by itself; every field gains a leading axis B.

    Args:
        targets: Q, the class each should be classified as.
        candidates: From `Bank.for_targets`, usually of the same classes.
        config: The search.
        orders: Of the cells, in the place of their contributions; see `fgvce_proposal`.
    """

    def edits(problem: Problem, *order: Any) -> Counterfactual:
        found = search(problem, config, *order)
        return result(problem, found.end, found.similarity)

    head, more = searchable(clf.head), () if orders is None else (orders,)
    feature_map = clf.feature_map(images)
    return each_problem(edits, head, candidates, feature_map, targets, config.chunk, *more)


def fgvce_invariant(*arguments: Any, **options: Any) -> Float[Array, "B n n"]:
    """The evidence for P that had to go (Eq. 10); it explains P. Arguments of `fgvce`."""
    return fgvce(*arguments, **options)[0]


def fgvce_dominant(*arguments: Any, **options: Any) -> Float[Array, "B n n"]:
    """The evidence for Q that replaced it (Eq. 11); it explains Q. Arguments of `fgvce`."""
    return fgvce(*arguments, **options)[1]


def fgvce_matched_invariant(*arguments: Any, **options: Any) -> Float[Array, "B n n"]:
    """As `fgvce_invariant`, by the search with matched evidence (`fgvce_jax.config.MATCHED`)."""
    return fgvce_invariant(*arguments, **{"config": MATCHED} | options)


def fgvce_matched_dominant(*arguments: Any, **options: Any) -> Float[Array, "B n n"]:
    """As `fgvce_dominant`, by the search with matched evidence (`fgvce_jax.config.MATCHED`)."""
    return fgvce_dominant(*arguments, **{"config": MATCHED} | options)
