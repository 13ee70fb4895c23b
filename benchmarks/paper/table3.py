"""Table 3: what saliency partition (SP) does for contrastive explainers. Its picture is Fig. 5."""

from scores import measure_scores
from study import Study, script

PAIRS = {
    "ce": "ce_sp",
    "scout": "scout_sp",
    "cce": "cce_sp",
    "fgvce_invariant_without_sp": "fgvce_invariant",
    "fgvce_dominant_without_sp": "fgvce_dominant",
}
"""A row without SP, and the same with it."""


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    rows = [name for pair in PAIRS.items() for name in pair]
    rows += ["fgvce_matched_invariant", "fgvce_matched_dominant", "constant", "constant_q"]
    measure_scores(study, "table3", rows, [pair[::-1] for pair in PAIRS.items()])


if __name__ == "__main__":
    script(measure, __doc__)
