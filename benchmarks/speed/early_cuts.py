"""Searches in networks that are cut early: whole passes, local ones, and a shortlist.

    python benchmarks/speed/early_cuts.py --json out.json

The public CUB checkpoints are cut at a ResNet-50's `layer4.0` and before a VGG's last pool, where
the head is not additive in the cells. The unit is the forward-pass equivalent of `throughput.py`.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from planted import planted, same_edits
from timing import in_own_process, median_times, script, show

from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import Explanation, explain_cells
from fgvce_jax.heads import Direct, searchable
from fgvce_jax.models.classifier import feature_map_of

CUTS = {"resnet50": "layer4.0", "vgg16": "conv"}


def measure_network(arch: str, batch: int, shortlist: int, repeats: int) -> list[dict[str, Any]]:
    """The rows of one network."""
    clf, images, labels, bank = planted(arch, batch, cut=CUTS[arch])
    forms = {
        "whole passes": (Direct(clf.head), SearchConfig()),
        "local": (clf.head, SearchConfig()),
        f"local, shortlist {shortlist}": (clf.head, SearchConfig(shortlist=shortlist)),
    }
    forward = partial(jax.jit(lambda clf, images: clf(images)), clf, images)

    def explaining(head: Any, config: SearchConfig) -> Any:
        own, devices = replace(clf, head=head), tuple(jax.local_devices())
        return lambda: explain_cells(
            searchable(own.head),
            bank.for_targets(labels),
            feature_map_of(own, images),
            labels,
            config=config,
            devices=devices,
        )

    explain = {name: explaining(*form) for name, form in forms.items()}
    forward_s, *seconds = median_times([forward, *explain.values()], repeats)
    plain, *_ = found = [jax.device_get(run()) for run in explain.values()]
    return [
        {
            "arch": arch,
            "cut": CUTS[arch],
            "form": name,
            "batch": batch,
            "fpe": taken / forward_s,
            "forward_ms": 1000 * forward_s / batch,
            "edits": sorted(out.num_edits.tolist()),
            "same_edits_as_whole_passes": float(same_edits(out, plain).mean()),
            "largest_difference": _difference(out, plain),
        }
        for name, taken, out in zip(forms, seconds, found, strict=True)
    ]


def _difference(out: Explanation, plain: Explanation) -> float:
    """The largest, of p(Q) after any edit, among images with the same edits."""
    same = same_edits(out, plain)
    return float(np.abs(out.p_target - plain.p_target)[same].max(initial=0))


def measure(
    arch: str = "resnet50,vgg16", batch: int = 8, shortlist: int = 50, repeats: int = 3
) -> dict[str, Any]:
    """Explanations over plain classification, for networks that are cut early."""
    names = arch.split(",")
    networks = [in_own_process(measure_network, name, batch, shortlist, repeats) for name in names]
    return {"rows": [show(row) for rows in networks for row in rows]}


if __name__ == "__main__":
    script(measure, shortlist="candidates tried for an edit, in the last form")
