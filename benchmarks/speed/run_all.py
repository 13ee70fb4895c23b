"""Every speed benchmark in a process of its own; what has a JSON already is left as it is."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = {
    "throughput": ["throughput.py", "--arch", "resnet50,vgg16", "--batch", "4,16"],
    "throughput_bfloat16": ["throughput.py", "--dtype", "bfloat16"],
    "steps": ["steps.py"],
    "masks": ["masks.py"],
    "scaling": ["scaling.py"],
    "input": ["input.py"],
    "agreement": ["agreement.py"],
    "table2_random": ["../paper/table2.py", "--arch", "resnet50"],
}


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "docs" / "results")
    parser.add_argument("--fresh", action="store_true", help="begin from nothing")
    options = parser.parse_args()
    for name, (script, *arguments) in RUNS.items():
        path = options.out / f"{name}.json"
        if path.exists() and not options.fresh:
            continue
        print(f"\n## {name}\n", flush=True)
        path.unlink(missing_ok=True)
        if name == "table2_random":
            output = ["--out", options.out]
        else:
            figure = ["--figure", path.with_suffix(".png")] if name == "scaling" else []
            output = ["--json", path, *figure]
        subprocess.run([sys.executable, HERE / script, *arguments, *output], check=True)


if __name__ == "__main__":
    main()
