"""Table 2: time and memory of CE, CVE, CCE, RISE and FG-VCE, one sample at a time and in batches.

A preset's classifier explains its own mistakes, with its own bank:

    python benchmarks/table2.py --preset birds

On a machine without datasets, a network of random weights explains planted mistakes, whose search
takes 3 to 8 edits a sample. That needs jax, flax, optax, numpy and this package; matplotlib for
--figure:

    python benchmarks/table2.py --arch resnet50 --json table2.json --figure table2.svg

Memory is the compiled program's own analysis: arguments (weights, bank, images), results and
temporaries. A row's forward-pass equivalents (FPE) are its time over that of one plain forward pass
of the same images, the two measured in turn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Problem, describe, machine, median_times, planted_problem
from script import PAPER, Results, Table, choose, parser, positive, run

from fgvce_jax.bank import Bank
from fgvce_jax.config import SearchConfig
from fgvce_jax.errors import InputError
from fgvce_jax.explain import explain_cells
from fgvce_jax.heads import searchable
from fgvce_jax.memory import program_bytes
from fgvce_jax.methods.cce import cce, pgd
from fgvce_jax.methods.ce import ce
from fgvce_jax.methods.cve import cve_edits
from fgvce_jax.methods.rise import rise
from fgvce_jax.models import Classifier

if TYPE_CHECKING:
    from study import Study

LABELS = {"ce": "CE", "cve": "CVE", "cce": "CCE", "rise": "RISE", "fgvce": "FG-VCE"}
PAPER2 = PAPER["table2"]
CHUNK = 64
"""Masked images in one of RISE's forward passes."""


# --- what is measured ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Some samples, explained together, and the rows as functions of pytrees.

    Attributes:
        clf: The classifier.
        bank: FG-VCE's candidates.
        samples: Images [B, H, W, 3], P [B] and Q [B].
        every: What CVE searches for each sample: all cells of Q's references [B, N, C], what the
            head prepares of them, and which are valid [B, N].
        search: FG-VCE's search.
    """

    clf: Classifier
    bank: Bank
    samples: tuple[Any, Any, Any]
    every: tuple[Any, Any, Any]
    search: SearchConfig

    def row(self, name: str, rise_masks: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """(function, arguments) of a row."""
        if name == "ce":
            return ce, (self.clf, *self.samples)
        if name == "cce":
            return cce, (self.clf, *self.samples)
        if name == "rise":
            function = partial(rise, num_masks=rise_masks, chunk=CHUNK)
            return lambda clf, x, p, q: function(clf, x, p), (self.clf, *self.samples)
        if name == "cve":
            function = partial(explain_exhaustively, self.search.max_iterations)
            return function, (self.clf, self.every, *self.samples)
        bank, groups = self.bank.select(np.asarray(self.samples[2]))
        return partial(explain, self.search), (self.clf, bank, groups, *self.samples)


def forward(clf, images, predicted, target):
    """The plain classifier."""
    return clf(images)


def explain(search, clf, bank, groups, images, predicted, target):
    """FG-VCE, from pixels to maps."""
    cells = clf.features(images)
    return explain_cells(searchable(clf.head), bank, cells, target, search, groups)


def explain_exhaustively(max_iterations, clf, every, images, predicted, target):
    """CVE, from pixels to edits."""

    def one(sample):
        cells, target, (candidates, prepared, valid) = sample
        found = cve_edits(
            clf.head,
            cells,
            target,
            candidates,
            prepared=prepared,
            valid=valid,
            max_iterations=max_iterations,
        )
        return found.edit_cell, found.edit_candidate, found.num_edits, found.p_target

    return jax.lax.map(one, (clf.features(images), target, every))


def measure(
    cases: Sequence[Case], name: str, rise_masks: int, rise_measured: int, repeats: int
) -> dict[str, Any]:
    """Seconds, bytes and FPE of a row on cases of one size, one after another.

    RISE's time is scaled from the masks measured to all.
    """
    compiled, inputs = _compiled([case.row(name, rise_measured) for case in cases])
    plain, plain_inputs = _compiled([(forward, (case.clf, *case.samples)) for case in cases])

    def sweep(program, inputs):
        for arguments in inputs:
            jax.block_until_ready(program(*arguments))

    seconds, forward_seconds = median_times(
        [partial(sweep, compiled, inputs), partial(sweep, plain, plain_inputs)],
        repeats=2 if name == "rise" else repeats,
    )
    if name == "rise":
        seconds *= rise_masks / rise_measured
    together = len(cases[0].samples[0])
    count = together * len(cases)
    return {
        "samples": count,
        "seconds_per_sample": seconds / count,
        "forward_seconds_per_sample": forward_seconds / count,
        "fpe": seconds / forward_seconds,
        "bytes": program_bytes(compiled),
        "bytes_per_sample": program_bytes(compiled) / together,
        "forward_bytes": program_bytes(plain),
    }


def _compiled(calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> tuple[Any, list[Any]]:
    """One program for calls of one function on arrays of one size, and their arguments."""
    inputs = [jax.device_put(arguments) for _, arguments in calls]
    return jax.jit(calls[0][0]).lower(*inputs[0]).compile(), inputs


def work(cases: Sequence[Case]) -> dict[str, Any]:
    """How much there was to do, so that no row is taken for one of trivial samples."""
    edited, exhaustive = (
        _compiled([case.row(n, CHUNK) for case in cases]) for n in ("fgvce", "cve")
    )
    found = [edited[0](*arguments) for arguments in edited[1]]
    attacks = [pgd(case.clf, case.samples[0], case.samples[2]) for case in cases]

    def of_all(arrays):
        return np.concatenate([np.asarray(array) for array in arrays])

    return {
        "fgvce_edits": of_all(e.num_edits for e in found).tolist(),
        "fgvce_flipped": float(of_all(e.flipped for e in found).mean()),
        "cve_edits": of_all(exhaustive[0](*a)[2] for a in exhaustive[1]).tolist(),
        "cce_steps": of_all(a.num_steps for a in attacks).tolist(),
        "cce_flipped": float(of_all(a.flipped for a in attacks).mean()),
    }


def one_exhaustive_edit(case: Case, repeats: int) -> dict[str, Any]:
    """CVE's inner step: all pairs of a sample's cells and its candidates, tried for one edit."""
    cells = jax.jit(lambda clf, x: clf.features(x))(case.clf, case.samples[0][:1])[0]
    search = jax.jit(partial(cve_edits, max_iterations=1))
    candidates, prepared, _ = jax.tree.map(lambda leaf: leaf[0], case.every)
    (seconds,) = median_times(
        [lambda: search(case.clf.head, cells, case.samples[2][0], candidates, prepared=prepared)],
        repeats=max(repeats, 20),
    )
    pairs = [cells.shape[0] * cells.shape[1], len(candidates)]
    return {"pairs": pairs, "milliseconds": seconds * 1000}


def rise_per_mask(clf: Classifier, images: jax.Array, masks: int, repeats: int) -> dict[str, Any]:
    """RISE of one image over as many plain forward passes, in batches of the same size.

    The two are measured in turn. The plain passes see different images, as RISE's do.
    """
    batches = masks // CHUNK
    some = jnp.tile(images, (-(-CHUNK // len(images)), 1, 1, 1))[:CHUNK]

    @jax.jit
    def plain(clf, images):
        return jax.lax.map(lambda shift: clf(images + shift), 1e-3 * jnp.arange(batches))

    label = jnp.zeros(1, jnp.int32)
    seconds, forward_seconds = median_times(
        [
            lambda: rise(clf, images[:1], label, num_masks=batches * CHUNK, chunk=CHUNK),
            lambda: plain(clf, some),
        ],
        repeats=max(repeats, 7),
    )
    return {
        "chunk": CHUNK,
        "masks": batches * CHUNK,
        "repeats": max(repeats, 7),
        "seconds": seconds,
        "forward_seconds": forward_seconds,
        "ratio": seconds / forward_seconds,
    }


def usual_masks(arch: str) -> int:
    """RISE's number of masks in its paper."""
    return 4000 if arch.startswith("vgg") else 8000


# --- what is said of it -------------------------------------------------------------------------


def as_table(rows: Mapping[str, Sequence[dict[str, Any]]], batch: int, notes: list[str]) -> Table:
    """Rows of (one at a time, in batches), the paper's figures beside them."""
    columns = ["Method", "s, one sample", f"s a sample, batch {batch}"]
    columns += ["FPE, one", f"FPE, batch {batch}"]
    columns += ["MB, one sample", f"MB a sample, batch {batch}", "paper: s", "paper: GB"]
    table = [
        [
            LABELS[name],
            f"{one['seconds_per_sample']:.3g}",
            f"{many['seconds_per_sample']:.3g}",
            *(
                f"{way['fpe']:.3g}" if way["fpe"] < 1000 else f"{way['fpe']:,.0f}"
                for way in (one, many)
            ),
            f"{one['bytes'] / 1e6:,.0f}",
            f"{many['bytes_per_sample'] / 1e6:,.0f}",
            *map(str, PAPER2["rows"][name]),
        ]
        for name, (one, many) in rows.items()
    ]
    return Table(columns, table, notes)


def remarks(
    done: Mapping[str, Any], rise_masks: int, rise_measured: int, bank_bytes: int
) -> list[str]:
    """Footnotes on how much there was to do, and on what is counted as memory."""

    def span(key: str) -> str:
        low, high = min(done[key]), max(done[key])
        return f"{low}" if low == high else f"{low} to {high}"

    return [
        f"RISE: {rise_masks} masks, scaled from {rise_measured}. Edits of FG-VCE: "
        f"{span('fgvce_edits')}, of CVE: {span('cve_edits')}; steps of CCE's attack: "
        f"{span('cce_steps')}.",
        "Memory counts the weights and, for FG-VCE and CVE, the candidates of the samples' own "
        f"targets. The bank of all classes, {bank_bytes / 1e6:,.0f} MB, stays on the host.",
    ]


def table(result: Mapping[str, Any]) -> str:
    """What a network of random weights came to, in Markdown."""
    settings, done = result["settings"], result["work"]
    notes = [
        f"Measured on {settings['arch']} with random weights and planted mistakes, "
        f"{settings['classes']} classes, {settings['image_size']} px, {settings['dtype']} "
        f"backbone. {describe(result['machine'])}. The paper's: {PAPER2['device']}.",
        *remarks(done, settings["rise_masks"], settings["rise_measured"], settings["bank_bytes"]),
    ]
    if max(done["cce_steps"]) == 1:
        notes.append(
            "On random weights one step of the attack suffices for every sample, so CCE's time is "
            "the least it can be; a trained classifier takes more."
        )
    if "rise_per_mask" in result:
        found = result["rise_per_mask"]
        notes.append(
            f"RISE: {found['ratio']:.2f} forward passes a mask, in batches of {found['chunk']} "
            f"({found['masks']} masks and as many plain passes in turn, median of "
            f"{found['repeats']})."
        )
    if "one_exhaustive_edit" in result:
        step = result["one_exhaustive_edit"]
        notes.append(
            f"CVE, all {step['pairs'][0]} x {step['pairs'][1]} pairs of one edit: "
            f"{step['milliseconds']:.2f} ms."
        )
    return as_table(result["rows"], settings["batch"], notes).markdown()


def draw(rows: Mapping[str, Sequence[dict[str, Any]]], batch: int, title: str, path: Path) -> None:
    """Seconds and memory for each row beside the paper's, as bars."""
    from matplotlib.figure import Figure

    names = [LABELS[name] for name in rows]
    panels = {
        "seconds a sample": (
            [one["seconds_per_sample"] for one, _ in rows.values()],
            [many["seconds_per_sample"] for _, many in rows.values()],
            [PAPER2["rows"][name][0] for name in rows],
        ),
        "GB a sample": (
            [one["bytes"] / 1e9 for one, _ in rows.values()],
            [many["bytes_per_sample"] / 1e9 for _, many in rows.values()],
            [PAPER2["rows"][name][1] for name in rows],
        ),
    }
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    place = np.arange(len(names))
    kinds = ["here, one sample", f"here, batch {batch}", f"the paper ({PAPER2['device']})"]
    colours = ["#1f77b4", "#7fb3d9", "#b0b0b0"]
    for axis, (label, series) in zip(axes, panels.items(), strict=True):
        for k, (values, kind, colour) in enumerate(zip(series, kinds, colours, strict=True)):
            axis.barh(place + 0.27 * (k - 1), values, 0.25, label=kind, color=colour)
        axis.set(xscale="log", xlabel=label, yticks=place, yticklabels=names)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


# --- a preset -----------------------------------------------------------------------------------


def cases_of(study: Study, together: int) -> list[Case]:
    """The study's samples, `together` of them in a case; those left over are left out."""
    bank, whole = study.bank(study.top_m, study.sigma), study.bank(None, study.sigma)
    cases = []
    for start in range(0, len(study) - together + 1, together):
        part = slice(start, start + together)
        samples = study.images[part], study.predicted[part], study.target[part]
        group = whole.group(samples[2])
        every = jax.tree.map(partial(_at, group), (whole.cells, whole.prepared, whole.valid))
        cases.append(Case(study.clf, bank, samples, every, study.config.search))
    return cases


def _at(index: np.ndarray, leaf: Any) -> Any:
    return leaf[index]


def measure_preset(options: argparse.Namespace) -> None:
    """A preset's classifier on its own mistakes: JSON, CSV and picture in --out."""
    from study import Study

    names = choose("method", options.methods, LABELS)
    study = Study(options)
    masks = options.rise_masks or usual_masks(study.settings["arch"] or "")
    batch = min(options.batch_size, len(study))
    alone, together = cases_of(study, 1), cases_of(study, batch)
    name = f"table2_{Path(options.preset).stem}"
    results = Results(name, study, batch=batch, repeats=options.repeats)
    results.measure(["work"], lambda _: work(alone))
    constants = {"masks": masks, "measured": options.rise_measured}
    results.measure(
        names,
        lambda name: {
            "ways": [
                measure(cases, name, masks, options.rise_measured, options.repeats)
                for cases in (alone, together)
            ]
        },
        lambda name: constants if name == "rise" else {},
    )
    rows = results.among(LABELS)
    constants = rows.get("rise", {}).get("constants", constants)
    s = study.settings
    notes = [
        f"Measured on the {len(study)} misclassified samples of `{s['dataset']}` with "
        f"{s['arch']}, {study.clf.num_classes} classes, {s['image_size']} px: each alone, and "
        f"{len(together) * batch} of them in batches. {describe(results.content['machine'])}. The "
        f"paper's: {PAPER2['device']}, other networks and data.",
        *remarks(
            results.rows["work"],
            constants["masks"],
            constants["measured"],
            sum(leaf.nbytes for leaf in jax.tree.leaves(study.bank(study.top_m, study.sigma))),
        ),
    ]
    ways = {name: found["ways"] for name, found in rows.items()}
    results.finish(as_table(ways, batch, notes))
    title = f"{s['arch']}, {s['dataset']}, on {describe(results.content['machine'])}"
    draw(ways, batch, title, results.path.with_suffix(".png"))


# --- random weights -----------------------------------------------------------------------------


def planted_cases(problem: Problem, batch: int) -> tuple[Case, Case]:
    """The first sample alone, and all of them."""
    predicted = jax.jit(lambda clf, x: clf(x).argmax(-1))(problem.clf, problem.images)
    candidates = all_reference_cells(problem, 20, jax.random.key(1))
    prepared = jax.jit(searchable(problem.clf.head).prepare)(candidates)
    every = candidates, prepared, jnp.ones(candidates.shape[:2], bool)
    samples = problem.images, predicted, jnp.asarray(problem.labels)

    def first(count):
        some, searched = jax.tree.map(lambda leaf: leaf[:count], (samples, every))
        return Case(problem.clf, problem.bank, some, searched, SearchConfig())

    return first(1), first(batch)


def all_reference_cells(problem: Problem, references: int, key: jax.Array) -> jax.Array:
    """What CVE searches for each sample, [B, references * n^2, C].

    The bank's cells are the best of each reference image; ordinary cells of the problem's images
    stand for the rest.
    """
    cells = jax.lax.map(lambda x: problem.clf.features(x[None])[0], problem.images)
    count = references * cells.shape[1] * cells.shape[2]
    best = problem.bank.cells[jnp.asarray(problem.labels)]
    ordinary = jax.random.choice(
        key, cells.reshape(-1, cells.shape[-1]), (len(best), count - best.shape[1])
    )
    return jnp.concatenate([best, ordinary], axis=1)


def measure_planted(options: argparse.Namespace) -> None:
    """A network of random weights: what --json and --figure ask for."""
    positive(options, "batch_size", "classes", "repeats")
    names = choose("method", options.methods, LABELS)
    arch = options.arch or "resnet50"
    masks = options.rise_masks or usual_masks(arch)
    problem = planted_problem(
        arch,
        options.batch_size,
        classes=options.classes,
        image_size=options.image_size,
        dtype=options.dtype,
    )
    alone, together = planted_cases(problem, options.batch_size)
    result: dict[str, Any] = {
        "benchmark": "table2",
        "machine": machine(),
        "settings": {
            "arch": arch,
            "batch": options.batch_size,
            "classes": options.classes,
            "image_size": options.image_size,
            "dtype": options.dtype,
            "rise_masks": masks,
            "rise_measured": options.rise_measured,
            "bank_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(problem.bank)),
        },
        "work": work([together]),
        "rows": {},
        "paper": PAPER2,
    }
    if "rise" in names:
        result["rise_per_mask"] = rise_per_mask(
            problem.clf, problem.images, options.rise_measured, options.repeats
        )
    if arch == "resnet50":
        result["one_exhaustive_edit"] = one_exhaustive_edit(together, options.repeats)
    for name in names:
        result["rows"][name] = [
            measure([case], name, masks, options.rise_measured, options.repeats)
            for case in (alone, together)
        ]
        print(f"{name} done", flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    if options.figure:
        title = f"{arch}, random weights, on {describe(result['machine'])}"
        draw(result["rows"], options.batch_size, title, options.figure)


def main() -> None:
    """Measure, print, write, draw."""
    arguments = parser(__doc__.splitlines()[0], list(LABELS))
    arguments.set_defaults(batch_size=16, rise_masks=None)
    arguments.add_argument(
        "--rise_measured", type=int, default=CHUNK, help=f"masks measured, a multiple of {CHUNK}"
    )
    arguments.add_argument("--repeats", type=int, default=7)
    planted = arguments.add_argument_group("random weights in place of a preset")
    planted.add_argument("--arch", help="their architecture; resnet50 where --json is given")
    planted.add_argument("--classes", type=int, default=200)
    planted.add_argument("--image_size", type=int, default=224)
    planted.add_argument("--dtype", default="float32", help="of the backbone")
    planted.add_argument("--json", type=Path, help="file to write")
    planted.add_argument("--figure", type=Path, help="picture to write")
    options = arguments.parse_args()
    if options.rise_measured % CHUNK or options.rise_measured < CHUNK:
        raise InputError(f"--rise_measured {options.rise_measured}: expected a multiple of {CHUNK}")
    if options.arch or options.json or options.figure:
        measure_planted(options)
    else:
        measure_preset(options)


if __name__ == "__main__":
    run(main)
