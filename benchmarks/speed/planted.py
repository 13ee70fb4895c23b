"""Networks of random weights whose explanations are real work: every search takes 3 to 8 edits.

For machines without datasets or checkpoints. Needs jax, flax, optax, numpy and the package only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.bank import Bank
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.explain import Explanation, explain_cells
from fgvce_jax.heads import Dense, PooledLinear, searchable
from fgvce_jax.models import Classifier, ModelSpec, build
from fgvce_jax.models.classifier import cells_of

FEWEST, MOST = 3, 8
"""Edits of a sample; the paper's samples and ours need about as many."""


@dataclass(frozen=True)
class Planted:
    """A classifier, images it gets wrong, and a bank.

    Attributes:
        clf: The classifier, random weights.
        images: float32 [B, H, W, 3] in [0, 1].
        labels: The class each should have, int32 [B].
        bank: Candidates for every class.
    """

    clf: Classifier
    images: jax.Array
    labels: np.ndarray
    bank: Bank

    def explain(self, clf: Classifier | None = None) -> Explanation:
        """Explain the batch as a run does; the bank is there already."""
        clf = clf or self.clf
        return explain_cells(
            searchable(clf.head),
            self.bank.for_targets(self.labels),
            cells_of(clf, self.images),
            self.labels,
            config=SearchConfig(),
            devices=tuple(jax.local_devices()),
        )

    def same_edits_as_float32(self) -> float:
        """Share of the images whose edits are the same as with a float32 backbone."""
        exact = replace(self.clf, features=self.clf.features.astype("float32"))
        return float(same_edits(self.explain(), self.explain(exact)).mean())


def same_edits(a: Explanation, b: Explanation, first: int | None = None) -> np.ndarray:
    """Whether two explanations have the same (`first`) edits in the same order, bool [B]."""
    return np.all(
        [
            np.asarray(getattr(a, name))[:, :first] == np.asarray(getattr(b, name))[:, :first]
            for name in ("edit_cell", "edit_candidate")
        ],
        axis=(0, 2),
    )


def planted(
    arch: str = "resnet50",
    batch: int = 16,
    *,
    classes: int = 200,
    image_size: int = 224,
    cut: str | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> Planted:
    """Random weights and images, and candidates that carry evidence for their class."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    clf = build(ModelSpec(arch, cut), classes, image_size, next(keys))
    clf = _with_busy_branches(clf, next(keys)).astype(dtype)
    images = jax.random.uniform(next(keys), (batch, image_size, image_size, 3))
    # A picture has large structures: noise alone gives every image the same features.
    coarse = jax.random.uniform(next(keys), (batch, 7, 7, 3))
    images = 0.3 * images + 0.7 * jax.image.resize(coarse, images.shape, "cubic").clip(0, 1)
    size = min(16, batch)
    cells = [cells_of(clf, images[i : i + size]) for i in range(0, batch, size)]
    head, bank, labels, _ = plant(
        clf.head, jnp.concatenate(cells), BankConfig(sigma=SearchConfig.sigma), classes, seed
    )
    if jax.default_backend() != "cpu":
        bank = jax.device_put(bank)
    return Planted(replace(clf, head=head), images, labels, bank)


def plant(
    head: Any, cells: jax.Array, config: BankConfig, classes: int, seed: int = 0
) -> tuple[Any, Bank, np.ndarray, np.ndarray]:
    """A head that tells the feature maps apart, and a bank and labels that give it real work.

    Candidates of class c are cells of the images plus some of c's own direction. How much, and
    which class is called correct for which image, is chosen so that the search takes 3 to 8 edits.

    Returns:
        The head, the bank, and the label and number of edits of each feature map.
    """
    head = _spread(head, cells)
    directions = _directions(head, cells.mean(0))
    real = jax.random.choice(
        jax.random.key(seed),
        cells.reshape(-1, cells.shape[-1]),
        (classes, config.per_class * config.top_m),
    )
    evidence = directions[:, None] * jnp.linalg.norm(cells.std(0).mean((0, 1)))
    # More evidence, fewer edits. Every strength is tried on a few classes per image.
    for strength in (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0):
        bank = _bank(head, jnp.maximum(real + strength * evidence, 0), config)
        labels, edits = _choose_labels(head, bank, cells, np.random.default_rng(seed))
        if np.all((edits >= FEWEST) & (edits <= MOST)):
            return head, bank, labels, edits
    raise RuntimeError(f"no strength gives {FEWEST} to {MOST} edits for every image: {edits}")


def _with_busy_branches(clf: Classifier, key: jax.Array) -> Classifier:
    """Every normalisation layer scales by something other than 0, so that no work is trivial."""

    def stir(path, leaf):
        if "scale" in jax.tree_util.keystr(path):
            return 0.5 + 0.5 * jax.random.uniform(key, leaf.shape)
        return leaf

    params = jax.tree_util.tree_map_with_path(stir, clf.features.params)
    return replace(clf, features=replace(clf.features, params=params))


def _spread(head: Any, cells: jax.Array) -> Any:
    """The head made to look at the differences of the images.

    Random features differ more between places than between images. What all images have in common
    at a place is taken out of the first layer's reach, and the last layer is scaled so that images
    differ in their logits and none is certain.
    """
    common = cells.mean(0).reshape(-1, cells.shape[-1])
    basis = jnp.linalg.qr(common.T)[0]

    def blind(kernel: jax.Array) -> jax.Array:
        return kernel - basis @ (basis.T @ kernel)

    def spread(head: Any, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = jax.lax.map(head, cells[:64])
        scale = 2 / (logits - logits.mean(0)).std().clip(1e-9)
        return kernel * scale, (bias - logits.mean(0)) * scale

    if isinstance(head, PooledLinear | Dense):
        head = replace(head, kernel=blind(head.kernel))
    if isinstance(head, PooledLinear):
        head = PooledLinear(*spread(head, head.kernel, head.bias))
    elif isinstance(head, Dense):
        head = replace(head, layers=(*head.layers[:-1], spread(head, *head.layers[-1])))
    return head


@jax.jit
def _directions(head: Callable[[Any], Any], cells: jax.Array) -> jax.Array:
    """What raises each class's logit, on average over cells: unit vectors [K, C]."""
    slopes = jax.jacrev(head)(cells).mean((1, 2))
    slopes = slopes - slopes.mean(0)
    return slopes / jnp.linalg.norm(slopes, axis=-1, keepdims=True)


def _choose_labels(
    head: Any, bank: Bank, cells: jax.Array, rng: np.random.Generator, tries: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """For each image, a class whose search takes 3 to 8 edits, where one of `tries` does.

    The wanted number of edits goes round from image to image, so that a batch has all of them.
    """
    wanted = FEWEST + np.arange(len(cells)) % (MOST - FEWEST + 1)
    config = SearchConfig(max_iterations=MOST + 1, chunk=min(16, len(cells)))
    devices = tuple(jax.local_devices()[:1])
    labels, edits = np.zeros(len(cells), np.int32), np.full(len(cells), 10**6)
    for _ in range(tries):
        trial = rng.integers(len(bank.cells), size=len(cells)).astype(np.int32)
        candidates = bank.for_targets(trial)
        out = explain_cells(
            searchable(head), candidates, cells, trial, config=config, devices=devices
        )
        found = np.where(out.flipped, out.num_edits, 10**6)
        inside = (found >= FEWEST) & (found <= MOST)
        better = inside & (np.abs(found - wanted) < np.abs(edits - wanted))
        labels, edits = np.where(better, trial, labels), np.where(better, found, edits)
    return labels, edits


def _bank(head: Any, cells: jax.Array, config: BankConfig) -> Bank:
    """A bank that holds `cells` [K, N, C]."""
    k, count, _ = cells.shape
    place = np.tile(np.arange(count, dtype=np.int32), (k, 1))
    return jax.device_get(
        Bank(
            cells=cells,
            norms=jnp.linalg.norm(cells, axis=-1),
            prepared=searchable(head).prepare(cells),
            valid=np.ones((k, count), bool),
            group=np.arange(k, dtype=np.int32),
            image=place // config.top_m,
            cell=place % config.top_m,
            references=np.full(k, config.per_class, np.int32),
            config=config,
        )
    )
