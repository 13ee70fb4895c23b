"""Label errors that were planted: does the report's score rank them above the model's own mistakes?

One label in ten of a split's images is replaced, half of them (where classes have siblings, as in
the birds) by a sibling's. The mistakes on the split are explained, and scored by
`fgvce_jax.report.suspects`, whose weights were fitted with the birds' seeds 0 and 1. Stated is the
average precision, beside the share of planted errors among the mistakes, which is what chance
reaches, and that of each kind of evidence alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.paper.results import run
from benchmarks.provenance import stamp
from fgvce_jax.bank import build_bank
from fgvce_jax.config import BankConfig, DataConfig, ExplainConfig, ModelConfig
from fgvce_jax.data.birds import siblings
from fgvce_jax.data.pipeline import image_loader
from fgvce_jax.files import write_json
from fgvce_jax.inference import Explainer, Predictor
from fgvce_jax.report.suspects import SUSPECT_FROM, evidence, suspicion
from fgvce_jax.results import ImageResult
from fgvce_jax.run_inputs import open_inputs


def plant(labels: np.ndarray, birds: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels with one in ten replaced, and which."""
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    places = rng.choice(len(labels), len(labels) // 10, replace=False)
    moved = labels.copy()
    for k, i in enumerate(places):
        others = siblings(labels[i]) if birds and k % 2 else classes[classes != labels[i]]
        moved[i] = rng.choice(others)
    return moved, np.isin(np.arange(len(labels)), places)


def as_row(result: ImageResult) -> dict[str, Any]:
    """What the score looks at, as the run's table has it."""
    return {
        "predicted": result.predicted,
        "target": result.label,
        "p_predicted_before": result.p_predicted[0],
        "p_target_before": result.p_target[0],
        "edits": [vars(edit) for edit in result.edits],
        "nearest": np.asarray(result.nearest).tolist(),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The average precision for each seed."""
    data = DataConfig(options.data, options.path)
    splits = {"split": options.split, "reference_split": "train"}
    config = ExplainConfig(data=data, model=ModelConfig(checkpoint=options.checkpoint), **splits)
    inputs = open_inputs(config)
    load = image_loader(inputs.references, 50, inputs.clf.image_size, inputs.clf.resize_to)
    asked = {"classes": inputs.asked(config.pairs), "batch_size": 50}
    bank = build_bank(inputs.clf, load, inputs.reference_labels, BankConfig(), **asked)
    part = range(0, len(inputs.labels), max(1, len(inputs.labels) // options.images))
    predictor, rows = Predictor(inputs.clf, 50), []
    for seed in options.seeds:
        labels, planted = plant(inputs.labels, options.data == "birds", seed)
        explainer = Explainer(predictor, config.search, bank, inputs.references.ids)
        found = explainer(inputs.dataset, labels, part)
        wrong = [r for r in found if r.status == "explained" and r.edits]
        rows.append(scores([as_row(r) for r in wrong], planted[[r.index for r in wrong]]))
    return {
        "provenance": stamp(inputs.clf),
        "settings": {"dataset": options.data, "images": len(part), "planted": "one label in ten"},
        "rows": dict(zip(map(str, options.seeds), rows, strict=True)),
    }


def scores(rows: list[dict[str, Any]], planted: np.ndarray) -> dict[str, Any]:
    """Average precision of the score and of each kind of evidence, and of the suspects' share."""
    score = np.array([suspicion(row) for row in rows])
    kinds = [evidence(row) for row in rows]
    suspect = score >= SUSPECT_FROM
    return {
        "mistakes": len(rows),
        "planted": int(planted.sum()),
        "chance": float(planted.mean()),
        "average_precision": float(average_precision_score(planted, score)),
        "suspects": int(suspect.sum()),
        "suspects_planted": int((suspect & planted).sum()),
        "alone": {
            name: float(average_precision_score(planted, [kind[name] for kind in kinds]))
            for name in kinds[0]
        },
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", default="birds", help="birds or folder")
    parser.add_argument("--path", help="of the folder")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "birds"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found["rows"], indent=1))
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    run(main)
