"""Seconds of `fgvce why` where the references are kept, beside those of its start alone.

python benchmarks/speed/second_question.py PHOTO --references FOLDER --model CHECKPOINT

The start is the interpreter and the imports of all modules that the question uses. Both are whole
processes, run in turns; a first question, which is not counted, collects the references and fills
JAX's cache of compiled programs.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.paper.results import at_least_1
from benchmarks.provenance import stamp
from fgvce_jax.files import write_json
from fgvce_jax.models import load_classifier

MAIN = "import sys; from fgvce_jax.cli import main; sys.exit(main(sys.argv[1:]))"
# What a question imports on its way besides its own module.
START = "import fgvce_jax.cli.commands, fgvce_jax.photographs, fgvce_jax.display.figure, "
START += "fgvce_jax.display.html, orbax.checkpoint, matplotlib.backends.backend_agg"


def seconds(*words: str) -> float:
    """Wall-clock time of a Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", *words], check=True, capture_output=True)
    return round(time.perf_counter() - started, 3)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("photo")
    parser.add_argument("--references", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=at_least_1, default=5)
    path = ROOT / "docs" / "results" / "second_question.json"
    parser.add_argument("--json", type=Path, default=path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = ["why", options.photo, "--references", options.references, "--model", options.model]
        words += ["--bank_file", f"{folder}/bank.npz", "--out", f"{folder}/cards"]
        first = seconds(MAIN, *words)
        pairs = [(seconds(START), seconds(MAIN, *words)) for _ in range(options.repeats)]
    start, question = map(list, zip(*pairs, strict=True))
    content = {
        "provenance": stamp(load_classifier(options.model)),
        "settings": {"dataset": "photographs", "repeats": options.repeats},
        "first": first,
        "start": start,
        "question": question,
    }
    write_json(options.json, content)
    then = f"then {median(question):.2f} s, of which start {median(start):.2f} s"
    print(f"first {first:.2f} s, {then}")


if __name__ == "__main__":
    main()
