"""Near-KP, Same-KP and edits on CUB-200-2011, beside the published figures.

The question is that of Vandenhende et al. (Making Heads or Tails, ECCV 2022): every image of the
test split that is classified correctly is asked why it is its class P and not Q, the class that
images of P are most often taken for. Classes that are never mistaken are not asked. Reference
images are of the test split too, the first 20 of Q that are classified correctly (theirs: a random
20); for Goyal et al. the first one alone (theirs: a random one).

python benchmarks/paper/cub.py --preset cub_vgg16 --checkpoint classifiers/cub_vgg16 --data data
"""

import argparse
from copy import copy
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from parts import agree
from results import PAPER, Table, absences, parser, run
from study import Study, open_config

from fgvce_jax.data.pipeline import warn_skipped
from fgvce_jax.errors import InputError
from fgvce_jax.inference import Predictor
from fgvce_jax.run_inputs import RunInputs, open_inputs

PUBLISHED = PAPER["cub_edits"]
LABELS = {
    "cve": "CVE, 1 reference image",
    "cve_semantic": "CVE-semantic, the classifier's own features",
    "fgvce": "FG-VCE",
    "fgvce_matched": "FG-VCE (matched)",
}


def confused_with(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The class that images of each class are most often taken for, int [K]; -1 where none is.

    Of two that are equal the one with the lower number.
    """
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (labels, predicted), 1)
    np.fill_diagonal(counts, 0)
    return np.where(counts.any(1), counts.argmax(1), -1)


def predictions(inputs: RunInputs, batch_size: int) -> np.ndarray:
    """The class predicted for every image of the split, int [N]; -1 for one that is not read."""
    predictor, found = Predictor(inputs.clf, batch_size), np.full(len(inputs.labels), -1)
    for batch in predictor.batches(inputs.dataset, np.arange(len(found)), warn_skipped):
        found[batch.index] = predictor(batch)[1].argmax(-1)
    return found


def open_study(options: argparse.Namespace) -> tuple[Study, float]:
    """The images that are asked about, with Q as their target, and the accuracy of the split."""
    config = open_config(options)
    config = replace(config, reference_split=config.split)
    inputs = open_inputs(config)
    labels = np.asarray(inputs.labels)
    predicted = predictions(inputs, options.batch_size)
    read = predicted >= 0
    target = confused_with(predicted[read], labels[read], inputs.clf.num_classes)[labels]
    asked = np.flatnonzero((predicted == labels) & (target >= 0))
    if not len(asked):
        raise InputError("no class is mistaken for another; expected some mistakes")
    options.images = min(options.images, len(asked))
    study = Study(options, asked, config)
    study.target = target[study.index].astype(np.int32)
    return study, float((predicted == labels)[read].mean())


def with_one_reference(study: Study) -> Study:
    """The same images with one reference image of each class."""
    one = copy(study)
    one.config = replace(study.config, bank=replace(study.config.bank, per_class=1))
    return one


def edits(study: Study, name: str) -> dict[str, Any]:
    """The measures of a method's edits; see `parts.agree`."""
    return agree(with_one_reference(study) if name == "cve" else study, f"edits_{name}")


def row(label: str, found: dict[str, Any]) -> list[Any]:
    """A line of the table."""
    counts, flipped = found.get("edits", []), found.get("flipped", [])
    changed = [count for count, done in zip(counts, flipped, strict=True) if done]
    keys = ("near_kp_all", "same_kp_all", "near_kp_first", "same_kp_first")
    near, same, *first = (found.get(key) for key in keys)
    mean = fmean(changed) if changed else None
    return [label, near, same, mean, *first, len(counts) - len(changed)]


def measure(options: argparse.Namespace) -> None:
    """Measure, print and write the table."""
    study, accuracy = open_study(options)
    arch = "" if study.clf.spec is None else study.clf.spec.arch.removesuffix("_bn")
    name = f"cub_{arch}" if arch else "cub_edits"
    settings = {"references": study.config.reference_split, "accuracy": accuracy}
    results, rows = study.measure(name, lambda name: edits(study, name), LABELS, **settings)
    lines = [row(LABELS[name], found) for name, found in rows.items()]
    for published in PUBLISHED.get(arch, []):
        lines.append([published["label"], *published["values"], None, None, None])
    columns = ["Method", "Near-KP", "Same-KP", "Edits, mean", "Near-KP, first", "Same-KP, first"]
    notes = [f"{len(study)} images; accuracy on the split {accuracy:.1%}.", *absences(rows, LABELS)]
    results.finish(table=Table([*columns, "Not changed"], lines, notes))


def main() -> None:
    """Read the options, and measure."""
    options = parser(__doc__)
    options.set_defaults(preset="cub_vgg16", images=10_000)
    measure(options.parse_args())


if __name__ == "__main__":
    run(main)
