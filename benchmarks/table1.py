"""Table 1: insertion, deletion and compactness of every explainer.

Fig. 4 of the paper, contrastive explanations side by side, is drawn from the same maps.
"""

from __future__ import annotations

from scored import draw, score_rows
from script import run
from tables import ROWS

DEFAULT = [name for name in ROWS if not name.endswith("_sp")]
CONTRASTIVE = ("ce", "scout", "cce", "cce_dominant", "cve", "fgvce_invariant", "fgvce_dominant")


def main() -> None:
    """Measure, print, write, draw."""
    study, rows = score_rows(__doc__, "table1", DEFAULT)
    draw(study.options.out / "figure4.png", study, [n for n in CONTRASTIVE if n in rows], 6)


if __name__ == "__main__":
    run(main)
