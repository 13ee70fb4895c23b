"""What an explanation costs beyond the forward pass, as each size grows.

    python benchmarks/scaling.py --json out.json --figure out.png

Features are given and the head is pooled-linear (C = 2048), so that the curves show the search
alone. One size is varied at a time around n = 7, K = 200, |U| = 20, m = 10, batch 16.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path
from typing import Any

BASE = {"n": 7, "classes": 200, "references": 20, "top_m": 10, "batch": 16, "devices": 1}
SWEEPS = {
    "n": [7, 14, 28],
    "classes": [50, 200, 500, 1000],
    "references": [5, 10, 20, 40, 80],
    "top_m": [5, 10, 20, 49],
    "batch": [1, 4, 16, 64],
    "devices": [1, 2, 4, 8],
}
COMPLEXITY = {
    "n": "n² C (K + |U| m) to start; n⁴ K + |U| m K an edit",
    "classes": "K in every term but the cosines",
    "references": "n² C |U| m to start; |U| m K an edit",
    "top_m": "n² C |U| m to start; |U| m K an edit",
    "batch": "1 for an image: a batch only fills the device",
    "devices": "1 / devices, where there are cores for them",
}
CHANNELS = 2048


def measure(sizes: dict[str, int], repeats: int) -> dict[str, Any]:
    """Milliseconds and edits per image for one setting."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from common import median_times, plant

    from fgvce_jax.config import SearchConfig
    from fgvce_jax.explain import explain_features
    from fgvce_jax.heads import PooledLinear

    n, classes, batch = sizes["n"], sizes["classes"], sizes["batch"]
    keys = jax.random.split(jax.random.key(0), 3)
    planted = max(batch, 8)  # the problem is made with images to compare, also for a batch of 1
    shape = (planted, n, n, CHANNELS)
    cells = jnp.abs(jax.random.normal(keys[0], shape) * jax.random.uniform(keys[1], shape[-1:]))
    head = PooledLinear(jax.random.normal(keys[2], (CHANNELS, classes)), jnp.zeros(classes))
    head, bank, labels, edits = plant(
        head, cells, classes=classes, per_class=sizes["references"], top_m=sizes["top_m"]
    )
    devices = tuple(jax.devices()[: sizes["devices"]])
    if len(devices) < sizes["devices"]:
        return {**sizes, "ms_per_image": None}
    labels = labels[:batch]
    candidates, groups = bank.select(labels)
    explain = partial(
        explain_features,
        head,
        jax.device_put(candidates) if len(devices) == 1 else candidates,
        cells[:batch],
        labels,
        groups,
        config=SearchConfig(),
        devices=devices,
    )
    seconds = median_times([explain], repeats)[0]
    return {
        **sizes,
        "ms_per_image": 1000 * seconds / batch,
        "edits": float(np.mean(edits[:batch])),
        "ms_per_edit": 1000 * seconds / float(np.sum(edits[:batch])),
    }


def _in_own_process(sizes: dict[str, int], repeats: int) -> dict[str, Any]:
    """A process of its own for each setting, with as many virtual devices on a CPU."""
    flag = f"--xla_force_host_platform_device_count={sizes['devices']}"
    os.environ["XLA_FLAGS"] = flag
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (sizes, repeats))


def main() -> None:
    """Run the sweeps, print the tables, write the JSON, draw the curves."""
    from common import describe, machine, print_table

    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sweep", default=",".join(SWEEPS), help="comma-separated")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--figure", type=Path, help="draw the curves here (matplotlib)")
    options = parser.parse_args()

    columns = {
        "size": ("", "{}"),
        "ms_per_image": ("ms/image", "{:.2f}"),
        "ms_per_edit": ("ms/edit", "{:.2f}"),
        "edits": ("edits", "{:.1f}"),
    }
    sweeps = {}
    for name in options.sweep.split(","):
        base = BASE | ({"batch": 64} if name == "devices" else {})
        print(f"\n{name}: {COMPLEXITY[name]}")
        sweeps[name] = []
        for size in SWEEPS[name]:
            row = _in_own_process(base | {name: size}, options.repeats)
            sweeps[name].append(row | {"size": size})
            print_table(sweeps[name][-1:], columns, header=len(sweeps[name]) == 1)
    result = {
        "benchmark": "scaling",
        "machine": machine(),
        "base": BASE,
        "complexity": COMPLEXITY,
        "sweeps": sweeps,
    }
    print(f"\nOn {describe(result['machine'])}.")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw(result, options.figure)


def draw(result: dict, path: Path) -> None:
    """A curve per sweep, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {"n": "n (cells per side)", "classes": "K (classes)", "references": "|U|"}
    titles |= {"top_m": "m", "batch": "batch", "devices": "devices (batch 64)"}
    figure, axes = pyplot.subplots(2, 3, figsize=(9, 5.4), layout="constrained")
    for axis, (name, rows) in zip(axes.flat, result["sweeps"].items(), strict=False):
        rows = [row for row in rows if row["ms_per_image"] is not None]
        axis.semilogx([row["size"] for row in rows], [row["ms_per_image"] for row in rows], "o-")
        axis.set(xlabel=titles[name], ylabel="ms an image", ylim=(0, None))
        axis.set_xticks([row["size"] for row in rows], [str(row["size"]) for row in rows])
        axis.minorticks_off()
        axis.set_title(result["complexity"][name], fontsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
