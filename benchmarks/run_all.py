"""Run every table and figure and write docs/results.md from their JSON.

Scripts continue where they were; `--docs_only` writes the page from what is there. How long a
script took is kept in run_all.json where it measured everything in one run, from nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import table2
from common import describe, machine
from essay import essay
from results import Page, wrapped
from script import PAPER, ROOT, Table, run
from tables import ROWS

from fgvce_jax.errors import InputError

SCRIPTS = ("table1", "table2", "table3", "figure3", "figure6", "figure7", "parts")


def measure(options: argparse.Namespace) -> None:
    """Run the scripts one after the other, and keep the time of those that began from nothing."""
    times = options.out / "run_all.json"
    no_maps = not any(options.maps.glob("*/*.npz"))  # kept ones would make the scripts look fast
    passed_on = ["--preset", options.preset, "--images", str(options.images)]
    passed_on += ["--out", options.out, "--maps", options.maps]
    passed_on += ["--calm", options.calm] if options.calm else []
    for name in SCRIPTS:
        print(f"== {name}", file=sys.stderr)
        stem = f"table2_{Path(options.preset).stem}" if name == "table2" else name
        fresh = no_maps and not (options.out / f"{stem}.json").exists()
        started = time.perf_counter()
        script = Path(__file__).parent / f"{name}.py"
        if code := subprocess.run([sys.executable, script, *passed_on]).returncode:
            raise SystemExit(code)
        if fresh:
            kept = json.loads(times.read_text()) if times.exists() else {}
            kept[name] = {
                "seconds": round(time.perf_counter() - started, 1),
                "images": options.images,
                "machine": machine(),
            }
            times.write_text(json.dumps(kept, indent=1) + "\n")


# --- the page -----------------------------------------------------------------------------------


def setting(page: Page) -> str:
    """What was measured on what."""
    found = page.found["table1"]
    s = found["settings"]
    what = f"The data is `{s['dataset']}`"
    if s["dataset"] == "birds":
        what += (
            ", drawn birds of 50 classes in which every class has a sibling that differs from it "
            "in one known part"
        )
    paragraphs = [
        "Everything on this page is measured by the scripts in `benchmarks/` and written by "
        "`python benchmarks/run_all.py`; no measured figure is typed.",
        f"{what}. The classifier is a {s['arch']} ({s['image_size']} px, {s['cells']} x "
        f"{s['cells']} cells), the preset `{s['preset']}`'s. The samples are the first "
        f"{s['images']} images of the split that it gets wrong, among the first {s['looked_at']}. P "
        "is the class that it says, Q the correct one. Scores are means ± standard errors over "
        "these samples, so differences of less than about two standard errors mean little. "
        f"Machine: {describe(found['machine'])}.",
        "Map and class travel together: a map is scored by the class that it explains, P or Q. The "
        "two groups cannot be compared with each other: the images are misclassified, so P starts "
        "above Q. The rows of random cells show what a score is that says nothing.",
    ]
    return "\n\n".join(["# Results", *map(wrapped, paragraphs)])


def duration(page: Page, name: str) -> str:
    """How long a script took, where it measured everything in one run."""
    times = page.folder / "run_all.json"
    kept: dict[str, Any] = json.loads(times.read_text()) if times.exists() else {}
    found, settings = kept.get(name), page.found[name]["settings"]
    if found is None or found["images"] != settings["images"]:
        return ""
    bar = ""
    if (name, settings["preset"], found["images"]) == ("table1", "birds", 50):
        bar = "; the bar is 45 minutes on 2 CPU cores"
    return (
        f"Measured from nothing in one run: {found['seconds'] / 60:.1f} minutes for "
        f"{found['images']} images, maps and scores ({describe(found['machine'])}){bar}."
    )


def tables(page: Page) -> list[str]:
    """A section for every table and figure that has been measured."""
    sections = []
    if "table1" in page.found:
        sections += [
            "## Table 1: faithfulness and compactness",
            duration(page, "table1"),
            page.table("table1"),
            page.picture("table1", "Maps of all methods on three samples"),
            page.picture("figure4", "Contrastive explanations side by side, as in Fig. 4"),
        ]
    planted = page.folder / "table2.json"
    presets = [name for name in page.found if name.startswith("table2_")]
    if presets or planted.exists():
        sections += ["## Table 2: time and memory"]
    for name in presets:
        sections += [page.table(name), page.picture(name, "Seconds and memory a sample")]
    if planted.exists():
        found = json.loads(planted.read_text())
        sections += [
            f"The same with a {found['settings']['arch']} of random weights on planted mistakes:",
            table2.table(found),
        ]
    titles = {
        "table3": ("Table 3: what saliency partition does", "Maps without and with SP"),
        "figure3": (
            "Figure 3: other attributions as the weight",
            "Maps by attribution, and the effort to change predictions",
        ),
        "figure6": (
            "Figure 6: extent of the maps",
            "Pixels, keypoints and contribution, without and with SP",
        ),
        "figure7": (
            "Figure 7: SP and the selection of candidates",
            "Time of the search, and edits for different m",
        ),
        "parts": (
            "Part localisation",
            "Maps of samples whose classes differ in one part (outlined)",
        ),
    }
    before = {
        "figure3": "The invariant maps, the attribution weighing what an attack (PGD, as in CCE) "
        "or what FG-VCE's edits change.",
        "parts": "No paper has this table: on `birds` it is known which parts of P and Q differ. A "
        "hit: the map's peak lies in such a part, dilated by half a cell. Energy: the share of the "
        "map inside it.",
    }
    for name, (title, caption) in titles.items():
        if name in page.found:
            sections += [f"## {title}", wrapped(before.get(name, "")), page.table(name)]
            sections.append(page.picture(name, caption))
    if "keypoints" in page.found.get("parts", {}):
        sections += ["### Near-KP and Same-KP", page.table("parts", "keypoints")]
    return sections


def paper(page: Page) -> list[str]:
    """What the paper prints, and where it contradicts itself."""
    table = PAPER["table2"]
    seconds = ", ".join(f"{key} {s} s {gb} GB" for key, (s, gb) in table["rows"].items())
    dataset = page.found["table1"]["settings"]["dataset"]
    others = (
        "CUB-200-2011 and Stanford Dogs with other classifiers: not comparable with the tables "
        "above, but for the order of the methods. On those datasets the scripts print them beside "
        "ours."
        if dataset not in ("cub", "dogs")
        else "CUB-200-2011 and Stanford Dogs, with the paper's classifiers."
    )
    return [
        "## The paper's figures",
        wrapped(f"{others} Table 1:"),
        paper_table("table1", ("cub", "dogs"), ("resnet50", "vgg16")),
        f"Table 2 ({table['device']}): {seconds}.",
        "Table 3:",
        paper_table("table3", (None,), ("resnet50", "vgg19")),
        "The paper contradicts itself in places:",
        "\n".join(f"- {line}" for line in PAPER["contradictions"]),
    ]


def paper_table(name: str, datasets: tuple[str | None, ...], networks: tuple[str, ...]) -> str:
    """A table of the paper, every dataset and network beside each other."""
    heads = [(dataset, network) for dataset in datasets for network in networks]
    columns = ["Method" if datasets[0] else "Method (CUB)"]
    columns += [
        f"{dataset} {network} {m}" if dataset else f"{network} {m}"
        for dataset, network in heads
        for m in ("ins", "del", "ξ")
    ]
    labels = {row.paper: row.label.split(",")[0] for row in ROWS.values()}
    rows = [
        [labels[key], *(v for d, n in heads for v in (values[d] if d else values)[n])]
        for key, values in PAPER[name]["rows"].items()
    ]
    return Table(columns, rows, []).markdown()


def write(folder: Path, path: Path) -> None:
    """Write the page.

    Raises:
        InputError: Table 1 has not been measured.
    """
    page = Page(folder)
    if "table1" not in page.found:
        raise InputError(f"{folder}: no finished table1.json, run benchmarks/table1.py")
    sections = [setting(page), *essay(page), *tables(page), *paper(page)]
    path.write_text("\n\n".join(section for section in sections if section) + "\n")


def main() -> None:
    """Run the scripts, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="birds")
    parser.add_argument("--calm", help="a classifier with CALM's head, for the row calm")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--maps", type=Path, default=ROOT / "runs" / "maps", help="kept maps")
    parser.add_argument("--docs_only", action="store_true", help="run nothing")
    options = parser.parse_args()
    if not options.docs_only:
        measure(options)
    write(options.out, options.out.with_suffix(".md"))


if __name__ == "__main__":
    run(main)
