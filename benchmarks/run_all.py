"""Run every table and figure and write docs/results.md from their JSON.

Scripts continue where they were; `--docs_only` writes the page from what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import table2
from common import describe
from tables import PAPER, ROOT, ROWS, Table, mean

SCRIPTS = ("table1", "table3", "figure3", "figure6", "figure7", "parts")
MEASURES = ("insertion", "deletion", "compactness")


# --- reading the results ------------------------------------------------------------------------


class Page:
    """The JSON of all scripts, and what the text wants to know of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.found = {
            name: json.loads((folder / f"{name}.json").read_text())
            for name in SCRIPTS
            if (folder / f"{name}.json").exists()
        }

    def table(self, name: str, key: str = "table") -> str:
        """A script's table in Markdown."""
        return Table(**self.found[name][key]).markdown()

    def picture(self, name: str, caption: str) -> str:
        """A script's picture, if it drew one."""
        path = self.folder / f"{name}.png"
        return f"![{caption}]({self.folder.name}/{path.name})" if path.exists() else ""

    def scores(self, name: str, measure: str) -> dict[str, float]:
        """A measure's mean for every row that has it."""
        rows = self.found[name]["rows"]
        means = {key: mean(row.get("scores", {}).get(measure, [])) for key, row in rows.items()}
        return {key: value[0] for key, value in means.items() if value}

    def rank(self, measure: str, row: str, lowest: bool = False) -> tuple[int, int, str, float]:
        """Place of a row of Table 1 among those that explain its class, their number, the best."""
        means = {
            key: value
            for key, value in self.scores("table1", measure).items()
            if ROWS[key].explains == ROWS[row].explains and "random" not in key
        }
        order = sorted(means, key=lambda key: means[key] if lowest else -means[key])
        return order.index(row) + 1, len(order), ROWS[order[0]].label, means[order[0]]


def paper_table1() -> str:
    """The paper's Table 1."""
    heads = [("cub", "resnet50"), ("cub", "vgg16"), ("dogs", "resnet50"), ("dogs", "vgg16")]
    columns = ["Method"]
    columns += [f"{data} {net} {m}" for data, net in heads for m in ("ins", "del", "ξ")]
    labels = {row.paper: row.label.split(",")[0] for row in ROWS.values()}
    rows = [
        [labels[key], *(value for data, net in heads for value in values[data][net])]
        for key, values in PAPER["table1"]["rows"].items()
    ]
    return Table(columns, rows, []).markdown()


def paper_table3() -> str:
    """The paper's Table 3."""
    columns = ["Method (CUB)"]
    columns += [f"{net} {m}" for net in ("resnet50", "vgg19") for m in ("ins", "del", "ξ")]
    labels = {row.paper: row.label.split(",")[0] for row in ROWS.values()}
    rows = [
        [labels[key], *values["resnet50"], *values["vgg19"]]
        for key, values in PAPER["table3"]["rows"].items()
    ]
    return Table(columns, rows, []).markdown()


# --- the page -----------------------------------------------------------------------------------


def setting(page: Page) -> str:
    """What was measured on what."""
    found = page.found["table1"]
    s = found["settings"]
    return f"""# Results

Everything on this page is measured by the scripts in `benchmarks/` and written by
`python benchmarks/run_all.py`; no figure is typed.

The data is `{s["dataset"]}`, drawn birds of 50 classes in which every class has a sibling that
differs from it in one known part. The classifier is the shipped `checkpoints/birds`
({s["arch"]}, {s["image_size"]} px, {s["cells"]} x {s["cells"]} cells). The samples are the first
{s["images"]} test images that it gets wrong, among the first {s["looked_at"]}. P is the class that
it says, Q the correct one. Scores are means ± standard errors over these samples, so differences of
less than about two standard errors mean little. Machine: {describe(found["machine"])}.

Map and class travel together: a map is scored by the class that it explains, P or Q. The two groups
cannot be compared with each other: the images are misclassified, so P starts high and Q starts low
by construction. The rows of random cells show what a group's scores are worth nothing at."""


def tables(page: Page) -> list[str]:
    """A section for every table and figure that has been measured."""
    sections = []
    if "table1" in page.found:
        sections += [
            "## Table 1: faithfulness and compactness",
            page.table("table1"),
            page.picture("table1", "Maps of all methods on four samples"),
        ]
    for path in sorted(page.folder.glob("table2*.json")):
        found = json.loads(path.read_text())
        title = f"## Table 2: time and memory, {found['settings']['arch']}"
        sections += [title, table2.table(found)]
    if "table3" in page.found:
        sections += [
            "## Table 3: what saliency partition does",
            page.table("table3"),
            page.picture("table3", "Maps without and with SP on four samples"),
        ]
    if "figure3" in page.found:
        sections += [
            "## Figure 3: other attributions as the weight",
            "The invariant maps, the attribution weighing what an attack (PGD, as in CCE) or what "
            "FG-VCE's edits change.",
            page.table("figure3"),
            page.picture("figure3", "Maps by attribution, and the effort to change predictions"),
        ]
    if "figure6" in page.found:
        sections += [
            "## Figure 6: extent of the maps",
            page.table("figure6"),
            page.picture("figure6", "Pixels, keypoints and contribution, without and with SP"),
        ]
    if "figure7" in page.found:
        sections += [
            "## Figure 7: SP and the selection of candidates",
            page.table("figure7"),
            page.picture("figure7", "Time of the search, and edits for different m"),
        ]
    if "parts" in page.found:
        sections += [
            "## Part localisation",
            "No paper has this table: on `birds` it is known which parts of P and Q differ. A hit: "
            "the map's peak lies in such a part, dilated by half a cell. Energy: the share of the "
            "map inside it.",
            page.table("parts"),
            page.picture("parts", "Maps of samples whose classes differ in one part (outlined)"),
        ]
        if "keypoints" in page.found["parts"]:
            sections += ["### Near-KP and Same-KP", page.table("parts", "keypoints")]
    return sections


def paper() -> list[str]:
    """What the paper prints, and where it contradicts itself."""
    table = PAPER["table2"]
    seconds = ", ".join(f"{key} {s} s {gb} GB" for key, (s, gb) in table["rows"].items())
    return [
        "## The paper's figures",
        "CUB-200-2011 and Stanford Dogs with other classifiers: not comparable with the tables "
        "above, but for the order of the methods. On those datasets the scripts print them beside "
        "ours. Table 1:",
        paper_table1(),
        f"Table 2 ({table['device']}): {seconds}.",
        "Table 3:",
        paper_table3(),
        "The paper contradicts itself in places:",
        "\n".join(f"- {line}" for line in PAPER["contradictions"]),
    ]


def write(folder: Path, path: Path) -> None:
    """Write the page."""
    page = Page(folder)
    sections = [setting(page), *verdict(page), *tables(page), *paper()]
    path.write_text("\n\n".join(section for section in sections if section) + "\n")


def verdict(page: Page) -> list[str]:
    """Where FG-VCE wins, where it does not, and why."""
    return []


def main() -> None:
    """Run the scripts, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="birds")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--docs_only", action="store_true", help="run nothing")
    options = parser.parse_args()
    for name in () if options.docs_only else SCRIPTS:
        print(f"== {name}", file=sys.stderr)
        script = Path(__file__).parent / f"{name}.py"
        command = [sys.executable, str(script), "--preset", options.preset, "--out", options.out]
        code = subprocess.run([*command, "--images", str(options.images)]).returncode
        if code:
            raise SystemExit(code)
    write(options.out, options.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
