"""Images per second of plain classification and of full explanations, and what lies between.

    python benchmarks/speed/throughput.py --arch resnet50 --batch 4,16 --json out.json

The unit is the forward-pass equivalent (FPE): the time to explain a batch, backbone included and
bank prebuilt, over the time of one classifier pass on that batch, both measured in turn in one
process. 1.0 is the floor. Every row runs in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
from functools import partial
from typing import Any

from timing import finish, median_times, parser, show


def matmul_peak(dtype: str) -> float:
    """Best FLOP/s of a large square matrix product in `dtype`, on random data."""
    import jax

    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / median_times([lambda: product(a, a)], repeats=5)[0]


def measure(arch: str, dtype: str, batch: int, classes: int, cut: str | None, repeats: int) -> dict:
    """One row of the table."""
    import jax
    from planted import planted

    from fgvce_jax.config import SearchConfig
    from fgvce_jax.explain import explain_cells
    from fgvce_jax.heads import searchable
    from fgvce_jax.memory import program_bytes
    from fgvce_jax.models.classifier import cells_of

    problem = planted(arch, batch, classes=classes, cut=cut, dtype=dtype)
    clf, images, labels = problem.clf, problem.images, problem.labels
    candidates = problem.bank.for_targets(labels)
    search = partial(explain_cells, config=SearchConfig(), devices=tuple(jax.local_devices()))
    rest = partial(search, searchable(clf.head), candidates, cells_of(clf, images), labels)

    def whole(clf, candidates, images, labels):
        return search(searchable(clf.head), candidates, clf.features(images), labels)

    forward = jax.jit(lambda clf, images: clf(images)).lower(clf, images).compile()
    program = jax.jit(whole).lower(clf, candidates, images, labels).compile()
    forward_s, explain_s, rest_s = median_times(
        [partial(forward, clf, images), problem.explain, rest], repeats
    )
    out = jax.device_get(problem.explain())
    stats = jax.local_devices()[0].memory_stats() or {}
    row = {
        "arch": arch + (f" cut {cut}" if cut else ""),
        "batch": batch,
        "dtype": dtype,
        "classes": classes,
        "fpe": explain_s / forward_s,
        "forward_images_per_s": batch / forward_s,
        "explain_images_per_s": batch / explain_s,
        "rest_ms_per_image": 1000 * rest_s / batch,
        "peak_bytes_forward": program_bytes(forward),
        "peak_bytes_explain": program_bytes(program),
        "device_peak_bytes": stats.get("peak_bytes_in_use"),
        "bank_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(problem.bank)),
        "edits": sorted(out.num_edits.tolist()),
        "forward_flops_per_s": forward.cost_analysis().get("flops", 0.0) / forward_s,
        "matmul_flops_per_s": matmul_peak(dtype),
    }
    if dtype != "float32":
        row["same_edits_as_float32"] = problem.same_edits_as_float32()
    return row


def main() -> None:
    """Measure every combination, print the table, write the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--arch", default="resnet50", help="comma-separated")
    arguments.add_argument("--batch", default="16", help="comma-separated batch sizes")
    arguments.add_argument("--dtype", default="float32", help="comma-separated: float32, bfloat16")
    arguments.add_argument("--classes", type=int, default=200)
    arguments.add_argument("--cut", help="where the head begins, as in `fgvce explain --help`")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    lists = (options.arch.split(","), options.dtype.split(","), map(int, options.batch.split(",")))
    for setting in itertools.product(*lists):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            more = options.classes, options.cut, options.repeats
            rows.append(pool.apply(measure, (*setting, *more)))
        show(rows[-1])
    finish(options, {"name": "throughput", "rows": rows})


if __name__ == "__main__":
    main()
