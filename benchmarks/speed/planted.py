"""Networks of random weights whose explanations are real work: every search takes 3 to 8 edits.

For machines without datasets or checkpoints. Needs jax, flax, optax, numpy and the package only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.bank import Bank
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.explain import Explanation, explain_cells
from fgvce_jax.heads import ClassToken, Dense, PooledLinear, searchable
from fgvce_jax.models import Classifier, ModelSpec, build
from fgvce_jax.models.chain_head import ChainHead
from fgvce_jax.models.classifier import FeatureMap, feature_map_of

FEWEST, MOST = 3, 8
"""Edits of a sample; the paper's samples and ours need about as many."""
LEVELS, STRENGTHS = 24, (0.01, 8.0)
"""Strengths of evidence that are tried, from the weakest to the strongest."""


class Planted(NamedTuple):
    """A classifier of random weights, images it gets wrong, their labels, and a bank."""

    clf: Classifier
    images: jax.Array
    labels: np.ndarray
    bank: Bank


def same_edits(a: Explanation, b: Explanation, first: int | None = None) -> np.ndarray:
    """Whether two explanations have the same (`first`) edits in the same order, bool [B]."""
    ours, theirs = (np.stack([out.edit_cell, out.edit_candidate])[..., :first] for out in (a, b))
    return (ours == theirs).all((0, 2))


def searching(
    head: Any,
    bank: Bank,
    feature_map: FeatureMap,
    labels: np.ndarray,
    devices: Sequence[jax.Device] | None = None,
    *,
    search: SearchConfig = SearchConfig(),
    **config: Any,
) -> Callable[[], Explanation]:
    """The search of some images and its maps as a function; features and candidates are there."""
    devices = tuple(devices or jax.local_devices())
    candidates = bank.for_targets(labels, rivals_of(head, feature_map, search))
    arguments = searchable(head), candidates, feature_map, labels
    if len(devices) == 1:
        arguments = jax.device_put(arguments)
    config = {"config": replace(search, **config), "devices": devices}
    return partial(explain_cells, *arguments, **config)


def rivals_of(head: Any, feature_map: FeatureMap, search: SearchConfig) -> np.ndarray | None:
    """The predicted classes where the search asks for their candidates too."""
    if search.evidence != "matched":
        return None
    return np.asarray(jax.lax.map(partial(_logits, head), feature_map).argmax(-1))


def planted(
    arch: str = "resnet50",
    batch: int = 16,
    *,
    classes: int = 200,
    image_size: int = 224,
    cut: str | None = None,
    dtype: str = "float32",
    seed: int = 0,
    search: SearchConfig = SearchConfig(),
) -> Planted:
    """Random weights and images, and candidates that carry evidence for their class."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    clf = build(ModelSpec(arch, cut), classes, image_size, next(keys))
    key = next(keys)

    def stir(path, leaf):  # no normalisation layer scales by 0, so that no work is trivial
        if "scale" in jax.tree_util.keystr(path):
            return 0.5 + 0.5 * jax.random.uniform(key, leaf.shape)
        return leaf

    params = jax.tree_util.tree_map_with_path(stir, clf.features.params)
    clf = replace(clf, features=replace(clf.features, params=params)).astype(dtype)
    images = jax.random.uniform(next(keys), (batch, image_size, image_size, 3))
    # A picture has large structures: noise alone gives every image the same features.
    coarse = jax.random.uniform(next(keys), (batch, 7, 7, 3))
    images = 0.3 * images + 0.7 * jax.image.resize(coarse, images.shape, "cubic").clip(0, 1)
    parts = [feature_map_of(clf, images[i : i + 16]) for i in range(0, batch, 16)]
    out = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    config = BankConfig(sigma=search.sigma)
    config = replace(config, top_m=None) if search.evidence == "matched" else config
    head, bank, labels, _ = plant(clf.head, out, config, classes, search)
    if jax.default_backend() != "cpu":
        bank = jax.device_put(bank)
    return Planted(replace(clf, head=head), images, labels, bank)


def plant(
    head: Any,
    feature_map: FeatureMap,
    config: BankConfig,
    classes: int,
    search: SearchConfig = SearchConfig(),
) -> tuple[Any, Bank, np.ndarray, np.ndarray]:
    """A head that tells the images apart, a bank, and each image's label and number of edits.

    Candidates of class c are cells of the images plus some of c's own direction. How much, and
    which class is called correct for which image, is chosen so that the search takes 3 to 8 edits.
    """
    head, cells = _spread(head, feature_map), feature_map.cells
    flat = cells.reshape(-1, cells.shape[-1])
    cells_each = config.top_m or cells.shape[1] * cells.shape[2]
    shape = (classes, config.per_class * cells_each)
    real = jax.random.choice(jax.random.key(0), flat, shape)
    evidence = _directions(head, jax.tree.map(lambda leaf: leaf.mean(0), feature_map))
    evidence = evidence * jnp.linalg.norm(cells.std(0).mean((0, 1)))
    # More evidence, fewer edits: the classes' strengths go through a wide range again and again.
    levels = np.arange(classes) % min(classes, LEVELS)
    strength = np.geomspace(*STRENGTHS, levels.max() + 1)[levels]
    candidates = real + strength[:, None, None] * evidence[:, None]
    # Behind a ReLU there is nothing below 0.
    candidates = jnp.maximum(candidates, jnp.where((cells >= 0).all(), 0, -jnp.inf))
    bank = bank_of(head, candidates, config)
    labels, edits = _choose_labels(head, bank, feature_map, levels, search)
    if not np.all((edits >= FEWEST) & (edits <= MOST)):
        raise RuntimeError(f"not every image has a class of {FEWEST} to {MOST} edits: {edits}")
    return head, bank, labels, edits


def _spread(head: Any, feature_map: FeatureMap) -> Any:
    """The head made to look at the differences of the images.

    Random features differ more between places than between images. What all images have in common
    at a place is taken out of the reach of a first layer that reads the cells themselves, and the
    last layer is changed so that images differ in their logits and none is certain. Of a head with
    layers of its own, this is done behind them.
    """
    cells = feature_map.cells
    if isinstance(head, ChainHead):
        behind = FeatureMap(jax.lax.map(head.behind, cells))
        return replace(head, head=_spread(head.head, behind))
    if isinstance(head, PooledLinear | Dense):
        basis = jnp.linalg.qr(cells.mean(0).reshape(-1, cells.shape[-1]).T)[0]
        head = replace(head, kernel=head.kernel - basis @ (basis.T @ head.kernel))
    few = jax.tree.map(lambda leaf: leaf[:64], feature_map)
    logits = jax.lax.map(partial(_logits, head), few)
    mean = logits.mean(0)
    scale = 2 / (logits - mean).std().clip(1e-9)

    def last(kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        return kernel * scale, (bias - mean) * scale

    if isinstance(head, Dense):
        return replace(head, layers=(*head.layers[:-1], last(*head.layers[-1])))
    if isinstance(head, ClassToken):
        return replace(head, outputs=tuple(last(*layer) for layer in head.outputs))
    kernel, bias = last(head.kernel, head.bias)
    return replace(head, kernel=kernel, bias=bias)


def _logits(head: Callable[..., Any], of_image: FeatureMap) -> jax.Array:
    cells, context = of_image
    return head(cells) if context is None else head(cells, context)


@jax.jit
def _directions(head: Callable[..., Any], of_image: FeatureMap) -> jax.Array:
    """Directions that raise each class's logit, on average over cells: unit vectors [K, C]."""
    slopes = jax.jacrev(lambda cells: _logits(head, of_image._replace(cells=cells)))
    of_classes = slopes(of_image.cells).mean((1, 2))
    of_classes = of_classes - of_classes.mean(0)
    return of_classes / jnp.linalg.norm(of_classes, axis=-1, keepdims=True)


def _choose_labels(
    head: Any, bank: Bank, feature_map: FeatureMap, levels: np.ndarray, search: SearchConfig
) -> tuple[np.ndarray, np.ndarray]:
    """For each image a class whose search takes 3 to 8 edits, by bisection; and its edits.

    The wanted number of edits goes round from image to image, so that a batch has all of them.
    `levels` are the strengths of the classes' evidence; of the classes of one, those that are more
    probable are asked for.
    """
    rng, count, too_many = np.random.default_rng(0), len(feature_map.cells), 10**6
    wanted = FEWEST + np.arange(count) % (MOST - FEWEST + 1)
    options = {"max_iterations": MOST + 1, "chunk": min(16, count)}
    labels, edits = np.zeros(count, np.int32), np.full(count, too_many)
    low, high = np.zeros(count, int), np.full(count, levels.max())
    logits = np.asarray(jax.lax.map(partial(_logits, head), feature_map))

    def some_class(of_image: np.ndarray, level: int) -> int:
        known = np.flatnonzero(levels == level)
        return rng.choice(known[np.argsort(-of_image[known])][: -(-len(known) // 2)])

    for _ in range(16):
        middle = (low + high) // 2
        trial = np.int32(list(map(some_class, logits, middle)))
        problem = head, bank, feature_map, trial, jax.local_devices()[:1]
        out = searching(*problem, search=search, **options)()
        found = np.where(out.flipped, out.num_edits, too_many)
        inside = (found >= FEWEST) & (found <= MOST)
        better = inside & (np.abs(found - wanted) < np.abs(edits - wanted))
        labels, edits = np.where(better, trial, labels), np.where(better, found, edits)
        if np.array_equal(edits, wanted):
            break
        low, high = np.where(found > wanted, middle, low), np.where(found < wanted, middle, high)
        # Classes of one strength differ: around the end of a bisection others are tried.
        ended = high - low <= 1
        low, high = np.where(ended, low - 2, low), np.where(ended, high + 2, high)
        low, high = low.clip(0), high.clip(max=levels.max())
    return labels, edits


def bank_of(head: Any, cells: jax.Array, config: BankConfig) -> Bank:
    """A bank that holds `cells` [K, N, C]."""
    k, count, _ = cells.shape
    place = np.tile(np.arange(count, dtype=np.int32), (k, 1))
    bank = Bank(
        cells=cells,
        norms=jnp.linalg.norm(searchable(head).compared(cells), axis=-1),
        prepared=searchable(head).prepare(cells),
        valid=np.ones((k, count), bool),
        group=np.arange(k, dtype=np.int32),
        image=place // (count // config.per_class),
        cell=place % (count // config.per_class),
        references=np.full(k, config.per_class, np.int32),
        config=config,
    )
    return jax.device_get(bank)
