"""The cuts of docs/performance.md: `fgvce cuts` on the shipped classifiers of birds.

    python benchmarks/cuts.py --out docs/results

Both questions, mistakes and right images, are asked of every classifier. A row that is there
already is left as it is.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "paper")]

from results import Results, at_least_1, run

from benchmarks.provenance import stamp
from fgvce_jax.config import ModelConfig
from fgvce_jax.cuts import CutsConfig, compare_cuts
from fgvce_jax.files import read_json
from fgvce_jax.models import load_classifier

SHIPPED = ("birds", "birds_vit")


def main() -> None:
    """Measure, and write cuts.json."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments.add_argument("--images", type=at_least_1, default=CutsConfig.images)
    arguments.add_argument("--seconds", type=float, default=CutsConfig.seconds, help="at a cut")
    options = arguments.parse_args()
    about = {"images": options.images, "seconds_at_a_cut": options.seconds}
    shipped = load_classifier(ROOT / "checkpoints" / SHIPPED[0])
    results = Results(options.out / "cuts.json", about, stamp(shipped))

    def measured(name: str) -> dict[str, Any]:
        checkpoint, asked = name.split(": ")
        config = CutsConfig(
            model=ModelConfig(str(ROOT / "checkpoints" / checkpoint)),
            asked=asked,
            images=options.images,
            seconds=options.seconds,
        )
        with TemporaryDirectory() as folder:
            print(compare_cuts(config, Path(folder)), flush=True)
            return read_json(Path(folder) / "cuts.json")

    asked = [f"{name}: {of}" for name in SHIPPED for of in ("mistakes", "runner_up")]
    results.measure(asked, measured)


if __name__ == "__main__":
    run(main)
