"""What the benchmarks share: problems with realistic work, timing, memory, the machine's name.

Everything here needs jax, flax, optax, numpy and this package only, so that it runs on a bare
accelerator machine.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.bank import Bank
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.explain import Explanation, explain_cells
from fgvce_jax.heads import Dense, PooledLinear, searchable
from fgvce_jax.models import Classifier, ModelSpec, build

FEWEST, MOST = 3, 8
"""Edits of a sample in the planted problems; the paper's samples and ours need about as many."""


def machine() -> dict[str, Any]:
    """The machine by its processor and accelerator types, and the versions that matter."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": None if device.platform == "cpu" else device.device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(machine: dict[str, Any]) -> str:
    """One line for a table's caption."""
    where = machine["accelerator"] or f"{machine['cores']} cores of {machine['processor']}"
    return f"{where}, jax {machine['jax']}"


def median_times(
    functions: Sequence[Callable[[], Any]], repeats: int = 7, warm_up: int = 1
) -> list[float]:
    """Median seconds of each function, run in turn (A B A B ...) so that drift hits them alike."""
    for _ in range(warm_up):
        for function in functions:
            jax.block_until_ready(function())
    seconds = np.zeros((repeats, len(functions)))
    for r in range(repeats):
        for f, function in enumerate(functions):
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[r, f] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist()


def device_peak_bytes() -> int | None:
    """Most memory that the first device has held in this process; None where it does not say."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("peak_bytes_in_use") if stats else None


@dataclass(frozen=True)
class Problem:
    """A classifier, images it gets wrong, and a bank; every search takes 3 to 8 edits.

    Attributes:
        clf: The classifier, random weights.
        images: float32 [B, H, W, 3] in [0, 1].
        labels: The class each should have, int32 [B].
        bank: Candidates for every class.
        edits: Edits that the search takes for each, int [B].
    """

    clf: Classifier
    images: jax.Array
    labels: jax.Array
    bank: Bank
    edits: np.ndarray


def planted_problem(
    arch: str = "resnet50",
    batch: int = 16,
    *,
    classes: int = 200,
    per_class: int = 20,
    top_m: int = 10,
    image_size: int = 224,
    cut: str | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> Problem:
    """Random weights and images, and candidates that carry evidence for their class."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    clf = build(ModelSpec(arch, cut), classes, image_size, next(keys))
    clf = _with_busy_branches(clf, next(keys)).astype(dtype)
    images = jax.random.uniform(next(keys), (batch, image_size, image_size, 3))
    # A picture has large structures: noise alone gives every image the same features.
    coarse = jax.random.uniform(next(keys), (batch, 7, 7, 3))
    images = 0.3 * images + 0.7 * jax.image.resize(coarse, images.shape, "cubic").clip(0, 1)
    cells = _features_in_batches(clf, images)
    head, bank, labels, edits = plant(
        clf.head, cells, classes=classes, per_class=per_class, top_m=top_m, seed=seed
    )
    return Problem(replace(clf, head=head), images, labels, bank, edits)


def plant(
    head: Any, cells: jax.Array, *, classes: int, per_class: int, top_m: int, seed: int = 0
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
        jax.random.key(seed), cells.reshape(-1, cells.shape[-1]), (classes, per_class * top_m)
    )
    evidence = directions[:, None] * jnp.linalg.norm(cells.std(0).mean((0, 1)))
    # More evidence, fewer edits. Every strength is tried on a few classes per image.
    for strength in (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0):
        candidates = jnp.maximum(real + strength * evidence, 0)
        bank = _bank(head, candidates, per_class, top_m)
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

    features = clf.features
    return replace(
        clf,
        features=replace(features, params=jax.tree_util.tree_map_with_path(stir, features.params)),
    )


@jax.jit
def _features(clf: Classifier, images: jax.Array) -> jax.Array:
    return clf.features(images)


def _features_in_batches(clf: Classifier, images: jax.Array, size: int = 16) -> jax.Array:
    size = min(size, len(images))
    return jnp.concatenate(
        [_features(clf, images[i : i + size]) for i in range(0, len(images), size)]
    )


def _spread(head: Any, cells: jax.Array) -> Any:
    """The head made to look at what tells images apart.

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

    if isinstance(head, PooledLinear):
        head = replace(head, kernel=blind(head.kernel))
        head = PooledLinear(*spread(head, head.kernel, head.bias))
    elif isinstance(head, Dense):
        head = replace(head, kernel=blind(head.kernel))
        head = replace(head, layers=(*head.layers[:-1], spread(head, *head.layers[-1])))
    return head


@jax.jit
def _directions(head: Any, cells: jax.Array) -> jax.Array:
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
    search = jax.jit(explain_cells, static_argnames="config")
    config = SearchConfig(max_iterations=MOST + 1, chunk=min(16, len(cells)))
    labels, edits = np.zeros(len(cells), np.int32), np.full(len(cells), 10**6)
    for _ in range(tries):
        trial = rng.integers(len(bank.cells), size=len(cells)).astype(np.int32)
        out: Explanation = search(searchable(head), bank, cells, trial, config)
        found = np.where(out.flipped, out.num_edits, 10**6)
        inside = (found >= FEWEST) & (found <= MOST)
        better = inside & (np.abs(found - wanted) < np.abs(edits - wanted))
        labels, edits = np.where(better, trial, labels), np.where(better, found, edits)
    return labels, edits


def _bank(head: Any, cells: jax.Array, per_class: int, top_m: int) -> Bank:
    """A bank that holds `cells` [K, N, C]."""
    k, count, _ = cells.shape
    return jax.device_get(
        Bank(
            cells=cells,
            norms=jnp.linalg.norm(cells, axis=-1),
            prepared=searchable(head).prepare(cells),
            valid=jnp.ones((k, count), bool),
            image=jnp.tile(jnp.arange(count, dtype=jnp.int32) // top_m, (k, 1)),
            cell=jnp.tile(jnp.arange(count, dtype=jnp.int32) % top_m, (k, 1)),
            references=jnp.full(k, per_class, jnp.int32),
            config=BankConfig(per_class, top_m),
        )
    )


def explainer(problem: Problem, clf: Classifier | None = None) -> Callable[[], Explanation]:
    """A function that explains the problem's batch as a run does: the bank is there already."""
    from fgvce_jax.explain import explain_images

    clf = clf or problem.clf
    bank = problem.bank
    if jax.default_backend() != "cpu":
        bank = jax.device_put(bank)
    devices = tuple(jax.local_devices())

    def explain() -> Explanation:
        candidates, groups = bank.select(problem.labels)
        return explain_images(
            clf,
            candidates,
            problem.images,
            problem.labels,
            groups,
            config=SearchConfig(),
            devices=devices,
        )

    return explain


def agreement(problem: Problem) -> float:
    """Share of the images whose edits are the same as with a float32 backbone."""
    exact = replace(problem.clf, features=problem.clf.features.astype("float32"))
    ours, theirs = (jax.device_get(explainer(problem, clf)()) for clf in (problem.clf, exact))
    same = np.all(ours.edit_cell == theirs.edit_cell, -1) & np.all(
        ours.edit_candidate == theirs.edit_candidate, -1
    )
    return float(same.mean())


def matmul_peak(dtype: str) -> float:
    """Best FLOP/s of a large square matrix product in `dtype`, on random data."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / median_times([lambda: product(a, a)], repeats=5)[0]


def print_table(rows: list[dict[str, Any]], columns: dict[str, Any], header: bool = True) -> None:
    """Rows as aligned text; columns map a key to its title and a format or function."""

    def text(row: dict[str, Any], key: str) -> str:
        form = columns[key][1]
        if row.get(key) is None:
            return "-"
        return form(row[key]) if callable(form) else form.format(row[key])

    width = {key: max(10, len(columns[key][0])) for key in columns}
    if header:
        print("  ".join(f"{columns[key][0] or key:>{width[key]}}" for key in columns))
    for row in rows:
        print("  ".join(f"{text(row, key):>{width[key]}}" for key in columns), flush=True)
