"""Write the pages of docs/ that hold figures: text by hand, figures from the JSON.

Each page is a template beside this file. Refused (exit code 2) are files that measured different
checkpoints, or for the birds another than the shipped one; a table that an earlier version of the
code gave is marked in a footnote.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.paper.results import PAPER, Table, run
from benchmarks.provenance import PACKAGE, checkpoint_hash, code_hash, describe
from fgvce_jax.cuts.run import table as cuts_table
from fgvce_jax.errors import InputError
from fgvce_jax.files import read_json
from fgvce_jax.key.page import TITLES, randomised_table
from fgvce_jax.key.page import table as key_table
from fgvce_jax.key.scores import OF_EDITS, OF_MAPS
from fgvce_jax.methods import METHODS
from fgvce_jax.models import load_classifier

PAGES = {
    "results": (
        *("table1", "table2", "table3", "figure3", "figure6", "figure7", "parts"),
        "label_errors",
    ),
    "key": ("key", "key_seed"),
    "performance": (
        *("throughput", "throughput_bfloat16", "early_cuts", "cuts", "peers", "steps", "masks"),
        *(
            "throughput_transformers",
            "throughput_matched",
            "scaling",
            "input",
            "report",
            "agreement",
            "table2_random",
            "whole_split",
            "accelerator",
        ),
    ),
    "photographs": ("photographs", "second_question", "label_errors_photographs"),
    "many-machines": ("lost_workers", "whole_split", "flat_memory"),
}
"""The pages, and the files that each is made from."""


def load(folder: Path, names: tuple[str, ...], shipped: str) -> dict[str, Any]:
    """The JSON files that are there, by name; InputError for one of another checkpoint.

    `shipped` is the hash of the birds' classifier.
    """
    found: dict[str, Any] = {}
    checkpoints: dict[str, str] = {}
    for path in (folder / f"{name}.json" for name in names):
        if not path.exists():
            continue
        measured = found[path.stem] = read_json(path)
        try:
            checkpoint = measured["provenance"]["checkpoint"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: expected a benchmark's JSON ({error!r})") from error
        if checkpoint is None:  # random weights
            continue
        checkpoints[checkpoint] = path.name
        dataset = measured.get("settings", {}).get("dataset", "birds")
        if dataset == "birds" and checkpoint != shipped:
            wanted = f"expected the shipped one, {shipped}"
            raise InputError(f"{path}: measured checkpoint {checkpoint}, {wanted}")
    if len(checkpoints) > 1:
        pairs = " and ".join(f"{name} ({key})" for key, name in checkpoints.items())
        raise InputError(f"{folder}: expected files of one checkpoint, got {pairs}")
    return found


def footnote(found: Mapping[str, Any], code: str) -> str:
    """The mark of figures that another version of the code than `code` gave, "" where none did."""
    rows = found.get("rows")
    codes = {None: found["provenance"]["code"]}
    if isinstance(rows, dict):
        codes = {name: row.get("code") for name, row in rows.items()}
    old = [name for name, of_row in codes.items() if of_row != code]
    if not old:
        return ""
    which = "" if len(old) == len(codes) else f": {', '.join(map(str, old))}"
    where = found["provenance"]["machine"]["processor"]  # often another than the page's
    return f"*Measured with an earlier version of the code{which}, on {where}.*"


def table(found: Mapping[str, Any], code: str, name: str, key: str = "table") -> str:
    """A table of a JSON in Markdown, with its footnotes."""
    text = Table(**found[name]["tables"][key]).markdown()
    return f"{text}\n\n{footnote(found[name], code)}".rstrip()


def picture(folder: Path, name: str, caption: str) -> str:
    """A script's picture, if it drew one."""
    there = (folder / f"{name}.png").exists()
    return f"![{caption}]({folder.name}/{name}.png)" if there else ""


def published(name: str, datasets: tuple[str, ...], networks: tuple[str, ...]) -> str:
    """A table of the paper, every dataset and network beside each other."""
    heads = [(dataset, network) for dataset in datasets for network in networks]
    columns = ["Method", *(f"{d} {n} {m}" for d, n in heads for m in ("ins", "del", "ξ"))]
    rows = []
    for key, values in PAPER[name]["rows"].items():
        base = key.removesuffix("_sp").removesuffix("_without")
        label = METHODS[base].label if base in METHODS else "FG-VCE"
        label += " w/o SP" if "_without" in key else " + SP" if key.endswith("_sp") else ""
        rows.append([label, *(v for d, n in heads for v in (values.get(d, values))[n])])
    return Table(columns, rows).markdown()


def of_the_key(key: Any) -> dict[str, Any]:
    """What the page of the answer key is made of, where that was measured."""
    parts: dict[str, Any] = {"key": key, "titles": TITLES}
    if key is not None:
        parts["edits"] = partial(key_table, key, columns=OF_EDITS)
        parts["maps"] = partial(key_table, key, columns=OF_MAPS)
        parts["randomised"] = randomised_table(key)
    return parts


def apart(key: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """How far the figures of two seeds lie apart, of the rows that both have.

    `figures` is how many there are, `within` those of at most two standard errors of their
    difference, `largest` the largest of all in standard errors.
    """
    rows = {row["name"]: row["figures"] for row in key["rows"]}
    pairs = [
        (rows[row["name"]][setting][name], found)
        for row in other["rows"]
        if row["name"] in rows
        for setting, figures in row["figures"].items()
        for name, found in figures.items()
    ]
    errors = [
        abs(a["mean"] - b["mean"]) / error
        for a, b in pairs
        if a["mean"] is not None and b["mean"] is not None
        if (error := (a["error"] ** 2 + b["error"] ** 2) ** 0.5)
    ]
    within = sum(error <= 2 for error in errors)
    return {"figures": len(errors), "within": within, "largest": max(errors)}


def render(page: str, folder: Path, shipped: str, code: str) -> str:
    """A page as Markdown; InputError where nothing of it was measured, and see `load`."""
    found = load(folder, PAGES[page], shipped)
    if not found:
        raise InputError(f"{folder}: no {' or '.join(PAGES[page])}; see benchmarks/README.md")
    loader, blocks = jinja2.FileSystemLoader(Path(__file__).parent), {"trim_blocks": True}
    blocks |= {"lstrip_blocks": True, "keep_trailing_newline": True}
    template = jinja2.Environment(loader=loader, **blocks).get_template(f"{page}.md.jinja")
    # The same tables of photographs, whose classifier is another.
    photos = load(folder / "photos", PAGES[page], shipped) if page == "results" else {}
    text = template.render(
        found=found,
        photos=photos,
        of_photos=partial(table, photos, code),
        **of_the_key(found.get("key")),
        apart=apart,
        steps={row["step"]: row for row in found.get("steps", {}).get("rows", [])},
        machine=describe(next(iter(found.values()))["provenance"]["machine"]),
        table=partial(table, found, code),
        footnote=lambda name: footnote(found[name], code),
        picture=partial(picture, folder),
        minutes=lambda name: sum(row["seconds"] for row in found[name]["rows"].values()) / 60,
        published=published,
        median=median,
        cuts_table=cuts_table,
        paper=PAPER,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("pages", nargs="*", default=list(PAGES), help=f"of {', '.join(PAGES)}")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    shipped = checkpoint_hash(load_classifier(ROOT / "checkpoints" / "birds"))
    code = code_hash(PACKAGE)
    texts = {page: render(page, options.results, shipped, code) for page in options.pages}
    for page, text in texts.items():
        (options.results.parent / f"{page}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    run(main)
