"""Draw docs/card.png from a run of the demo, and fill in the README's demo block.

fgvce demo && python benchmarks/pages/demo.py fgvce-demo
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import jinja2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.paper.results import run
from benchmarks.provenance import checkpoint_hash
from fgvce_jax.data.pipeline import preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.models import load_classifier, open_classifier
from fgvce_jax.report import card_figure
from fgvce_jax.results import RunResults, read_run, summary
from fgvce_jax.run_inputs import open_splits

BEGIN, END = "<!-- demo begins -->\n", "<!-- demo ends -->\n"


def median_row(results: RunResults) -> int:
    """The typical explanation: of those with the median number of edits, the median final p(Q)."""
    table = results.table
    edits, final = (table[name].to_numpy() for name in ("num_edits", "p_target_after"))
    typical = np.flatnonzero(edits == np.percentile(edits, 50, method="lower"))
    return int(typical[np.argsort(final[typical], kind="stable")[len(typical) // 2]])


def main() -> None:
    """Draw docs/card.png and write the summary between the README's two marks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="the demo's folder")
    parser.add_argument("--row", type=int, help="another row of the run's table")
    options = parser.parse_args()
    results = read_run(options.run)
    config = results.config
    clf = open_classifier(config.model)
    shipped = load_classifier(ROOT / "checkpoints" / "birds")
    if checkpoint_hash(clf) != checkpoint_hash(shipped):
        raise InputError(f"{options.run}: expected a run of the shipped checkpoint")
    dataset, references = open_splits(config.data, config.split, config.reference_split)
    row = median_row(results) if options.row is None else options.row
    view = partial(preprocess, image_size=clf.image_size, resize_to=clf.resize_to)
    figure = card_figure(results, row, dataset, references, view)
    figure.savefig(ROOT / "docs" / "card.png", dpi=110)
    readme = ROOT / "README.md"
    before, rest = readme.read_text("utf-8").split(BEGIN)
    template = jinja2.Template((Path(__file__).parent / "demo.md.jinja").read_text("utf-8"))
    block = template.render(summary=summary(options.run))
    readme.write_text(f"{before}{BEGIN}{block}\n{END}{rest.split(END)[1]}", "utf-8")
    print(results.table["id"][row])


if __name__ == "__main__":
    run(main)
