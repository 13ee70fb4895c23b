"""Table 2: time and memory of CE, CVE, CCE, RISE and FG-VCE, one sample at a time and in batches.

A preset's classifier explains its own mistakes, with its own bank. With --arch, a network of random
weights explains planted mistakes instead; that needs jax, flax, optax, numpy and the package only:

    python benchmarks/paper/table2.py --preset birds
    python benchmarks/paper/table2.py --arch resnet50
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from results import PAPER, Results, Table, at_least_1, choose, parser, run

from benchmarks.provenance import stamp
from benchmarks.speed.planted import bank_of, planted
from benchmarks.speed.timing import median_times
from fgvce_jax.bank import Bank, Candidates
from fgvce_jax.config import BankConfig, SearchConfig
from fgvce_jax.explain import each_problem, explain_one
from fgvce_jax.heads import searchable
from fgvce_jax.memory import program_bytes
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd
from fgvce_jax.methods.cve import cve_edits
from fgvce_jax.models import Classifier

PUBLISHED = PAPER["table2"]["rows"]
LABELS = {name: METHODS[name].label if name in METHODS else "FG-VCE" for name in PUBLISHED}
MEASURED = 64
"""RISE's masks that are measured, in one forward pass; its time is scaled to the usual number."""
REPEATS, BATCH = 7, 16
COUNTS = {
    "fgvce_edits": ("fgvce", "num_edits"),
    "cve_edits": ("cve", "num_edits"),
    "cce_steps": ("attack", "num_steps"),
}
Case = dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]
"""Samples that are explained together: see `calls`."""


def calls(
    clf: Classifier,
    samples: tuple[Any, Any, Any],
    bank: Candidates,
    every: Candidates,
    config: SearchConfig,
) -> Case:
    """Each row as a function of arrays, from pixels to maps or edits, and its arguments.

    Samples are images, P and Q; the candidates are FG-VCE's, and `every` cell for CVE.
    """
    images, predicted, target = samples

    def searched(search, chunk, clf, candidates, images, targets):
        head, feature_map = searchable(clf.head), clf.feature_map(images)
        return each_problem(search, head, candidates, feature_map, targets, chunk)

    fgvce = partial(searched, partial(explain_one, config=config), config.chunk)
    cve = partial(searched, partial(cve_edits, max_iterations=config.max_iterations), 1)
    rise = partial(METHODS["rise"].load(), num_masks=MEASURED, chunk=MEASURED)
    return {
        "ce": (METHODS["ce"].load(), (clf, *samples)),
        "cce": (METHODS["cce"].load(), (clf, *samples)),
        "rise": (rise, (clf, images, predicted)),
        "cve": (cve, (clf, every, images, target)),
        "fgvce": (fgvce, (clf, bank, images, target)),
        "attack": (pgd, (clf, images, target)),
        "forward": (lambda clf, images: clf(images), (clf, images)),
    }


def compiled(cases: Sequence[Case], name: str) -> tuple[Any, Callable[[], list[Any]]]:
    """A row's program for cases of one size, and a function that runs it on one after another."""
    functions, arguments = zip(*(case[name] for case in cases), strict=True)
    inputs = jax.device_put(arguments)
    program = jax.jit(functions[0]).lower(*inputs[0]).compile()
    return program, lambda: [jax.block_until_ready(program(*given)) for given in inputs]


def measure_row(cases: Sequence[Case], together: int, name: str, masks: int) -> dict[str, Any]:
    """Seconds, bytes and FPE of a row on cases of one size."""
    (program, sweep), (forward, forward_sweep) = (compiled(cases, n) for n in (name, "forward"))
    repeats, more = (2, masks / MEASURED) if name == "rise" else (REPEATS, 1)
    seconds, forward_seconds = median_times([sweep, forward_sweep], repeats)
    return {
        "seconds_per_sample": more * seconds / (together * len(cases)),
        "fpe": more * seconds / forward_seconds,
        "bytes_per_sample": program_bytes(program) / together,
        "forward_bytes": program_bytes(forward),
    }


def work(cases: Sequence[Case], bank: Bank) -> dict[str, Any]:
    """How much there was to do, so that no row is taken for one of trivial samples."""
    out: dict[str, Any] = {"bank_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(bank))}
    for key, (name, count) in COUNTS.items():
        found = compiled(cases, name)[1]()
        out[key] = np.concatenate([getattr(result, count) for result in found]).tolist()
    return out


def measure_cases(
    results: Results, methods: str | None, ways: Sequence[tuple[int, Sequence[Case]]], bank: Bank
) -> None:
    """Measure, print and write the rows, each sample alone and in batches: size, then cases."""
    arch = results.content["settings"]["arch"] or ""
    masks = 4000 if arch.startswith("vgg") else 8000
    results.measure(["work"], lambda _: work(ways[0][1], bank))
    results.measure(
        choose("method", methods, LABELS),
        lambda name: {"ways": [measure_row(cases, size, name, masks) for size, cases in ways]},
    )
    batch, done = ways[1][0], results.rows["work"]
    edits, every, steps = (
        " to ".join(map(str, dict.fromkeys([min(done[key]), max(done[key])]))) for key in COUNTS
    )
    note = (
        f"RISE: {masks} masks, scaled from {MEASURED}. Edits of FG-VCE: {edits}, of CVE: {every}; "
        f"steps of CCE's attack: {steps}. Bank on the host: {done['bank_bytes'] / 1e6:,.0f} MB."
    )
    columns = ["Method", "s, one sample", f"s a sample, batch {batch}"]
    columns += ["FPE, one", f"FPE, batch {batch}"]
    columns += ["MB, one sample", f"MB a sample, batch {batch}", "paper: s", "paper: GB"]
    table: list[list[Any]] = []
    for name, row in results.among(LABELS).items():
        seconds, fpe, memory = (
            [way[key] for way in row["ways"]]
            for key in ("seconds_per_sample", "fpe", "bytes_per_sample")
        )
        line = [LABELS[name], *(f"{s:.3g}" for s in seconds)]
        line += [f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}" for ratio in fpe]
        line += [f"{size / 1e6:,.0f}" for size in memory]
        table.append(line + [str(value) for value in PUBLISHED[name]])
    results.finish(table=Table(columns, table, [note]))


def measure(study: Any) -> None:
    """A preset's classifier on its own mistakes; samples that fill no batch are left out of it."""
    bank, whole = study.bank(study.top_m, study.sigma), study.bank(None, study.sigma)

    def case(part: slice) -> Case:
        samples = study.images[part], study.predicted[part], study.target[part]
        candidates = bank.for_targets(samples[2]), whole.for_targets(samples[2])
        return calls(study.clf, samples, *candidates, study.config.search)

    ways = [
        (size, [case(slice(i, i + size)) for i in range(0, len(study) - size + 1, size)])
        for size in (1, min(BATCH, len(study)))
    ]
    results = study.results("table2", batch=ways[1][0], repeats=REPEATS)
    measure_cases(results, study.options.methods, ways, bank)


def measure_planted(options: argparse.Namespace) -> None:
    """A network of random weights on planted mistakes."""
    names = ("arch", "batch", "classes", "image_size", "dtype")
    settings = {name: getattr(options, name) for name in names}
    clf, images, labels, bank = planted(**settings)
    predicted = jax.jit(lambda clf, x: clf(x).argmax(-1))(clf, images)
    # CVE's candidates: the bank's, which are the best of each reference, and ordinary cells.
    cells = jax.lax.map(lambda x: clf.feature_map(x[None]).cells[0], images)
    best = jnp.asarray(bank.cells)[labels]
    flat = cells.reshape(-1, cells.shape[-1])
    count = BankConfig.per_class * cells.shape[1] * cells.shape[2] - best.shape[1]
    more = jax.random.choice(jax.random.key(1), flat, (len(best), count))
    every = bank_of(clf.head, jnp.concatenate([best, more], axis=1), BankConfig())

    def case(size: int) -> Case:
        candidates = bank.for_targets(labels[:size]), every.for_targets(np.arange(size))
        samples = images[:size], predicted[:size], labels[:size]
        return calls(clf, samples, *candidates, SearchConfig())

    results = Results(options.out / "table2_random.json", settings, stamp())
    ways = [(size, [case(size)]) for size in (1, options.batch)]
    measure_cases(results, options.methods, ways, bank)


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    random = arguments.add_argument_group("random weights in place of a preset")
    random.add_argument("--arch", help="resnet50, vgg16, ...")
    random.add_argument("--batch", type=at_least_1, default=BATCH)
    random.add_argument("--classes", type=at_least_1, default=200)
    random.add_argument("--image_size", type=at_least_1, default=224)
    random.add_argument("--dtype", default="float32", help="of the backbone")
    options = arguments.parse_args()
    if options.arch:
        measure_planted(options)
    else:
        from study import Study

        measure(Study(options))


if __name__ == "__main__":
    run(main)
