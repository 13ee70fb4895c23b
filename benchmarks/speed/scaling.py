"""The cost of an explanation beyond the forward pass, as each size grows.

    python benchmarks/speed/scaling.py --json out.json --figure out.png

Features are given and the head is pooled-linear (C = 2048), so that the curves show the search
alone. One size is varied at a time around n = 7, K = 200, |U| = 20, m = 10, batch 16.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
from planted import plant, searching
from timing import in_own_process, median_times, script, show

from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.heads import PooledLinear
from fgvce_jax.models.classifier import FeatureMap

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


def measure_setting(sizes: dict[str, int], repeats: int) -> dict[str, Any]:
    """Milliseconds and edits per image for one setting."""
    n, classes, batch = sizes["n"], sizes["classes"], sizes["batch"]
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (max(batch, 8), n, n, CHANNELS)  # planting compares images, also for a batch of 1
    cells = jnp.abs(jax.random.normal(keys[0], shape) * jax.random.uniform(keys[1], shape[-1:]))
    head = PooledLinear(jax.random.normal(keys[2], (CHANNELS, classes)), jnp.zeros(classes))
    config = BankConfig(sizes["references"], sizes["top_m"], sigma=SearchConfig.sigma)
    head, bank, labels, edits = plant(head, FeatureMap(cells), config, classes)
    devices, edits = jax.devices()[: sizes["devices"]], edits[:batch]
    if len(devices) < sizes["devices"]:
        return {**sizes, "ms_per_image": None}
    explain = searching(head, bank, FeatureMap(cells[:batch]), labels[:batch], devices)
    milliseconds = 1000 * median_times([explain], repeats)[0]
    return {
        **sizes,
        "ms_per_image": milliseconds / batch,
        "edits": float(edits.mean()),
        "ms_per_edit": milliseconds / float(edits.sum()),
    }


def draw(sweeps: dict[str, list[dict[str, Any]]], path: str) -> None:
    """A curve per sweep, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    for axis, (name, rows) in zip(figure.subplots(2, 3).flat, sweeps.items(), strict=False):
        drawn = {row["size"]: row["ms_per_image"] for row in rows if row["ms_per_image"]}
        axis.semilogx([*drawn], [*drawn.values()], "o-")
        axis.set(xlabel=name, ylabel="ms an image", ylim=(0, None))
        axis.set_xticks([*drawn], map(str, drawn))
        axis.minorticks_off()  # their labels would lie across these
        axis.set_title(SWEEPS[name][1], fontsize=7)
    figure.savefig(path, dpi=110)


def measure(sweep: str = ",".join(SWEEPS), figure: str = "", repeats: int = 5) -> dict[str, Any]:
    """The cost of an explanation beyond the forward pass, as each size grows."""
    sweeps: dict[str, list[dict[str, Any]]] = {}
    complexity = {name: SWEEPS[name][1] for name in sweep.split(",")}
    for name in complexity:
        print(f"\n{name}: {complexity[name]}")
        sweeps[name] = []
        for size in SWEEPS[name][0]:
            setting = BASE | ({"batch": 64} if name == "devices" else {}) | {name: size}
            # As many virtual devices on a CPU.
            flag = f"--xla_force_host_platform_device_count={setting['devices']}"
            os.environ["XLA_FLAGS"] = flag
            row = in_own_process(measure_setting, setting, repeats)
            sweeps[name].append(show(row | {"size": size}))
    if figure:
        draw(sweeps, figure)
    return {"base": BASE, "complexity": complexity, "sweeps": sweeps}


if __name__ == "__main__":
    script(measure, sweep="sizes to vary", figure="picture to draw (matplotlib)")
