"""A run over photographs as one JSON: what was found, and where the time went.

fgvce explain --data.name folder --data.path PATH --split val --model.checkpoint lite0 --out RUN
python benchmarks/paper/photographs.py RUN

It holds numbers and class names, no picture.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.paper.results import Table, run
from benchmarks.provenance import stamp
from fgvce_jax.files import write_json
from fgvce_jax.models import open_classifier
from fgvce_jax.results import RunResults, flips, read_run

PAIRS = 12  # of the most frequent mistakes, in the table


def confused(results: RunResults) -> Table:
    """The most frequent pairs of a true class and a predicted one, and what their edits come to."""
    names = ["target_name", "predicted_name", "num_edits", "p_target_after"]
    rows = results.explanations.read(names).to_pylist()
    pairs = Counter((row["target_name"], row["predicted_name"]) for row in rows)
    lines = []
    for (target, predicted), count in pairs.most_common(PAIRS):
        own = [r for r in rows if (r["target_name"], r["predicted_name"]) == (target, predicted)]
        edits = sum(row["num_edits"] for row in own) / count
        final = sum(row["p_target_after"] for row in own) / count
        lines.append([target, predicted, count, edits, final])
    columns = ["Class (Q)", "Predicted (P)", "Images", "Edits, mean", "p(Q) after, mean"]
    return Table(columns, lines)


def measure(folder: Path) -> dict[str, Any]:
    """The JSON of a run."""
    results = read_run(folder)
    info, timings = results.info, results.info["timings"]
    forward = timings["seconds"].get("forward")  # none where every part was there before
    return {
        "provenance": stamp(open_classifier(results.config.model)),
        "settings": {
            "dataset": "photographs",
            "classes": sorted(info["classes"].values()),
            "preprocessing": info["preprocessing"]["text"],
            "per_class": results.config.bank.per_class,
            "top_m": results.config.bank.top_m,
        },
        "counts": info["counts"],
        "flips": flips(results),
        "timings": timings,
        "images_per_s": timings["images"] / timings["total"],
        "forward_images_per_s": forward and timings["images"] / forward,
        "peak_memory_mib": info["peak_memory_mib"],
        "tables": {"pairs": vars(confused(results))},
    }


def main() -> None:
    """Write the JSON and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "photographs.json")
    options = parser.parse_args()
    found = measure(options.run)
    write_json(options.json, found)
    print(Table(**found["tables"]["pairs"]).markdown())


if __name__ == "__main__":
    run(main)
