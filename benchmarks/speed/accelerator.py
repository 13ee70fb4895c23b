"""Every figure of one accelerator, from its ceilings to a step of training.

    benchmarks/speed/accelerator.sh OUT

Every part runs in a process of its own, within its share of the time, and each row is written as
soon as it is measured. When all parts had their turn, what is missing is measured with the time
that is left; the command given again continues. `--small` rehearses it on a CPU.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from planted import Planted, planted, same_edits
from throughput import matmul_peak
from timing import median_times

from benchmarks.paper.results import ROOT, Results, run
from benchmarks.provenance import stamp
from fgvce_jax.bank import build_bank
from fgvce_jax.config import SearchConfig
from fgvce_jax.data.birds import Birds
from fgvce_jax.explain import explain, explain_cells
from fgvce_jax.heads import searchable
from fgvce_jax.memory import program_bytes
from fgvce_jax.methods import METHODS
from fgvce_jax.models import ModelSpec, build, load_classifier
from fgvce_jax.models.spec import ARCHITECTURES
from fgvce_jax.train.config import TrainConfig
from fgvce_jax.train.step import TrainState, loss_of, make_optimizer, make_step, trainable


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    archs: tuple[str, ...] = ("resnet50", "vgg16", "vit_b_16", "convnext_tiny")
    batches: tuple[int, ...] = (256, 64, 16, 1, 1024)
    image_size: int = 224
    classes: int = 200
    planted: int = 64
    repeats: int = 7
    megabytes: int = 4096
    methods_batch: int = 64
    birds: int = 1000
    training_batch: int = 256


SMALL = Sizes(("resnet18",), (4, 1), 160, 24, 8, 1, 64, 2, 200, 16)


def ceilings(results: Results, sizes: Sizes) -> None:
    """Copy bandwidth and matrix products."""

    def copying(_: str) -> dict[str, Any]:
        x = jax.random.uniform(jax.random.key(0), (sizes.megabytes << 18,))
        seconds = median_times([partial(jax.jit(lambda x: x + 1), x)], sizes.repeats)[0]
        return {"bytes_per_s": 2 * x.nbytes / seconds}

    def product(name: str) -> dict[str, Any]:
        return {"flops_per_s": matmul_peak(name.split()[1])}

    results.measure(["copy"], copying)
    results.measure(["product bfloat16", "product float32"], product)


def networks(results: Results, sizes: Sizes) -> None:
    """Plain forward passes and whole explanations."""
    for batch in sizes.batches:
        for dtype in ("bfloat16", "float32"):
            names = [f"{a} {dtype} {batch}" for a in sizes.archs if a in ARCHITECTURES]
            results.measure(names, partial(_network, results, sizes))


def _problem(arch: str, dtype: str, sizes: Sizes) -> Planted:
    settings = {"classes": sizes.classes, "image_size": sizes.image_size, "dtype": dtype}
    return planted(arch, sizes.planted, **settings)


def _network(results: Results, sizes: Sizes, name: str) -> dict[str, Any]:
    arch, dtype, size = name.split()
    clf, images, labels, bank = _problem(arch, dtype, sizes)
    # The planted images over and over: they differ in their edits as a batch's own would.
    index = np.arange(int(size)) % sizes.planted
    images, labels = images[index], labels[index]
    candidates, devices = bank.for_targets(labels), tuple(jax.local_devices()[:1])

    def whole(clf, candidates, images, labels):
        head, feature_map = searchable(clf.head), clf.feature_map(images)
        options = {"config": SearchConfig(), "devices": devices}
        return explain_cells(head, candidates, feature_map, labels, **options)

    given = clf, candidates, images, labels
    forward = jax.jit(lambda clf, images: clf(images)).lower(clf, images).compile()
    program = jax.jit(whole).lower(*given).compile()
    given = jax.device_put(given)
    forward_s, explain_s = median_times(
        [partial(forward, clf, images), partial(program, *given)], sizes.repeats
    )
    flops = (forward.cost_analysis() or {}).get("flops", 0.0)
    ceiling = results.rows.get(f"product {dtype}", {}).get("flops_per_s")
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "batch": int(size),
        "fpe": explain_s / forward_s,
        "forward_images_per_s": int(size) / forward_s,
        "explain_images_per_s": int(size) / explain_s,
        "edits": sorted(program(*given).num_edits.tolist())[:: max(1, int(size) // 16)],
        "forward_bytes": program_bytes(forward),
        "explain_bytes": program_bytes(program),
        "device_peak_bytes": stats.get("peak_bytes_in_use"),  # of this process so far
        "share_of_product": flops / forward_s / ceiling if ceiling else None,
    }


def table2(results: Results, sizes: Sizes) -> None:
    """The five systems of Table 2, by their own script and into its own file."""

    def script(_: str) -> dict[str, Any]:
        command = [sys.executable, ROOT / "benchmarks/paper/table2.py", "--arch", sizes.archs[0]]
        command += ["--out", results.path.parent, "--classes", str(sizes.classes)]
        command += ["--image_size", str(sizes.image_size), "--batch", str(min(16, sizes.planted))]
        subprocess.run(command, check=True)
        return {"file": "table2_random.json"}

    results.measure(["table 2"], script)


def methods(results: Results, sizes: Sizes) -> None:
    """Maps a second of every method."""
    clf, images, labels, bank = _problem(sizes.archs[0], "float32", sizes)
    every = replace(bank, config=replace(bank.config, top_m=None))
    few = images[: sizes.methods_batch], (labels[: sizes.methods_batch] + 1) % sizes.classes

    def of(name: str) -> dict[str, Any]:
        method = METHODS[name.removeprefix("method ")]
        held = every if "all_cells" in method.needs else bank
        maps = partial(method, clf, *few, labels[: sizes.methods_batch], bank=held)
        seconds = median_times([maps], 1)[0]
        return {"images_per_s": len(few[0]) / seconds}

    results.measure([f"method {name}" for name in METHODS], of)


def search(results: Results, sizes: Sizes) -> None:
    """The search alone, over its sizes."""
    from scaling import BASE, SWEEPS, measure_setting

    small = sizes == SMALL

    def of(name: str) -> dict[str, Any]:
        _, size, value = name.split()
        return measure_setting(BASE | {size: int(value)}, sizes.repeats)

    for size in ("n", "classes", "references", "top_m", "batch"):
        values = SWEEPS[size][0][: 1 if small else None]
        results.measure([f"search {size} {value}" for value in values], of)


def agreement(results: Results, sizes: Sizes) -> None:
    """Explanations of the birds' mistakes in bfloat16 and float32, with one bank."""

    def of(_: str) -> dict[str, Any]:
        clf, test, train = (
            load_classifier(ROOT / "checkpoints" / "birds"),
            *map(Birds, ("test", "train")),
        )
        first = np.concatenate(
            [np.flatnonzero(train.labels == k)[:25] for k in range(clf.num_classes)]
        )
        bank = build_bank(clf, train.images(first) / np.float32(255), train.labels[first])
        index = np.arange(sizes.birds)
        images, labels = test.images(index) / np.float32(255), test.labels[index]
        both = clf, clf.astype(jnp.bfloat16)
        predicted = [np.asarray(jax.jit(lambda c, x: c(x).argmax(-1))(c, images)) for c in both]
        wrong = np.flatnonzero((predicted[0] != labels) & (predicted[1] != labels))
        exact, rough = (
            jax.device_get(explain(c, bank, images[wrong], labels[wrong])) for c in both
        )
        pairs = zip(*(o.dominant.reshape(len(wrong), -1) for o in (exact, rough)), strict=True)
        return {
            "mistakes_of_both": len(wrong),
            "same_prediction": float((predicted[0] == predicted[1]).mean()),
            "same_first_edit": float(same_edits(exact, rough, first=1).mean()),
            "same_edits": float(same_edits(exact, rough).mean()),
            "median_correlation": float(np.nanmedian([np.corrcoef(p)[0, 1] for p in pairs])),
        }

    results.measure(["agreement of bfloat16"], of)


def compilation(results: Results, sizes: Sizes) -> None:
    """Seconds from a fresh process to the first explanation, with and without compiled programs."""

    def of(name: str) -> dict[str, Any]:
        cache = {} if name.endswith("cached") else {"JAX_COMPILATION_CACHE_DIR": ""}
        start = time.perf_counter()
        command = [sys.executable, __file__, "--part", "first", "--out", results.path.parent]
        command += ["--small"] if sizes == SMALL else []
        subprocess.run(command, check=True, env=os.environ | cache)
        return {"seconds": time.perf_counter() - start}

    results.measure(["start, cold", "start, once more, cached", "start, cached"], of)


def first(_: Results, sizes: Sizes) -> None:
    """One explanation, of a network that nothing was planted for."""
    spec, size, classes = ModelSpec(sizes.archs[0]), sizes.image_size, 2
    clf = build(spec, classes, size, jax.random.key(0))
    images = np.random.default_rng(0).uniform(size=(16, size, size, 3)).astype(np.float32)
    labels = np.asarray(clf(images)).argmax(-1)
    bank = build_bank(clf, images, labels)
    jax.block_until_ready(explain(clf, bank, images, labels))


def training(results: Results, sizes: Sizes) -> None:
    """A step of the birds' training."""

    def of(_: str) -> dict[str, Any]:
        clf, config = load_classifier(ROOT / "checkpoints" / "birds"), TrainConfig()
        optimizer = make_optimizer(config, lambda step: 1e-3)
        step = make_step(optimizer, loss_of(config), replace(config.augment, flip=False))
        data = Birds("train").render_batch(np.arange(sizes.training_batch))
        images, labels = (jnp.asarray(data[key]) for key in ("image", "label"))
        state = TrainState(clf, optimizer.init(trainable(clf)), jnp.int32(0))

        def steps() -> Any:
            nonlocal state
            for _ in range(10):
                state, metrics = step(state, images, labels, jax.random.key(0))
            return metrics

        return {"images_per_s": 10 * sizes.training_batch / median_times([steps], 2)[0]}

    results.measure(["training step"], of)


PARTS: dict[str, tuple[Callable[[Results, Sizes], None], int]] = {
    "ceilings": (ceilings, 30),
    "networks": (networks, 210),
    "table2": (table2, 60),
    "methods": (methods, 60),
    "search": (search, 60),
    "agreement": (agreement, 30),
    "compilation": (compilation, 60),
    "training": (training, 30),
}
"""What is measured, in this order, and the seconds that each may take before the next."""


def run_parts(options: argparse.Namespace) -> None:
    """Each part in a process of its own: first within its share, then with what is left."""
    deadline = time.monotonic() + options.seconds
    for limits in ({name: share for name, (_, share) in PARTS.items()}, {}):
        for name in PARTS:
            left = min(deadline - time.monotonic(), limits.get(name, options.seconds))
            if left < 1:
                continue
            command = [sys.executable, __file__, "--part", name, "--out", options.out]
            command += ["--small"] if options.small else []
            # In a session of its own, so that a script it started ends with it.
            part = subprocess.Popen(command, start_new_session=True)
            try:
                code = part.wait(left)
                outcome = "done" if code == 0 else f"failed ({code})"
            except subprocess.TimeoutExpired:
                os.killpg(part.pid, signal.SIGKILL)
                part.wait()
                outcome = "out of time"
            print(f"{name}: {outcome}", file=sys.stderr, flush=True)


def main() -> None:
    """Run all parts, one of them, or a trace."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=530, help="for all of it")
    parser.add_argument("--small", action="store_true", help="a rehearsal")
    parser.add_argument("--part", choices=[*PARTS, "first"], help="this part alone, here")
    parser.add_argument(
        "--trace", action="store_true", help="trace an explanation, and nothing else"
    )
    options = parser.parse_args()
    sizes = SMALL if options.small else Sizes()
    if options.trace:
        from costliest import trace_explanation

        trace_explanation(partial(_problem, sizes.archs[0], "bfloat16", sizes), options.out)
    elif options.part:
        results = Results(options.out / "accelerator.json", asdict(sizes), stamp())
        (first if options.part == "first" else PARTS[options.part][0])(results, sizes)
    else:
        run_parts(options)


if __name__ == "__main__":
    run(main)
