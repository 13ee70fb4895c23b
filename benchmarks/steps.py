"""Each step of an explanation by itself, and the factored heads against the direct path.

python benchmarks/steps.py --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import Problem, describe, machine, median_times, planted_problem, print_table

from fgvce_jax.bank import best_cells
from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import explain_features
from fgvce_jax.heads import Direct
from fgvce_jax.partition import contributions


def contributions_speedup(problem: Problem, count: int, repeats: int) -> dict:
    """Contributions per image: a matrix product with the kernels against n^2 whole passes."""
    cells = problem.clf.features(problem.images[:count])
    step = jax.jit(jax.vmap(contributions, (None, 0, 0)))
    head, classes = problem.clf.head, jnp.asarray(problem.labels[:count])
    runs = [partial(step, head, cells, classes), partial(step, Direct(head), cells, classes)]
    fast, direct = median_times(runs, repeats)
    return {
        "batch": count,
        "fast_ms": 1000 * fast / count,
        "direct_ms": 1000 * direct / count,
        "difference": float(jnp.abs(runs[0]() - runs[1]()).max()),
    }


def search_speedup(problem: Problem, count: int, repeats: int) -> dict:
    """The whole search and its maps, features given and bank prebuilt, per image."""
    cells, labels = problem.clf.features(problem.images[:count]), problem.labels[:count]
    candidates, groups = problem.bank.select(labels)
    options = {"config": SearchConfig(), "devices": tuple(jax.local_devices()[:1])}

    def search(head, bank):
        return explain_features(head, bank, cells, labels, groups, **options)

    head, direct = problem.clf.head, Direct(problem.clf.head)
    plain = jax.tree.map(jnp.asarray, candidates)
    plain = type(plain)(**(vars(plain) | {"prepared": None}))
    runs = [partial(search, head, candidates), partial(search, direct, plain)]
    fast_s, direct_s = median_times(runs, repeats)
    ours, theirs = (jax.device_get(run()) for run in runs)
    return {
        "fast_ms": 1000 * fast_s / count,
        "direct_ms": 1000 * direct_s / count,
        "difference": float(np.abs(ours.p_target - theirs.p_target).max()),
        "same_edits": bool(
            np.array_equal(ours.edit_cell, theirs.edit_cell)
            and np.array_equal(ours.edit_candidate, theirs.edit_candidate)
        ),
        "edits": sorted(ours.num_edits.tolist()),
    }


def chunked(problem: Problem, repeats: int) -> list[dict]:
    """The whole search for a batch, one image at a time and all together."""
    cells, labels = problem.clf.features(problem.images[:16]), problem.labels[:16]
    candidates, groups = problem.bank.select(labels)
    devices = tuple(jax.local_devices()[:1])

    def search(chunk):
        config = SearchConfig(chunk=chunk)
        return explain_features(
            problem.clf.head, candidates, cells, labels, groups, config=config, devices=devices
        )

    chunks = (1, len(labels))
    seconds = median_times([partial(search, chunk) for chunk in chunks], repeats)
    return [
        {"chunk": chunk, "fast_ms": 1000 * s / len(labels)}
        for chunk, s in zip(chunks, seconds, strict=True)
    ]


def bank_of_one_class(problem: Problem, repeats: int, references: int = 20) -> dict:
    """The m best cells of a class's references, features given."""
    rng = np.random.default_rng(0)
    cells = np.asarray(problem.clf.features(problem.images))
    pick = rng.integers(len(cells), size=references)
    cells = jnp.asarray(
        cells[pick] * rng.uniform(0.9, 1.1, (references, 1, 1, 1)).astype("float32")
    )
    labels = jnp.full(references, 3)
    build = partial(best_cells, problem.clf.head, cells, labels, top_m=10, sigma=0.8)
    return {"fast_ms": 1000 * median_times([build], repeats)[0]}


FIRST = """
import sys, time
import numpy as np
import fgvce_jax as fg
from fgvce_jax.cli import cache_compilations
from fgvce_jax.models import ModelSpec, build
import jax
cache_compilations()
clf = fg.load_classifier(sys.argv[1])
images = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
labels = np.asarray(jax.jit(lambda clf, x: clf(x))(clf, images).argmax(-1))
bank = fg.build_bank(clf, images, labels, per_class=4, top_m=10, batch_size=8)
other = np.where(labels == labels[0], labels[-1], labels[0])
out = fg.explain(clf, bank, images[:1], other[:1])
print(int(out.num_edits[0]))
"""


def first_explanation(problem: Problem, repeats: int = 3) -> dict:
    """Seconds from process start to the first explanation, checkpoint read and bank built."""
    from fgvce_jax.models import save_classifier

    with tempfile.TemporaryDirectory() as folder:
        save_classifier(problem.clf, Path(folder) / "resnet50")
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        command = [sys.executable, "-c", FIRST, str(Path(folder) / "resnet50")]
        seconds = []
        for _ in range(1 + repeats):
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment, capture_output=True)
            seconds.append(time.perf_counter() - start)
    return {"cold_s": seconds[0], "warm_s": float(np.median(seconds[1:]))}


COLUMNS = {
    "step": ("step", "{:<34}"),
    "fast_ms": ("ms", "{:.2f}"),
    "direct_ms": ("direct ms", "{:.1f}"),
    "speedup": ("times", "{:.1f}"),
    "difference": ("difference", "{:.1e}"),
    "cold_s": ("cold s", "{:.1f}"),
    "warm_s": ("warm s", "{:.1f}"),
}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()

    rows = []

    def add(step: str, row: dict) -> None:
        if "direct_ms" in row:
            row["speedup"] = row["direct_ms"] / row["fast_ms"]
        rows.append({"step": step, **row})
        print_table(rows[-1:], COLUMNS, header=len(rows) == 1)

    resnet = planted_problem("resnet50", 16)
    add("contributions, ResNet-50", contributions_speedup(resnet, 8, options.repeats))
    add("search and maps, ResNet-50", search_speedup(resnet, 8, options.repeats))
    add("bank of one class, ResNet-50", bank_of_one_class(resnet, options.repeats))
    add("first explanation, ResNet-50", first_explanation(resnet))
    for row in chunked(resnet, options.repeats):
        add(f"search, ResNet-50, chunks of {row['chunk']}", row)
    del resnet
    vgg = planted_problem("vgg16", 32)
    for count in (1, 4, 16, 32):
        add(
            f"contributions, VGG-16, batch {count}",
            contributions_speedup(vgg, count, options.repeats),
        )
    add("search and maps, VGG-16", search_speedup(vgg, 1, max(1, options.repeats // 3)))
    add("bank of one class, VGG-16", bank_of_one_class(vgg, options.repeats))
    for row in chunked(vgg, max(1, options.repeats // 3)):
        add(f"search, VGG-16, chunks of {row['chunk']}", row)
    result = {"benchmark": "steps", "machine": machine(), "rows": rows}
    print(f"\nOn {describe(result['machine'])}.")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
