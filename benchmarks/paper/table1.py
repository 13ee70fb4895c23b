"""Table 1: insertion, deletion and compactness of every explainer."""

from rows import ROWS, TABLE1
from scores import measure_scores
from study import Study, script

OURS = {"P": "fgvce_invariant", "Q": "fgvce_dominant"}


def measure(study: Study) -> None:
    """Measure, print, write, draw; FG-VCE's lead over each method that explains the same class."""
    others = [name for name in TABLE1 if name not in (*OURS.values(), "calm")]
    measure_scores(study, "table1", TABLE1, [(OURS[ROWS[n].explains], n) for n in others])


if __name__ == "__main__":
    script(measure, __doc__)
