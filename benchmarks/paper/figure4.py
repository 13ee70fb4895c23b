"""Fig. 4: contrastive explanations side by side."""

from results import choose
from rows import ROWS, draw
from study import Study, script

SHOWN = ("ce", "scout", "cce", "cce_dominant", "cve", "fgvce_invariant", "fgvce_dominant")


def measure(study: Study) -> None:
    """Draw the first samples; there is nothing to measure."""
    draw(study, "figure4", choose("method", study.options.methods, ROWS, SHOWN), slice(6))


if __name__ == "__main__":
    script(measure, __doc__)
