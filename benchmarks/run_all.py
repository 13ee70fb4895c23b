"""Run every table and figure and write docs/results.md from their JSON.

Scripts continue where they were; `--docs_only` writes the page from what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from statistics import median

import parts as parts_script
import table2
import table3
from common import describe
from tables import PAPER, ROOT, ROWS, Table, mean

SCRIPTS = ("table1", "table3", "figure3", "figure6", "figure7", "parts")
MEASURES = ("insertion", "deletion", "compactness")


# --- reading the results ------------------------------------------------------------------------


class Page:
    """The JSON of the scripts that have finished, and what the text wants to know of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        read = {
            name: json.loads((folder / f"{name}.json").read_text())
            for name in SCRIPTS
            if (folder / f"{name}.json").exists()
        }
        self.found = {name: found for name, found in read.items() if "table" in found}

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

    def paired(
        self, name: str, measure: str, a: str, b: str, unit: float = 1
    ) -> tuple[float, float] | None:
        """Mean and standard error of a row's score less another's, sample by sample."""
        rows = self.found[name]["rows"]
        of_a, of_b = (rows.get(key, {}).get("scores", {}).get(measure, []) for key in (a, b))
        both = zip(of_a, of_b, strict=bool(of_a and of_b))
        return mean([unit * (x - y) for x, y in both if x is not None and y is not None])

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
    text = f"""# Results

Everything on this page is measured by the scripts in `benchmarks/` and written by
`python benchmarks/run_all.py`; no measured figure is typed.

The data is `{s["dataset"]}`, drawn birds of 50 classes in which every class has a sibling that
differs from it in one known part. The classifier is the shipped `checkpoints/birds`
({s["arch"]}, {s["image_size"]} px, {s["cells"]} x {s["cells"]} cells). The samples are the first
{s["images"]} test images that it gets wrong, among the first {s["looked_at"]}. P is the class that
it says, Q the correct one. Scores are means ± standard errors over these samples, so differences of
less than about two standard errors mean little. Machine: {describe(found["machine"])}.

Map and class travel together: a map is scored by the class that it explains, P or Q. The two groups
cannot be compared with each other: the images are misclassified, so P starts high and Q starts low
by construction. The rows of random cells show what a score is that says nothing."""
    return "\n\n".join(wrapped(paragraph) for paragraph in text.split("\n\n"))


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 100 characters."""
    return textwrap.fill(text, 100, break_on_hyphens=False)


def tables(page: Page) -> list[str]:
    """A section for every table and figure that has been measured."""
    sections = []
    if "table1" in page.found:
        sections += [
            "## Table 1: faithfulness and compactness",
            page.table("table1"),
            page.picture("table1", "Maps of all methods on three samples"),
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
    if "table1" not in page.found:
        raise SystemExit(f"{folder}: no finished table1.json, run benchmarks/table1.py")
    sections = [setting(page), *verdict(page), *tables(page), *paper()]
    path.write_text("\n\n".join(section for section in sections if section) + "\n")


def judged(difference: tuple[float, float] | None, lowest: bool = False) -> str:
    """A difference in words and figures; less than two standard errors is no difference."""
    if difference is None:
        return "not measured"
    value, error = difference
    good = value < 0 if lowest else value > 0
    word = "level" if abs(value) < 2 * error else "better" if good else "worse"
    return f"{word} ({value:+.1f} ± {error:.1f})"


def against(page: Page, row: str, others: tuple[str, ...]) -> str:
    """How a row of Table 1 compares with others, sample by sample."""
    return "; ".join(
        f"{ROWS[other].label}: insertion {judged(page.paired('table1', 'insertion', row, other))}, "
        f"deletion {judged(page.paired('table1', 'deletion', row, other), lowest=True)}"
        for other in others
        if other in page.scores("table1", "insertion")
    )


def verdict(page: Page) -> list[str]:
    """Where FG-VCE wins, where it does not, and why."""
    if not {"table1", "table3", "figure6", "figure7", "parts"} <= page.found.keys():
        return []
    place = {
        (row, measure): page.rank(measure, row, lowest=measure == "deletion")
        for row in ("fgvce_invariant", "fgvce_dominant")
        for measure in MEASURES
    }

    def placed(row: str, measure: str) -> str:
        rank, count, best, value = place[row, measure]
        own = page.scores("table1", measure)[row]
        if rank == 1:
            return f"{measure} {own:.1f}, the best of {count}"
        return f"{measure} {own:.1f}, place {rank} of {count} (best: {best}, {value:.1f})"

    compact = page.scores("table1", "compactness")
    insertion = page.scores("table1", "insertion")
    cells = page.found["table1"]["settings"]["cells"] ** 2
    constant = compact["random"] * 2 * cells / (cells + 1)
    level = max(compact, key=lambda row: compact[row] if ROWS[row].explains == "P" else 0)
    parts = page.found["parts"]["rows"]
    edits = parts["edits_fgvce"]["edits"]
    hit, energy = page.scores("parts", "hit"), page.scores("parts", "energy")
    area = page.scores("parts", "area")["gradcam"]
    pointing = sorted(hit, key=lambda row: -hit[row])[:3]
    searches = page.found["figure7"]["rows"]
    ms = {name: median(row["milliseconds"]) for name, row in searches.items()}
    count = {name: mean(row["edits"])[0] for name, row in searches.items()}
    sp = [
        (ROWS[after].label, page.paired("table3", m, after, before), m == "deletion")
        for before, after in table3.PAIRS.items()
        for m in ("insertion", "deletion")
    ]
    better = sum(judged(d, lowest).startswith("better") for _, d, lowest in sp)
    worse = sum(judged(d, lowest).startswith("worse") for _, d, lowest in sp)
    xi = {
        after: page.paired("table3", "compactness", after, before)
        for before, after in table3.PAIRS.items()
    }
    lower = [ROWS[name].label for name, d in xi.items() if judged(d).startswith("worse")]
    pixels = page.scores("figure6", "pixels")
    keypoints = page.scores("figure6", "keypoints")
    contribution = page.scores("figure6", "contribution")

    def pointed(a: str, b: str) -> str:
        return " and ".join(
            f"{judged(page.paired('parts', measure, a, b, 100))} in {name}"
            for measure, name in (("hit", "hits"), ("energy", "energy"))
        )

    def change(values: dict[str, float], digits: int, factor: float = 1) -> str:
        return " and ".join(
            f"{factor * values[f'fgvce_{kind}_without_sp']:.{digits}f} to "
            f"{factor * values[f'fgvce_{kind}']:.{digits}f}"
            for kind in ("invariant", "dominant")
        )

    paragraphs = [
        "## Where FG-VCE wins, where it does not, and why",
        "Differences are taken sample by sample; less than two standard errors counts as level.",
        "**Against other contrastive explanations.** The invariant map, which explains P, beside "
        + against(page, "fgvce_invariant", ("cce", "ce", "scout"))
        + ". The dominant map, which explains Q, beside "
        + against(page, "fgvce_dominant", ("cce_dominant", "cve", "cve_semantic"))
        + ". An attack changes the whole image a little, so what CCE's maps lose is spread over "
        "it; an edit changes one cell and leaves the others as they are. CVE picks the cells whose "
        "exchange raises p_Q most, which are the ones that do not look like Q: putting just these "
        "pixels back shows the model little of Q "
        f"(insertion {insertion['cve']:.1f}, random cells {insertion['random_q']:.1f}).",
        "**Against plain attribution.** All maps that explain P: the invariant map has "
        + "; ".join(placed("fgvce_invariant", m) for m in ("insertion", "deletion"))
        + ". All maps that explain Q: the dominant map has "
        + "; ".join(placed("fgvce_dominant", m) for m in ("insertion", "deletion"))
        + ". GradCAM and the contributions alone, asked the same question: "
        + against(page, "fgvce_invariant", ("gradcam", "contributions"))
        + " for P, and "
        + against(page, "fgvce_dominant", ("gradcam_q", "contributions_q"))
        + " for Q. This is what the measure asks for: insertion wants every pixel that the class "
        "needs, in order. A contrastive map is above zero only where features changed, a median of "
        f"{median(edits):.0f} of {cells} cells, and the order of the rest is arbitrary. The paper "
        "reports the opposite order on CUB; these classes differ in one small part while their "
        "evidence is the whole bird, which may be part of the reason. The methods with maps finer "
        "than a cell (FG-CAM, GBP, RISE) have the further advantage that they order pixels inside "
        "it.",
        "**Compactness.** "
        + "; ".join(
            f"{ROWS[row].label}: {placed(row, 'compactness')}"
            for row in ("fgvce_invariant", "fgvce_dominant")
        )
        + f". But ξ should not be read alone. Eq. 12 is the mean of the map over its active cells "
        "times n² / Σg, and the second factor does not depend on the map: the number of active "
        f"cells cancels. So random cells reach {compact['random']:.1f}, a constant map would reach "
        f"{constant:.1f}, and the highest of P is {ROWS[level].label} with {compact[level]:.1f}; "
        "what is rewarded is a map whose active cells are about equally high. Maps with few active "
        "cells tend to be like that, and so are maps that say little.",
        f"**Saliency partition.** Of the {len(sp)} insertion and deletion scores of Table 3, SP "
        f"makes {better} better and {worse} worse; the paper has nearly all better. Compactness "
        + (
            f"falls for {'; '.join(lower)}, where the paper's rises. "
            if lower
            else "does not fall. "
        )
        + "Fig. 6 comes out otherwise as well: with SP the regions change from "
        f"{change(pixels, 0)} pixels and from {change(keypoints, 1)} keypoints (invariant and "
        f"dominant), the contribution per pixel from {change(contribution, 1, 1000)} thousandths. "
        "The paper has fewer pixels and keypoints. A Gaussian mask lends every cell some of its "
        "neighbours' contribution, so the weight with SP is the smoother one, and smooth weights "
        "make larger regions above half the maximum.",
        f"**Cost.** A search and its maps take {ms['sp_sel']:.2f} ms a sample, "
        f"{ms['sp']:.2f} ms without the selection of candidates, and {ms['sel']:.2f} ms with the "
        "selection but without SP. Partitioned predictions are one matrix product here, with SP as "
        "without. The selection saves time and, as in the paper's Fig. 7 (b), edits: "
        f"{count['sp_sel']:.1f} on average with the 10 best cells of each reference, "
        f"{count['sp']:.1f} with all. Among more candidates there is one that is more alike, "
        "similarity weighs as much as log p_Q, and a cell that is much like the old one changes "
        "little.",
        f"**Pointing at the part.** The differing parts cover {area:.0%} of the image, dilated. "
        f"The peak lies in them for {hit['fgvce_invariant']:.0%} of the invariant and "
        f"{hit['fgvce_dominant']:.0%} of the dominant maps, their energy is "
        f"{energy['fgvce_invariant']:.0%} and {energy['fgvce_dominant']:.0%}: above chance, and "
        f"about GradCAM's {hit['gradcam']:.0%} and {energy['gradcam']:.0%}. The most hits have "
        + ", ".join(f"{ROWS[row].label} ({hit[row]:.0%})" for row in pointing)
        + ". In points of percent, the dominant map beside CVE is "
        + pointed("fgvce_dominant", "cve")
        + ", the invariant map beside CE "
        + pointed("fgvce_invariant", "ce")
        + ". FG-VCE replaces the cell that contributes most to P, whatever Q is; for two classes "
        "that share all parts but one that is usually a part they share, as the picture shows. CVE "
        "and CE choose by what tells Q from P. Nothing here points at the part reliably: cells of "
        "7 x 7 see far beyond their borders, and a part that the model overlooked is a part that "
        "its features say little about.",
        "**Meaning of the edits.** Near-KP and Same-KP over all edits: "
        + "; ".join(
            f"{parts_script.EDITING[name]} {parts[name]['near_kp_all']:.0f} and "
            f"{parts[name]['same_kp_all']:.0f} %, {mean(parts[name]['edits'])[0]:.1f} edits"
            for name in parts_script.EDITING
        )
        + ".",
    ]
    return [wrapped(text) for text in paragraphs]


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
