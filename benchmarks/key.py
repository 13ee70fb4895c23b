"""The answer key of docs/key.md: `fgvce benchmark`, and the stamp of where it was measured.

Continues where it was stopped. Options are those of `fgvce benchmark`, and --to, the JSON.
"""

import sys
from pathlib import Path

from provenance import stamp

from fgvce_jax.cli import main as fgvce
from fgvce_jax.files import read_json, write_json
from fgvce_jax.key.config import SHIPPED
from fgvce_jax.models import load_classifier

ROOT = Path(__file__).resolve().parents[1]


def option(words: list[str], name: str, default: str) -> str:
    """The value of an option among the words of a command line."""
    return words[words.index(name) + 1] if name in words else default


def main(words: list[str]) -> int:
    """Measure, and write the JSON; returns the exit code."""
    to = Path(option(words, "--to", str(ROOT / "docs" / "results" / "key.json")))
    if "--to" in words:
        at = words.index("--to")
        words = words[:at] + words[at + 2 :]
    folder = option(words, "--out", str(ROOT / "runs" / "key"))
    if code := fgvce(["benchmark", *words, "--out", folder]):
        return code
    found = read_json(Path(folder) / "key.json")
    clf = load_classifier(option(words, "--model.checkpoint", str(ROOT / SHIPPED)))
    write_json(to, {"name": "key", "provenance": stamp(clf), **found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
