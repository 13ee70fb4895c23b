"""Table 2: time and memory of CE, CVE, CCE, RISE and FG-VCE, one sample at a time and in batches.

A preset's classifier explains its own mistakes, with its own bank. With --arch, a network of random
weights explains planted mistakes instead; that needs jax, flax, optax, numpy and the package only:

    python benchmarks/paper/table2.py --preset birds
    python benchmarks/paper/table2.py --arch resnet50
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from results import PAPER, Results, Table, at_least_1, choose, parser, run

from benchmarks.provenance import stamp
from benchmarks.speed.planted import Planted, planted
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


class Case(NamedTuple):
    """Some samples that are explained together.

    Attributes:
        clf: The classifier.
        samples: Images [B, H, W, 3], P [B] and Q [B].
        candidates: FG-VCE's.
        every: CVE's: all cells of Q's reference images.
        config: The search.
    """

    clf: Classifier
    samples: tuple[Any, Any, Any]
    candidates: Candidates
    every: Candidates
    config: SearchConfig

    def call(self, name: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A row as a function of arrays, from pixels to maps or edits, and its arguments."""
        images, predicted, target = self.samples
        if name == "fgvce":
            search = partial(explain_one, config=self.config)
            function = partial(_searched, search, self.config.chunk)
            return function, (self.clf, self.candidates, images, target)
        if name == "cve":
            search = partial(cve_edits, max_iterations=self.config.max_iterations)
            return partial(_searched, search, 1), (self.clf, self.every, images, target)
        function = METHODS[name].load()
        if name == "rise":
            function = partial(function, num_masks=MEASURED, chunk=MEASURED)
            return function, (self.clf, images, predicted)
        return function, (self.clf, *self.samples)


def _searched(search, chunk, clf, candidates, images, targets):
    head, cells = searchable(clf.head), clf.features(images)
    return each_problem(search, head, candidates, cells, targets, chunk)


def _compiled(calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> tuple[Any, list[Any]]:
    """One program for calls of one function on arrays of one size, and their arguments."""
    inputs = [jax.device_put(arguments) for _, arguments in calls]
    return jax.jit(calls[0][0]).lower(*inputs[0]).compile(), inputs


def measure_row(cases: Sequence[Case], name: str, masks: int) -> dict[str, Any]:
    """Seconds, bytes and FPE of a row on cases of one size, one after another."""
    program, inputs = _compiled([case.call(name) for case in cases])
    plain, plain_inputs = _compiled(
        [(lambda clf, images: clf(images), (case.clf, case.samples[0])) for case in cases]
    )

    def sweep(program, inputs):
        for arguments in inputs:
            jax.block_until_ready(program(*arguments))

    seconds, forward_seconds = median_times(
        [partial(sweep, program, inputs), partial(sweep, plain, plain_inputs)],
        repeats=2 if name == "rise" else REPEATS,
    )
    if name == "rise":
        seconds *= masks / MEASURED
    together = len(cases[0].samples[0])
    return {
        "seconds_per_sample": seconds / (together * len(cases)),
        "fpe": seconds / forward_seconds,
        "bytes_per_sample": program_bytes(program) / together,
        "forward_bytes": program_bytes(plain),
    }


def work(cases: Sequence[Case], bank: Bank) -> dict[str, Any]:
    """How much there was to do, so that no row is taken for one of trivial samples."""
    out: dict[str, Any] = {"bank_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(bank))}
    for name in ("fgvce", "cve"):
        program, inputs = _compiled([case.call(name) for case in cases])
        edits = [program(*arguments).num_edits for arguments in inputs]
        out[f"{name}_edits"] = np.concatenate(edits).tolist()
    attacks = [pgd(case.clf, case.samples[0], case.samples[2]) for case in cases]
    out["cce_steps"] = np.concatenate([attack.num_steps for attack in attacks]).tolist()
    return out


def measure_cases(
    results: Results,
    methods: str | None,
    alone: Sequence[Case],
    batched: Sequence[Case],
    bank: Bank,
) -> None:
    """Measure, print and write the rows, each sample alone and in batches."""
    arch = results.content["settings"]["arch"] or ""
    masks = 4000 if arch.startswith("vgg") else 8000
    results.measure(["work"], lambda _: work(alone, bank))
    results.measure(
        choose("method", methods, LABELS),
        lambda name: {"ways": [measure_row(cases, name, masks) for cases in (alone, batched)]},
    )
    found = results.among(["work", *LABELS])
    results.finish(table=table_of(found, len(batched[0].samples[0]), masks))


def table_of(found: Mapping[str, Any], batch: int, masks: int) -> Table:
    """Each row one sample at a time and in batches, the paper's figures beside it."""
    done = found["work"]

    def span(key: str) -> str:
        low, high = min(done[key]), max(done[key])
        return f"{low}" if low == high else f"{low} to {high}"

    note = (
        f"RISE: {masks} masks, scaled from {MEASURED}. Edits of FG-VCE: {span('fgvce_edits')}, of "
        f"CVE: {span('cve_edits')}; steps of CCE's attack: {span('cce_steps')}. Bank on the host: "
        f"{done['bank_bytes'] / 1e6:,.0f} MB."
    )
    columns = ["Method", "s, one sample", f"s a sample, batch {batch}"]
    columns += ["FPE, one", f"FPE, batch {batch}"]
    columns += ["MB, one sample", f"MB a sample, batch {batch}", "paper: s", "paper: GB"]
    table = [
        [
            LABELS[name],
            *(f"{way['seconds_per_sample']:.3g}" for way in ways),
            *(f"{way['fpe']:.3g}" if way["fpe"] < 1000 else f"{way['fpe']:,.0f}" for way in ways),
            *(f"{way['bytes_per_sample'] / 1e6:,.0f}" for way in ways),
            *map(str, PUBLISHED[name]),
        ]
        for name, ways in ((name, row["ways"]) for name, row in found.items() if name != "work")
    ]
    return Table(columns, table, [note])


def measure(study: Any) -> None:
    """A preset's classifier on its own mistakes."""
    bank, whole = study.bank(study.top_m, study.sigma), study.bank(None, study.sigma)
    batch = min(BATCH, len(study))

    def cases(together: int) -> Iterator[Case]:  # samples left over are left out
        for start in range(0, len(study) - together + 1, together):
            part = slice(start, start + together)
            samples = study.images[part], study.predicted[part], study.target[part]
            held = bank.for_targets(samples[2]), whole.for_targets(samples[2])
            yield Case(study.clf, samples, *held, study.config.search)

    results = study.results("table2", batch=batch, repeats=REPEATS)
    measure_cases(results, study.options.methods, list(cases(1)), list(cases(batch)), bank)


# --- random weights -----------------------------------------------------------------------------


def measure_planted(options: argparse.Namespace) -> None:
    """A network of random weights on planted mistakes."""
    names = ("arch", "batch", "classes", "image_size", "dtype")
    settings = {name: getattr(options, name) for name in names}
    problem = planted(**settings)
    every = _all_reference_cells(problem, BankConfig.per_class)
    predicted = jax.jit(lambda clf, x: clf(x).argmax(-1))(problem.clf, problem.images)

    def case(count: int) -> Case:
        samples = problem.images[:count], predicted[:count], problem.labels[:count]
        own = jax.tree.map(lambda leaf: leaf[:count], every)
        return Case(problem.clf, samples, problem.bank.for_targets(samples[2]), own, SearchConfig())

    results = Results(options.out / "table2_random.json", settings, stamp())
    measure_cases(results, options.methods, [case(1)], [case(options.batch)], problem.bank)


def _all_reference_cells(problem: Planted, references: int) -> Candidates:
    """CVE's candidates: the bank's, which are the best of each reference, and ordinary cells."""
    cells = jax.lax.map(lambda x: problem.clf.features(x[None])[0], problem.images)
    best = problem.bank.for_targets(problem.labels)
    best = jnp.asarray(best.cells)[best.group]
    count = references * cells.shape[1] * cells.shape[2] - best.shape[1]
    key, flat = jax.random.key(1), cells.reshape(-1, cells.shape[-1])
    candidates = jnp.concatenate([best, jax.random.choice(key, flat, (len(best), count))], axis=1)
    return Candidates(
        cells=candidates,
        norms=jnp.linalg.norm(candidates, axis=-1),
        prepared=jax.jit(searchable(problem.clf.head).prepare)(candidates),
        valid=jnp.ones(candidates.shape[:2], bool),
        group=jnp.arange(len(best)),
    )


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
