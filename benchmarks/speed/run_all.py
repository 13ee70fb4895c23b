"""Every speed benchmark in a process of its own; what has a JSON already is left as it is."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRANSFORMERS = "vit_b_16,convnext_tiny,swin_t,dinov2_s_14"
RUNS = {
    "throughput": "throughput.py --arch resnet50,vgg16 --batch 4,16 --json",
    "throughput_bfloat16": "throughput.py --dtype bfloat16 --json",
    "throughput_matched": "throughput.py --search matched --json",
    "early_cuts": "early_cuts.py --json",
    "peers": "peers.py --json",
    "steps": "steps.py --json",
    "masks": "masks.py --json",
    "scaling": "scaling.py --json",
    "input": "input.py --json",
    "agreement": "agreement.py --json",
    "table2_random": "../paper/table2.py --arch resnet50 --out",
    "throughput_transformers": f"throughput.py --arch {TRANSFORMERS} --json",
}


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "docs" / "results")
    parser.add_argument("--fresh", action="store_true", help="begin from nothing")
    options = parser.parse_args()
    for name, command in RUNS.items():
        path, (file, *words) = options.out / f"{name}.json", command.split()
        if path.exists() and not options.fresh:
            continue
        print(f"\n## {name}\n", flush=True)
        path.unlink(missing_ok=True)
        words.append(path if words[-1] == "--json" else options.out)
        if name == "scaling":
            words += ["--figure", path.with_suffix(".png")]
        subprocess.run([sys.executable, HERE / file, *words], check=True)


if __name__ == "__main__":
    main()
