"""Images per second of plain classification and of full explanations, and what lies between.

    python benchmarks/throughput.py --arch resnet50 --batch 4,16 --dtype float32 --json out.json

The unit is the forward-pass equivalent (FPE): the time to explain a batch, backbone included and
bank prebuilt, over the time of one classifier pass on that batch, both measured in turn in one
process. 1.0 is the floor. Every row runs in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    agreement,
    describe,
    device_peak_bytes,
    explainer,
    machine,
    matmul_peak,
    median_times,
    planted_problem,
    print_table,
)


def measure(arch: str, batch: int, dtype: str, classes: int, cut: str | None, repeats: int) -> dict:
    """One row of the table."""
    import jax

    from fgvce_jax.config import SearchConfig
    from fgvce_jax.explain import explain_features, explain_images
    from fgvce_jax.heads import searchable
    from fgvce_jax.memory import program_bytes

    problem = planted_problem(arch, batch, classes=classes, cut=cut, dtype=dtype)
    clf, images = problem.clf, problem.images
    explain = explainer(problem)
    candidates, groups = problem.bank.select(problem.labels)
    options = {"config": SearchConfig(), "devices": tuple(jax.local_devices())}
    cells = clf.features(images)
    rest = partial(
        explain_features, searchable(clf.head), candidates, cells, problem.labels, groups, **options
    )
    forward = jax.jit(lambda clf, images: clf(images)).lower(clf, images).compile()
    program = explain_images.lower(
        clf, candidates, images, problem.labels, groups, **options
    ).compile()
    forward_s, explain_s, rest_s = median_times(
        [partial(forward, clf, images), explain, rest], repeats
    )
    out = jax.device_get(explain())
    cost = forward.cost_analysis()
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
        "peak_bytes_from": "the compiled programs' own memory analysis",
        "device_peak_bytes": device_peak_bytes(),
        "bank_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(problem.bank)),
        "edits": sorted(out.num_edits.tolist()),
        "flipped": float(out.flipped.mean()),
        "forward_flops_per_s": cost.get("flops", 0.0) / forward_s,
        "matmul_flops_per_s": matmul_peak(dtype),
    }
    if dtype != "float32":
        row["same_edits_as_float32"] = agreement(problem)
    return row


def _in_own_process(*arguments: Any) -> dict:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measure, arguments)


def main() -> None:
    """Measure every combination, print the table, write the JSON and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--arch", default="resnet50", help="comma-separated")
    parser.add_argument("--batch", default="16", help="comma-separated batch sizes")
    parser.add_argument("--dtype", default="float32", help="comma-separated: float32, bfloat16")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--cut", help="where the head begins, as in `fgvce explain --help`")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--figure", type=Path, help="draw FPE and throughput here (matplotlib)")
    options = parser.parse_args()

    rows = []
    for arch in options.arch.split(","):
        for dtype in options.dtype.split(","):
            for batch in map(int, options.batch.split(",")):
                rows.append(
                    _in_own_process(
                        arch, batch, dtype, options.classes, options.cut, options.repeats
                    )
                )
                print_table(rows[-1:], COLUMNS, header=len(rows) == 1)
    result = {"benchmark": "throughput", "machine": machine(), "rows": rows}
    print(f"\nOn {describe(result['machine'])}; memory: {rows[0]['peak_bytes_from']}.")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw(result, options.figure)


COLUMNS = {
    "arch": ("", "{}"),
    "dtype": ("", "{}"),
    "batch": ("", "{}"),
    "fpe": ("FPE", "{:.3f}"),
    "forward_images_per_s": ("forward/s", "{:.1f}"),
    "explain_images_per_s": ("explain/s", "{:.1f}"),
    "rest_ms_per_image": ("rest ms", "{:.2f}"),
    "peak_bytes_forward": ("fwd MiB", lambda b: f"{b / 2**20:.0f}"),
    "peak_bytes_explain": ("expl MiB", lambda b: f"{b / 2**20:.0f}"),
    "edits": ("edits", lambda e: f"{e[0]}-{e[-1]}"),
    "forward_flops_per_s": ("TFLOP/s", lambda f: f"{f / 1e12:.3f}"),
    "matmul_flops_per_s": ("matmul", lambda f: f"{f / 1e12:.3f}"),
    "same_edits_as_float32": ("as f32", "{:.0%}"),
}


def draw(result: dict, path: Path) -> None:
    """FPE over the batch size, a line per architecture and dtype."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    lines: dict[tuple, list] = {}
    for row in result["rows"]:
        lines.setdefault((row["arch"], row["dtype"]), []).append(row)
    for (arch, dtype), rows in lines.items():
        batch = [row["batch"] for row in rows]
        axes[0].plot(batch, [row["fpe"] for row in rows], "o-", label=f"{arch}, {dtype}")
        axes[1].plot(batch, [row["forward_images_per_s"] for row in rows], "o:", alpha=0.5)
        colour = axes[1].lines[-1].get_color()
        axes[1].plot(batch, [row["explain_images_per_s"] for row in rows], "o-", color=colour)
    axes[0].axhline(1, color="grey", lw=0.8)
    axes[0].set(xlabel="batch", ylabel="forward-pass equivalents", xscale="log")
    axes[1].set(xlabel="batch", ylabel="images/s (dotted: forward only)", xscale="log")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
