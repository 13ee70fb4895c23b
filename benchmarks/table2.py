"""Table 2: time and memory of CE, CVE, CCE, RISE and FG-VCE, for one sample and in a batch.

Random weights and planted evidence, so that FG-VCE's search takes 3 to 8 edits a sample. Needs jax,
flax, optax, numpy and this package; matplotlib for --figure.

    python benchmarks/table2.py --json table2.json --figure table2.svg

Memory is the compiled program's own analysis: arguments (weights, bank, images), results and
temporaries. A row's forward-pass equivalents (FPE) are its time over that of one plain forward pass
of the same images, the two measured in turn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Problem, describe, machine, median_times, planted_problem

from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import explain_cells
from fgvce_jax.heads import searchable
from fgvce_jax.memory import program_bytes
from fgvce_jax.methods.cce import cce, pgd
from fgvce_jax.methods.ce import ce
from fgvce_jax.methods.cve import cve_edits
from fgvce_jax.methods.rise import rise

LABELS = {"ce": "CE", "cve": "CVE", "cce": "CCE", "rise": "RISE", "fgvce": "FG-VCE"}
PAPER = json.loads((Path(__file__).parent / "paper.json").read_text())["table2"]


class Case:
    """The first `count` samples of a problem, and the rows as functions of pytrees.

    Attributes:
        shared: What the rows get before the images: the classifier and the banks.
        samples: Images, P and Q of `count` samples.
    """

    def __init__(self, problem: Problem, candidates: jax.Array, predicted: jax.Array, count: int):
        self.clf = problem.clf
        self.bank, self.groups = problem.bank.select(problem.labels[:count])
        self.samples = jax.tree.map(
            lambda leaf: jnp.asarray(leaf[:count]), (problem.images, predicted, problem.labels)
        )
        self.candidates = candidates[:count]
        self.prepared = jax.jit(searchable(self.clf.head).prepare)(self.candidates)

    def row(self, name: str, rise_masks: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """(function, arguments) of a row."""
        if name == "ce":
            return ce, (self.clf, *self.samples)
        if name == "cce":
            return cce, (self.clf, *self.samples)
        if name == "rise":
            function = partial(rise, num_masks=rise_masks)
            return lambda clf, x, p, q: function(clf, x, p), (self.clf, *self.samples)
        if name == "cve":
            return explain_exhaustively, (
                self.clf,
                self.candidates,
                self.prepared,
                *self.samples,
            )
        return explain, (self.clf, self.bank, self.groups, *self.samples)


def forward(clf, images, predicted, target):
    """The plain classifier."""
    return clf(images)


def explain(clf, bank, groups, images, predicted, target):
    """FG-VCE, from pixels to maps."""
    cells = clf.features(images)
    return explain_cells(searchable(clf.head), bank, cells, target, SearchConfig(), groups)


def explain_exhaustively(clf, candidates, prepared, images, predicted, target):
    """CVE, from pixels to edits; candidates [B, N, C] are all cells of the target's references."""

    def one(sample):
        cells, target, candidates, prepared = sample
        found = cve_edits(clf.head, cells, target, candidates, prepared=prepared)
        return found.edit_cell, found.edit_candidate, found.num_edits, found.p_target

    return jax.lax.map(one, (clf.features(images), target, candidates, prepared))


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


def measure(case: Case, name: str, rise_masks: int, rise_measured: int, repeats: int) -> dict:
    """Seconds, bytes and FPE of a row; RISE's time is scaled from the masks measured to all."""
    function, arguments = case.row(name, rise_measured)
    compiled = jax.jit(function).lower(*arguments).compile()
    plain_arguments = (case.clf, *case.samples)
    plain = jax.jit(forward).lower(*plain_arguments).compile()
    seconds, forward_seconds = median_times(
        [lambda: compiled(*arguments), lambda: plain(*plain_arguments)],
        repeats=2 if name == "rise" else repeats,
    )
    if name == "rise":
        seconds *= rise_masks / rise_measured
    count = len(case.samples[0])
    return {
        "samples": count,
        "seconds_per_sample": seconds / count,
        "forward_seconds_per_sample": forward_seconds / count,
        "fpe": seconds / forward_seconds,
        "bytes": program_bytes(compiled),
        "bytes_per_sample": program_bytes(compiled) / count,
        "forward_bytes": program_bytes(plain),
    }


def work(case: Case) -> dict[str, Any]:
    """How much there was to do, so that no row is measured on trivial samples."""
    function, arguments = case.row("cve", 0)
    cve_count = jax.jit(function)(*arguments)[2]
    found = jax.jit(explain)(case.clf, case.bank, case.groups, *case.samples)
    images, _, target = case.samples
    attack = pgd(case.clf, images, target)
    return {
        "fgvce_edits": found.num_edits.tolist(),
        "fgvce_flipped": float(found.flipped.mean()),
        "cve_edits": cve_count.tolist(),
        "cce_steps": attack.num_steps.tolist(),
        "cce_flipped": float(attack.flipped.mean()),
    }


def one_exhaustive_edit(case: Case, repeats: int) -> dict[str, Any]:
    """CVE's inner step: all pairs of a sample's cells and its candidates, tried for one edit."""
    cells = jax.jit(lambda clf, x: clf.features(x))(case.clf, case.samples[0][:1])[0]
    search = jax.jit(partial(cve_edits, max_iterations=1))
    arguments = case.clf.head, cells, case.samples[2][0], case.candidates[0]
    (seconds,) = median_times(
        [lambda: search(*arguments, prepared=case.prepared[0])], repeats=max(repeats, 20)
    )
    pairs = [cells.shape[0] * cells.shape[1], len(case.candidates[0])]
    return {"pairs": pairs, "milliseconds": seconds * 1000}


def table(result: dict[str, Any]) -> str:
    """The result in Markdown, the paper's figures beside it."""
    batch = result["settings"]["batch"]
    lines = [
        f"| method | s, one sample | s a sample, batch {batch} | FPE, one | FPE, batch {batch} "
        f"| MB, one sample | MB a sample, batch {batch} | paper: s | paper: GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (one, many) in result["rows"].items():
        paper = PAPER["rows"][name]
        lines.append(
            f"| {LABELS[name]} | {one['seconds_per_sample']:.3g} | {many['seconds_per_sample']:.3g}"
            f" | {one['fpe']:.3g} | {many['fpe']:.3g} | {one['bytes'] / 1e6:,.0f}"
            f" | {many['bytes_per_sample'] / 1e6:,.0f} | {paper[0]} | {paper[1]} |"
        )
    settings, done = result["settings"], result["work"]
    lines += [
        "",
        f"{describe(result['machine'])}; {settings['arch']}, {settings['classes']} classes, "
        f"{settings['dtype']} backbone. The paper's: {PAPER['device']}.",
        f"RISE: {settings['rise_masks']} masks, scaled from {settings['rise_measured']}. Edits of "
        f"FG-VCE: {min(done['fgvce_edits'])} to {max(done['fgvce_edits'])}, of CVE: "
        f"{min(done['cve_edits'])} to {max(done['cve_edits'])}; steps of CCE's attack: "
        f"{min(done['cce_steps'])} to {max(done['cce_steps'])}.",
        "Memory counts the weights and, for FG-VCE and CVE, the candidates of the samples' own "
        f"targets. The bank of all classes, {settings['bank_bytes'] / 1e6:,.0f} MB, stays on the "
        "host.",
    ]
    if "one_exhaustive_edit" in result:
        step = result["one_exhaustive_edit"]
        lines.append(
            f"CVE, all {step['pairs'][0]} x {step['pairs'][1]} pairs of one edit: "
            f"{step['milliseconds']:.2f} ms."
        )
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Seconds and memory for each row beside the paper's, as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["rows"]
    batch = result["settings"]["batch"]
    names = [LABELS[name] for name in rows]
    panels = {
        "seconds a sample": (
            [one["seconds_per_sample"] for one, _ in rows.values()],
            [many["seconds_per_sample"] for _, many in rows.values()],
            [PAPER["rows"][name][0] for name in rows],
        ),
        "GB a sample": (
            [one["bytes"] / 1e9 for one, _ in rows.values()],
            [many["bytes_per_sample"] / 1e9 for _, many in rows.values()],
            [PAPER["rows"][name][1] for name in rows],
        ),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    place = np.arange(len(names))
    kinds = ["here, one sample", f"here, batch {batch}", f"the paper ({PAPER['device']})"]
    colours = ["#1f77b4", "#7fb3d9", "#b0b0b0"]
    for axis, (title, series) in zip(axes, panels.items(), strict=True):
        for k, (values, kind, colour) in enumerate(zip(series, kinds, colours, strict=True)):
            axis.barh(place + 0.27 * (k - 1), values, 0.25, label=kind, color=colour)
        axis.set(xscale="log", xlabel=title, yticks=place, yticklabels=names)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(
        f"{result['settings']['arch']} on {describe(result['machine'])}", fontsize="medium"
    )
    figure.savefig(path)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--dtype", default="float32", help="of the backbone")
    parser.add_argument("--methods", default=",".join(LABELS), help="rows, separated by commas")
    parser.add_argument("--rise_masks", type=int, help="8000 for a ResNet, 4000 for a VGG")
    parser.add_argument(
        "--rise_measured", type=int, default=64, help="masks measured, a multiple of 64"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--figure", type=Path, help="picture to write")
    options = parser.parse_args()
    names = options.methods.split(",")
    if unknown := [name for name in names if name not in LABELS]:
        parser.error(f"--methods {unknown[0]!r}: expected of {', '.join(LABELS)}")
    masks = options.rise_masks or (4000 if options.arch.startswith("vgg") else 8000)

    problem = planted_problem(
        options.arch,
        options.batch,
        classes=options.classes,
        image_size=options.image_size,
        dtype=options.dtype,
    )
    candidates = all_reference_cells(problem, 20, jax.random.key(1))
    predicted = jax.jit(lambda clf, x: clf(x).argmax(-1))(problem.clf, problem.images)
    cases = [Case(problem, candidates, predicted, count) for count in (1, options.batch)]
    bank_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.bank))
    result: dict[str, Any] = {
        "benchmark": "table2",
        "machine": machine(),
        "settings": {
            "arch": options.arch,
            "batch": options.batch,
            "classes": options.classes,
            "image_size": options.image_size,
            "dtype": options.dtype,
            "rise_masks": masks,
            "rise_measured": options.rise_measured,
            "bank_bytes": bank_bytes,
        },
        "work": work(cases[1]),
        "rows": {},
        "paper": PAPER,
    }
    if options.arch == "resnet50":
        result["one_exhaustive_edit"] = one_exhaustive_edit(cases[1], options.repeats)
    for name in names:
        result["rows"][name] = [
            measure(case, name, masks, options.rise_measured, options.repeats) for case in cases
        ]
        print(f"{name} done", flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    if options.figure:
        draw(result, options.figure)


if __name__ == "__main__":
    main()
