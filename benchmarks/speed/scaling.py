"""What an explanation costs beyond the forward pass, as each size grows.

    python benchmarks/speed/scaling.py --json out.json --figure out.png

Features are given and the head is pooled-linear (C = 2048), so that the curves show the search
alone. One size is varied at a time around n = 7, K = 200, |U| = 20, m = 10, batch 16.
"""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path
from typing import Any

from timing import finish, median_times, parser, show

BASE = {"n": 7, "classes": 200, "references": 20, "top_m": 10, "batch": 16, "devices": 1}
SWEEPS = {
    "n": ([7, 14, 28], "n² C (K + |U| m) to start; n⁴ K + |U| m K an edit"),
    "classes": ([50, 200, 500, 1000], "K in every term but the cosines"),
    "references": ([5, 10, 20, 40, 80], "n² C |U| m to start; |U| m K an edit"),
    "top_m": ([5, 10, 20, 49], "n² C |U| m to start; |U| m K an edit"),
    "batch": ([1, 4, 16, 64], "1 for an image: a batch only fills the device"),
    "devices": ([1, 2, 4, 8], "1 / devices, where there are cores for them"),
}
"""Sizes, and the operations that depend on them."""
CHANNELS = 2048


def measure(sizes: dict[str, int], repeats: int) -> dict[str, Any]:
    """Milliseconds and edits per image for one setting."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from planted import plant

    from fgvce_jax.config import BankConfig, SearchConfig
    from fgvce_jax.explain import explain_cells
    from fgvce_jax.heads import PooledLinear

    n, classes, batch = sizes["n"], sizes["classes"], sizes["batch"]
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (max(batch, 8), n, n, CHANNELS)  # planting compares images, also for a batch of 1
    cells = jnp.abs(jax.random.normal(keys[0], shape) * jax.random.uniform(keys[1], shape[-1:]))
    head = PooledLinear(jax.random.normal(keys[2], (CHANNELS, classes)), jnp.zeros(classes))
    config = BankConfig(sizes["references"], sizes["top_m"], sigma=SearchConfig.sigma)
    head, bank, labels, edits = plant(head, cells, config, classes)
    devices = tuple(jax.devices()[: sizes["devices"]])
    if len(devices) < sizes["devices"]:
        return {**sizes, "ms_per_image": None}
    candidates = bank.for_targets(labels[:batch])
    if len(devices) == 1:
        candidates = jax.device_put(candidates)
    arguments = (head, candidates, cells[:batch], labels[:batch])
    explain = partial(explain_cells, *arguments, config=SearchConfig(), devices=devices)
    seconds = median_times([explain], repeats)[0]
    return {
        **sizes,
        "ms_per_image": 1000 * seconds / batch,
        "edits": float(np.mean(edits[:batch])),
        "ms_per_edit": 1000 * seconds / float(np.sum(edits[:batch])),
    }


def draw(sweeps: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A curve per sweep, on logarithmic axes."""
    from matplotlib.figure import Figure

    titles = {"n": "n (cells per side)", "classes": "K (classes)", "references": "|U|"}
    titles |= {"top_m": "m", "batch": "batch", "devices": "devices (batch 64)"}
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    for axis, (name, rows) in zip(figure.subplots(2, 3).flat, sweeps.items(), strict=False):
        rows = [row for row in rows if row["ms_per_image"] is not None]
        axis.semilogx([row["size"] for row in rows], [row["ms_per_image"] for row in rows], "o-")
        axis.set(xlabel=titles[name], ylabel="ms an image", ylim=(0, None))
        axis.set_xticks([row["size"] for row in rows], [str(row["size"]) for row in rows])
        axis.minorticks_off()
        axis.set_title(SWEEPS[name][1], fontsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the sweeps, print the tables, write the JSON, draw the curves."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--sweep", default=",".join(SWEEPS), help="comma-separated")
    arguments.add_argument("--figure", type=Path, help="picture to draw (matplotlib)")
    options = arguments.parse_args()
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for name in options.sweep.split(","):
        sizes, complexity = SWEEPS[name]
        base = BASE | ({"batch": 64} if name == "devices" else {})
        print(f"\n{name}: {complexity}")
        sweeps[name] = []
        for size in sizes:
            setting = base | {name: size}
            # A process of its own for each, with as many virtual devices on a CPU.
            flag = f"--xla_force_host_platform_device_count={setting['devices']}"
            os.environ["XLA_FLAGS"] = flag
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure, (setting, options.repeats))
            sweeps[name].append(row | {"size": size})
            show(sweeps[name][-1])
    complexity = {name: SWEEPS[name][1] for name in sweeps}
    finish(options, {"name": "scaling", "base": BASE, "complexity": complexity, "sweeps": sweeps})
    if options.figure:
        draw(sweeps, options.figure)


if __name__ == "__main__":
    main()
