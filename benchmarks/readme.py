"""Draw the README's pictures from a run of the demo.

fgvce demo && python benchmarks/readme.py fgvce-demo
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data import open_dataset
from fgvce_jax.data.birds import PART_NAMES, differing_parts
from fgvce_jax.data.pipeline import preprocess
from fgvce_jax.models import open_classifier
from fgvce_jax.report import card_figure
from fgvce_jax.results import RunResults, read_run
from fgvce_jax.run import summary

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- demo begins -->\n", "<!-- demo ends -->\n"


def telling_row(results: RunResults, dataset) -> int:
    """The row whose dominant map has most of its energy on the part in which P and Q differ.

    Among those that flip after 2 to 5 edits and whose differing part is in plain view.
    """
    best, found = -1.0, 0
    for row, entry in enumerate(results.table.to_pylist()):
        parts = differing_parts(entry["predicted"], entry["target"])
        if len(parts) != 1 or not entry["flipped"] or not 2 <= entry["num_edits"] <= 5:
            continue
        mask = dataset[entry["index"]].part_masks[PART_NAMES.index(parts[0])]
        if mask.mean() < 0.01:
            continue
        dominant = np.maximum(results.maps["dominant"][row], 0)
        scale = mask.shape[0] // dominant.shape[0]
        share = (np.kron(dominant, np.ones((scale, scale))) * mask).sum() / dominant.sum()
        if share > best:
            best, found = share, row
    return found


def main() -> None:
    """Draw docs/card.png and write the summary between the README's two marks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="the demo's folder")
    parser.add_argument("--row", type=int, help="another row of the run's table")
    options = parser.parse_args()
    results = read_run(options.run)
    config = from_dict(ExplainConfig, results.info["config"])
    clf = open_classifier(config.model)
    dataset, references = (
        open_dataset(config.data.name, split) for split in (config.split, config.reference_split)
    )
    row = telling_row(results, dataset) if options.row is None else options.row
    view = partial(preprocess, image_size=clf.image_size, resize_to=clf.resize_to)
    figure = card_figure(results, row, dataset, references, view)
    figure.savefig(ROOT / "docs" / "card.png", dpi=110)
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    block = f"{BEGIN}```\n{summary(options.run)}\n```\n{END}"
    readme.write_text(before + block + after)
    print(results.table["id"][row])


if __name__ == "__main__":
    main()
