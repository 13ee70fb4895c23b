"""Every table and figure of the paper, one after another in one process.

Continues where it was stopped; --fresh forgets what was measured and begins from nothing.
"""

import shutil
from importlib import import_module

from results import parser, run
from study import Study

SCRIPTS = ("table1", "table2", "table3", "figure3", "figure4", "figure6", "figure7", "parts")


def main() -> None:
    """Measure, print, write, draw."""
    arguments = parser(__doc__)
    arguments.add_argument("--fresh", action="store_true", help="begin from nothing")
    options = arguments.parse_args()
    study = Study(options)
    if options.fresh:
        for kept in {study.kept, study.calm.kept}:
            shutil.rmtree(kept, ignore_errors=True)
        for script in SCRIPTS:
            (options.out / f"{script}.json").unlink(missing_ok=True)
    for script in SCRIPTS:
        print(f"\n## {script}\n", flush=True)
        import_module(script).measure(study)


if __name__ == "__main__":
    run(main)
