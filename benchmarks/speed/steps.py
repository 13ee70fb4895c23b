"""Each step of an explanation by itself, and the factored heads against the direct path.

python benchmarks/speed/steps.py --json out.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from planted import Planted, planted, same_edits
from timing import finish, median_times, parser, show

from fgvce_jax.bank import best_cells
from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import explain_cells
from fgvce_jax.heads import Direct
from fgvce_jax.methods.cve import cve_edits
from fgvce_jax.models import save_classifier
from fgvce_jax.models.classifier import cells_of
from fgvce_jax.partition import contributions
from fgvce_jax.search import search_problem


def contributions_row(problem: Planted, count: int, repeats: int) -> dict[str, Any]:
    """Contributions per image: a matrix product with the kernels against n^2 whole passes."""
    cells = cells_of(problem.clf, problem.images[:count])
    step = jax.jit(jax.vmap(contributions, (None, 0, 0)))
    head, classes = problem.clf.head, jnp.asarray(problem.labels[:count])
    runs = [partial(step, head, cells, classes), partial(step, Direct(head), cells, classes)]
    fast, direct = median_times(runs, repeats)
    return {
        "fast_ms": 1000 * fast / count,
        "direct_ms": 1000 * direct / count,
        "difference": float(jnp.abs(runs[0]() - runs[1]()).max()),
    }


def search_of(problem: Planted, count: int, head: Any = None, chunk: int | None = None) -> Any:
    """The whole search of some images and its maps, as a function; features and bank given."""
    cells, labels = cells_of(problem.clf, problem.images[:count]), problem.labels[:count]
    candidates = problem.bank.for_targets(labels)
    if head is not None:
        candidates = candidates._replace(prepared=head.prepare(candidates.cells))
    config, devices = SearchConfig(chunk=chunk), tuple(jax.local_devices()[:1])
    arguments = jax.device_put((head or problem.clf.head, candidates, cells, labels))
    return partial(explain_cells, *arguments, config=config, devices=devices)


def search_row(problem: Planted, count: int, repeats: int) -> dict[str, Any]:
    """The whole search and its maps per image, against the direct path."""
    runs = [search_of(problem, count), search_of(problem, count, Direct(problem.clf.head))]
    fast, direct = median_times(runs, repeats)
    ours, theirs = (jax.device_get(run()) for run in runs)
    return {
        "fast_ms": 1000 * fast / count,
        "direct_ms": 1000 * direct / count,
        "difference": float(np.abs(ours.p_target - theirs.p_target).max()),
        "same_edits": bool(same_edits(ours, theirs).all()),
    }


def chunk_rows(problem: Planted, repeats: int) -> dict[int, dict[str, Any]]:
    """The search of 16 images per image, one at a time and all together."""
    chunks = (1, 16)
    seconds = median_times([search_of(problem, 16, chunk=chunk) for chunk in chunks], repeats)
    return {c: {"fast_ms": 1000 * s / 16} for c, s in zip(chunks, seconds, strict=True)}


def bank_row(problem: Planted, repeats: int, references: int = 20) -> dict[str, Any]:
    """The m best cells of a class's references, features given."""
    rng = np.random.default_rng(0)
    cells = np.asarray(cells_of(problem.clf, problem.images[:16]))
    cells = cells[rng.integers(16, size=references)]
    cells = jnp.asarray(cells * rng.uniform(0.9, 1.1, (references, 1, 1, 1)).astype("float32"))
    labels = jnp.full(references, 3)
    build = partial(best_cells, problem.clf.head, cells, labels, problem.bank.config)
    return {"fast_ms": 1000 * median_times([build], repeats)[0]}


def exhaustive_row(problem: Planted, repeats: int) -> dict[str, Any]:
    """One edit of CVE: all pairs of an image's cells and the cells of 20 references."""
    cells = cells_of(problem.clf, problem.images)
    flat = cells.reshape(-1, cells.shape[-1])
    key = jax.random.key(1)
    candidates = jax.random.choice(key, flat, (20 * cells.shape[1] * cells.shape[2],))
    prepared = search_problem(problem.clf.head, cells[0], problem.labels[0], candidates)
    edit = jax.jit(partial(cve_edits, max_iterations=1))
    return {"fast_ms": 1000 * median_times([partial(edit, prepared)], max(repeats, 20))[0]}


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
        save_classifier(problem.clf, Path(folder) / "resnet50")
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        command = [sys.executable, "-c", FIRST, str(Path(folder) / "resnet50")]
        seconds = []
        for _ in range(1 + repeats):
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    return {"cold_s": seconds[0], "warm_s": float(np.median(seconds[1:]))}


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parser(__doc__).parse_args()
    repeats, few = options.repeats, max(1, options.repeats // 3)
    rows: list[dict[str, Any]] = []

    def add(step: str, row: dict[str, Any]) -> None:
        if "direct_ms" in row:
            row["speedup"] = row["direct_ms"] / row["fast_ms"]
        rows.append({"step": step, **row})
        show(rows[-1])

    resnet = planted("resnet50", 16)
    add("contributions, ResNet-50", contributions_row(resnet, 8, repeats))
    add("search and maps, ResNet-50", search_row(resnet, 8, repeats))
    add("bank of one class, ResNet-50", bank_row(resnet, repeats))
    add("one edit of CVE, ResNet-50", exhaustive_row(resnet, repeats))
    add("first explanation, ResNet-50", first_row(resnet))
    for chunk, row in chunk_rows(resnet, repeats).items():
        add(f"search, ResNet-50, chunks of {chunk}", row)
    del resnet
    vgg = planted("vgg16", 32)
    for count in (1, 4, 16, 32):
        add(f"contributions, VGG-16, batch {count}", contributions_row(vgg, count, repeats))
    add("search and maps, VGG-16", search_row(vgg, 1, few))
    add("bank of one class, VGG-16", bank_row(vgg, repeats))
    for chunk, row in chunk_rows(vgg, few).items():
        add(f"search, VGG-16, chunks of {chunk}", row)
    finish(options, {"name": "steps", "rows": rows})


if __name__ == "__main__":
    main()
