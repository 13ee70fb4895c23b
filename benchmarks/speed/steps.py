"""Each step of an explanation by itself, and the factored heads against the direct path."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from planted import Planted, planted, same_edits, searching
from timing import median_times, script, show

from fgvce_jax.bank import best_cells
from fgvce_jax.heads import Direct
from fgvce_jax.methods.cve import cve_edits
from fgvce_jax.models import save_classifier
from fgvce_jax.models.classifier import FeatureMap, feature_map_of
from fgvce_jax.partition import contributions
from fgvce_jax.search import search_problem


def contributions_row(problem: Planted, count: int, repeats: int) -> dict[str, Any]:
    """Contributions per image: a matrix product with the kernels against n^2 whole passes."""
    cells, head = feature_map_of(problem.clf, problem.images[:count]).cells, problem.clf.head
    step, classes = jax.jit(jax.vmap(contributions, (None, 0, 0))), problem.labels[:count]
    runs = [partial(step, h, cells, jnp.asarray(classes)) for h in (head, Direct(head))]
    fast, direct = median_times(runs, repeats)
    difference = float(jnp.abs(runs[0]() - runs[1]()).max())
    return _compared(fast / count, direct / count, difference)


def search_row(problem: Planted, count: int, repeats: int) -> dict[str, Any]:
    """The whole search and its maps per image, against the direct path."""
    head, bank = problem.clf.head, problem.bank
    cells, labels = (
        feature_map_of(problem.clf, problem.images[:count]).cells,
        problem.labels[:count],
    )
    heads = (head, bank), (Direct(head), replace(bank, prepared=None))
    one = jax.local_devices()[:1]
    runs = [searching(head, bank, FeatureMap(cells), labels, one) for head, bank in heads]
    fast, direct = median_times(runs, repeats)
    ours, theirs = (jax.device_get(run()) for run in runs)
    difference = float(np.abs(ours.p_target - theirs.p_target).max())
    same = bool(same_edits(ours, theirs).all())
    return _compared(fast / count, direct / count, difference) | {"same_edits": same}


def _compared(fast: float, direct: float, difference: float) -> dict[str, float]:
    out = {"fast_ms": 1000 * fast, "direct_ms": 1000 * direct, "difference": difference}
    return out | {"speedup": direct / fast}


def chunk_rows(problem: Planted, repeats: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The search of 16 images per image, one at a time and all together."""
    chunks, one = (1, 16), jax.local_devices()[:1]
    cells, labels = feature_map_of(problem.clf, problem.images[:16]).cells, problem.labels[:16]
    search = partial(searching, problem.clf.head, problem.bank, FeatureMap(cells), labels, one)
    seconds = median_times([search(chunk=chunk) for chunk in chunks], repeats)
    for chunk, taken in zip(chunks, seconds, strict=True):
        yield chunk, {"fast_ms": 1000 * taken / 16}


def bank_row(problem: Planted, repeats: int, references: int = 20) -> dict[str, Any]:
    """The m best cells of a class's references, features given."""
    rng = np.random.default_rng(0)
    cells = np.asarray(feature_map_of(problem.clf, problem.images[:16]).cells)
    cells = cells[rng.integers(16, size=references)]
    cells = jnp.asarray(cells * rng.uniform(0.9, 1.1, (references, 1, 1, 1)).astype("float32"))
    labels = jnp.full(references, 3)
    build = partial(best_cells, problem.clf.head, FeatureMap(cells), labels, problem.bank.config)
    return {"fast_ms": 1000 * median_times([build], repeats)[0]}


def exhaustive_row(problem: Planted, repeats: int) -> dict[str, Any]:
    """One edit of CVE: all pairs of an image's cells and the cells of 20 references."""
    cells = feature_map_of(problem.clf, problem.images).cells
    flat, count = cells.reshape(-1, cells.shape[-1]), 20 * cells.shape[1] * cells.shape[2]
    candidates = jax.random.choice(jax.random.key(1), flat, (count,))
    prepared = search_problem(problem.clf.head, cells[0], problem.labels[0], candidates)
    edit = partial(jax.jit(partial(cve_edits, max_iterations=1)), prepared)
    return {"fast_ms": 1000 * median_times([edit], max(repeats, 20))[0]}


FIRST = """
import sys
import jax, numpy as np
import fgvce_jax as fg
from fgvce_jax.cli.compilation import cache_compilations
cache_compilations()
clf = fg.load_classifier(sys.argv[1])
images = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
labels = np.asarray(jax.jit(lambda clf, x: clf(x))(clf, images).argmax(-1))
bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4), batch_size=8)
other = np.where(labels == labels[0], labels[-1], labels[0])
print(fg.explain(clf, bank, images[:1], other[:1]).num_edits)
"""


def first_row(problem: Planted, repeats: int = 3) -> dict[str, Any]:
    """Seconds from process start to the first explanation, checkpoint read and bank built."""
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(problem.clf, f"{folder}/resnet50")
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        command, seconds = [sys.executable, "-c", FIRST, f"{folder}/resnet50"], []
        for _ in range(1 + repeats):
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    return {"cold_s": seconds[0], "warm_s": float(np.median(seconds[1:]))}


def rows(repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The steps by name, one network after the other."""
    problem, few = planted("resnet50", 16), max(1, repeats // 3)
    yield "contributions, ResNet-50", contributions_row(problem, 8, repeats)
    yield "search and maps, ResNet-50", search_row(problem, 8, repeats)
    yield "bank of one class, ResNet-50", bank_row(problem, repeats)
    yield "one edit of CVE, ResNet-50", exhaustive_row(problem, repeats)
    yield "first explanation, ResNet-50", first_row(problem)
    for chunk, row in chunk_rows(problem, repeats):
        yield f"search, ResNet-50, chunks of {chunk}", row
    problem = planted("vgg16", 32)
    for count in (1, 4, 16, 32):
        yield f"contributions, VGG-16, batch {count}", contributions_row(problem, count, repeats)
    yield "search and maps, VGG-16", search_row(problem, 1, few)
    yield "bank of one class, VGG-16", bank_row(problem, repeats)
    for chunk, row in chunk_rows(problem, few):
        yield f"search, VGG-16, chunks of {chunk}", row


def measure(repeats: int = 7) -> dict[str, Any]:
    """Each step of an explanation by itself, and the factored heads against the direct path."""
    return {"rows": [show({"step": step} | row) for step, row in rows(repeats)]}


if __name__ == "__main__":
    script(measure)
