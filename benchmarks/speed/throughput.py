"""Images per second of plain classification and of full explanations, and what lies between.

    python benchmarks/speed/throughput.py --arch resnet50 --batch 4,16 --json out.json

The unit is the forward-pass equivalent (FPE): the time to explain a batch, backbone included and
bank prebuilt, over the time of one classifier pass on that batch, both measured in turn in one
process. 1.0 is the floor. Every row runs in a process of its own, so that its memory is its own.
"""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from planted import planted, rivals_of, same_edits, searching
from timing import in_own_process, median_times, script, show

from fgvce_jax.config import MATCHED, SearchConfig
from fgvce_jax.explain import explain_cells
from fgvce_jax.heads import searchable
from fgvce_jax.memory import program_bytes
from fgvce_jax.models.classifier import feature_map_of

SEARCHES = {"paper": SearchConfig(), "matched": MATCHED}


def matmul_peak(dtype: str) -> float:
    """Best FLOP/s of a large square matrix product in `dtype`, on random data."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = partial(jax.jit(lambda a, b: a @ b), a, a)
    return 2 * size**3 / median_times([product], repeats=5)[0]


def measure_row(
    arch: str, dtype: str, batch: int, classes: int, cut: str, search: str, repeats: int
) -> dict:
    """One row of the table."""
    config = SEARCHES[search]
    network = {"classes": classes, "cut": cut or None, "dtype": dtype}
    clf, images, labels, bank = planted(arch, batch, **network, search=config)
    options = {"config": config, "devices": tuple(jax.local_devices())}
    rivals = rivals_of(clf.head, feature_map_of(clf, images), config)

    def explain(clf):  # as a run does it; the bank is there already
        head, candidates = searchable(clf.head), bank.for_targets(labels, rivals)
        return explain_cells(head, candidates, feature_map_of(clf, images), labels, **options)

    def whole(clf, candidates, images, labels):
        feature_map = clf.feature_map(images)
        return explain_cells(searchable(clf.head), candidates, feature_map, labels, **options)

    forward = jax.jit(lambda clf, images: clf(images)).lower(clf, images).compile()
    program = jax.jit(whole).lower(clf, bank.for_targets(labels, rivals), images, labels).compile()
    rest = searching(clf.head, bank, feature_map_of(clf, images), labels, search=config)
    forward_s, explain_s, rest_s = median_times(
        [partial(forward, clf, images), partial(explain, clf), rest], repeats
    )
    found = explain(clf)
    stats = jax.local_devices()[0].memory_stats() or {}
    row = {
        "arch": arch + (f" cut {cut}" if cut else "") + (" matched" if rivals is not None else ""),
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
        "bank_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(bank)),
        "edits": sorted(found.num_edits.tolist()),
        "forward_flops_per_s": forward.cost_analysis().get("flops", 0.0) / forward_s,
        "matmul_flops_per_s": matmul_peak(dtype),
    }
    if dtype != "float32":
        exact = explain(replace(clf, features=clf.features.astype("float32")))
        row["same_edits_as_float32"] = float(same_edits(found, exact).mean())
    return row


def measure(
    arch: str = "resnet50",
    batch: str = "16",
    dtype: str = "float32",
    classes: int = 200,
    cut: str = "",
    search: str = "paper",
    repeats: int = 7,
) -> dict[str, Any]:
    """Explanations over plain classification, for every combination of what stands in commas."""
    settings = itertools.product(arch.split(","), dtype.split(","), map(int, batch.split(",")))
    more = classes, cut, search, repeats
    return {"rows": [show(in_own_process(measure_row, *setting, *more)) for setting in settings]}


if __name__ == "__main__":
    script(
        measure,
        batch="sizes",
        dtype="float32, bfloat16",
        cut="where the head begins, as in `fgvce explain --help`",
        search="paper, or matched (evidence, with all cells of each reference)",
    )
