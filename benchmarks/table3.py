"""Table 3: what saliency partition (SP) does for contrastive explainers. Its picture is Fig. 5."""

from __future__ import annotations

from scored import score_rows
from script import run

PAIRS = {
    "ce": "ce_sp",
    "scout": "scout_sp",
    "cce": "cce_sp",
    "fgvce_invariant_without_sp": "fgvce_invariant",
    "fgvce_dominant_without_sp": "fgvce_dominant",
}
"""A row without SP, and the same with it."""


def main() -> None:
    """Measure, print, write, draw."""
    score_rows(__doc__, "table3", [name for pair in PAIRS.items() for name in pair])


if __name__ == "__main__":
    run(main)
