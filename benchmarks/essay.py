"""Where FG-VCE wins, where it does not, and why: sentences that the measurements choose.

Every comparison is made sample by sample, and what lies within two standard errors is called level.
Reasons that were not measured are marked as such ("may").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import mean, median
from typing import Any

import parts
import table3
from results import Difference, Page, difference, flipped_edits, judged, verdict, wrapped
from tables import ROWS

OURS = {"P": "fgvce_invariant", "Q": "fgvce_dominant"}
FAITHFUL = ("insertion", "deletion")


def essay(page: Page) -> list[str]:
    """The section, a paragraph for every question whose rows have been measured."""
    questions: dict[str, Callable[[Page], str | None]] = {
        "Against other contrastive explanations": contrastive,
        "Against plain attribution": attribution,
        "Compactness": compactness,
        "Saliency partition": partition,
        "Cost": cost,
        "Pointing at the part": pointing,
        "Meaning of the edits": edits,
    }
    answers = {question: answer(page) for question, answer in questions.items()}
    unasked = [question for question, answer in answers.items() if answer is None]
    out = [
        "## Where FG-VCE wins, where it does not, and why",
        "Differences are taken sample by sample; within two standard errors they count as level.",
    ]
    out += [f"**{question}.** {answer}" for question, answer in answers.items() if answer]
    if unasked:
        out.append(f"Not measured here: {', '.join(unasked).lower()}.")
    return [wrapped(text) for text in out]


def beside(page: Page, row: str, others: Iterable[str]) -> str:
    """How a row of Table 1 compares with others."""
    return "; ".join(
        f"{ROWS[other].label}: insertion {judged(page.paired('table1', 'insertion', row, other))}, "
        f"deletion {judged(page.paired('table1', 'deletion', row, other), lowest=True)}"
        for other in others
        if page.has("table1", other)
    )


def tally(differences: Iterable[tuple[Difference | None, bool]]) -> tuple[int, int, int]:
    """How many are better, worse and level; the flag says whether low values are good."""
    words = [verdict(difference, lowest) for difference, lowest in differences]
    return words.count("better"), words.count("worse"), words.count("level")


def against(page: Page, rows: dict[str, tuple[str, ...]]) -> tuple[int, int, int]:
    """The tally of insertion and deletion over pairs of rows of Table 1."""
    return tally(
        (page.paired("table1", measure, row, other), measure == "deletion")
        for row, others in rows.items()
        for other in others
        for measure in ("insertion", "deletion")
    )


def contrastive(page: Page) -> str | None:
    """FG-VCE beside CE, SCOUT, CCE and CVE."""
    rows = {
        "fgvce_invariant": ("cce", "ce", "scout"),
        "fgvce_dominant": ("cce_dominant", "cve", "cve_semantic"),
    }
    if not page.has("table1", *rows, *sum(rows.values(), ()), measures=FAITHFUL):
        return None
    better, worse, level = against(page, rows)
    text = (
        f"The invariant map, which explains P, beside {beside(page, *_of(rows, 'P'))}. The "
        f"dominant map, which explains Q, beside {beside(page, *_of(rows, 'Q'))}. Of these scores "
        f"FG-VCE's are better in {better}, worse in {worse} and level in {level}."
    )
    if verdict(page.paired("table1", "insertion", "fgvce_invariant", "cce")) == "better":
        text += (
            " One reason may be that an attack changes the whole image a little, so what CCE's "
            "maps lose is spread over it, where an edit changes one cell."
        )
    by_chance = page.paired("table1", "insertion", "cve", "random_q")
    if verdict(by_chance) in ("level", "worse"):
        text += (
            f" CVE's insertion beside that of random cells is {judged(by_chance)}: it picks the "
            "cells whose exchange raises p_Q most, and these may be the ones that show least of Q."
        )
    return text


def _of(rows: dict[str, tuple[str, ...]], explains: str) -> tuple[str, tuple[str, ...]]:
    return OURS[explains], rows[OURS[explains]]


def attribution(page: Page) -> str | None:
    """FG-VCE beside methods that ask of one class."""
    rows = {
        "fgvce_invariant": ("gradcam", "contributions"),
        "fgvce_dominant": ("gradcam_q", "contributions_q"),
    }
    if not page.has("table1", *rows, *sum(rows.values(), ()), measures=FAITHFUL):
        return None
    better, worse, level = against(page, rows)
    places = [
        f"All maps that explain {c}: {ROWS[row].label} has "
        + "; ".join(page.place(measure, row) for measure in ("insertion", "deletion"))
        for c, row in OURS.items()
    ]
    text = (
        ". ".join(places) + ". GradCAM and the contributions alone, asked the same question: "
        f"{beside(page, *_of(rows, 'P'))} for P, and {beside(page, *_of(rows, 'Q'))} for Q "
        f"({better} better, {worse} worse, {level} level)."
    )
    if worse > better:
        text += (
            " This is what the measure asks for: insertion wants every pixel that the class "
            "needs, in order, and a contrastive map is above zero only where features changed"
        )
        if page.has("parts", "edits_fgvce"):
            made = median(page.found["parts"]["rows"]["edits_fgvce"]["edits"])
            cells = page.found["table1"]["settings"]["cells"] ** 2
            text += f", a median of {made:.0f} of {cells} cells"
        text += (
            "; the order of the rest is arbitrary. The paper has FG-VCE before GradCAM in both "
            "scores."
        )
        if page.found["table1"]["settings"]["dataset"] == "birds":
            text += (
                " These classes differ in one small part while their evidence is the whole bird, "
                "which may be part of the reason."
            )
    return text


def compactness(page: Page) -> str | None:
    """Eq. 12, and what it rewards."""
    if not page.has("table1", *OURS.values(), "random", measures=["compactness"]):
        return None
    xi = page.scores("table1", "compactness")
    cells = page.found["table1"]["settings"]["cells"] ** 2
    constant = xi["random"] * 2 * cells / (cells + 1)
    methods = [
        row
        for row in xi
        if ROWS[row].explains == "P" and row != "random" and page.same_classifier("table1", row)
    ]
    below, _, _ = tally(
        (page.paired("table1", "compactness", row, "random"), True) for row in methods
    )
    return (
        "; ".join(f"{ROWS[row].label}: {page.place('compactness', row)}" for row in OURS.values())
        + ". But ξ should not be read alone. Eq. 12 is the mean of the map over its active cells "
        "times n² / Σg, and the second factor does not depend on the map: the number of active "
        f"cells cancels. Random cells reach {xi['random']:.1f}, more than {below} of the "
        f"{len(methods)} methods that explain P, and a constant map would reach {constant:.1f}, "
        "which no map can exceed. What is rewarded is a map whose active cells are about equally "
        "high, whether it says something or not."
    )


def partition(page: Page) -> str | None:
    """What SP does: Table 3 and Fig. 6."""
    pairs = table3.PAIRS
    if not page.has("table3", *pairs, *pairs.values(), measures=(*FAITHFUL, "compactness")):
        return None
    better, worse, level = tally(
        (page.paired("table3", measure, after, before), measure == "deletion")
        for before, after in pairs.items()
        for measure in ("insertion", "deletion")
    )
    moved = {
        word: [
            ROWS[after].label
            for before, after in pairs.items()
            if verdict(page.paired("table3", "compactness", after, before)) == word
        ]
        for word in ("better", "worse")
    }
    text = (
        f"Of the {2 * len(pairs)} insertion and deletion scores of Table 3, SP makes {better} "
        f"better, {worse} worse and leaves {level} level; the paper has nearly all better. "
        f"Compactness rises for {'; '.join(moved['better']) or 'none'} and falls for "
        f"{'; '.join(moved['worse']) or 'none'}; the paper's rises for all."
    )
    changes = {
        measure: {
            row: page.paired("figure6", measure, row, f"{row}_without_sp", unit)
            for row in OURS.values()
        }
        for measure, unit in (("pixels", 1), ("keypoints", 1), ("contribution", 1000))
    }
    if not all(changes["pixels"].values()):
        return text
    text += " In Fig. 6, on samples with a keypoint inside both ways, SP changes " + "; ".join(
        f"{what} by {' and '.join(f'{d[0]:+.{digits}f} ± {d[1]:.{digits}f}' for d in of.values())}"
        for what, digits, of in (
            ("the region's pixels", 0, changes["pixels"]),
            ("its keypoints", 1, changes["keypoints"]),
            ("the contribution per pixel in thousandths", 1, changes["contribution"]),
        )
    )
    text += " (invariant and dominant map). The paper has fewer pixels and keypoints with SP."
    if all(verdict(change) == "better" for change in changes["pixels"].values()):
        text += (
            " Ours are more pixels: a Gaussian mask lends every cell some of its neighbours' "
            "contribution, and the smoother weight may make larger regions above half the maximum."
        )
    return text


def cost(page: Page) -> str | None:
    """What a search takes, with and without SP and the selection of candidates."""
    if not page.has("figure7", "sp_sel", "sp", "sel"):
        return None
    rows = page.found["figure7"]["rows"]
    ms = {name: median(rows[name]["milliseconds"]) for name in ("sp_sel", "sp", "sel")}
    slower = difference(rows["sp"]["milliseconds"], rows["sp_sel"]["milliseconds"])
    more = difference(*(_made(rows[name]) for name in ("sp", "sp_sel")))
    failed = {name: rows[name]["flipped"].count(False) for name in ("sp_sel", "sp")}
    saves = {"better": "saves", "worse": "costs", "level": "does not change the"}
    text = (
        f"A search and its maps take {ms['sp_sel']:.2f} ms a sample, {ms['sp']:.2f} ms without the "
        f"selection of candidates, {ms['sel']:.2f} ms with it but without SP (medians). "
    )
    if slower:
        text += f"The selection {saves[verdict(slower)]} time. "
    text += f"{failed['sp_sel']} samples do not change with it, {failed['sp']} without it"
    if more is None:
        return f"{text}; too few change both ways to compare edits."
    text += (
        f"; on those that change both ways, all cells take {more[0]:+.1f} ± {more[1]:.1f} edits "
        "against the selection. "
    )
    if verdict(more) == "better":
        text += (
            "So does the paper's Fig. 7 (b), where a larger m takes more. Among more candidates "
            "there is one that is more alike, similarity weighs as much as log p_Q, and a cell "
            "that is much like the old one may change little."
        )
    else:
        text += "In the paper's Fig. 7 (b) a larger m takes more edits; that is not seen here."
    return text


def _made(found: dict[str, Any]) -> list[int | None]:
    """Edits of every sample whose prediction changed, None of the others."""
    return [
        e if flipped else None for e, flipped in zip(found["edits"], found["flipped"], strict=True)
    ]


def pointing(page: Page) -> str | None:
    """Whether the maps point at the part in which P and Q differ."""
    if not page.has("parts", *OURS.values(), "gradcam", measures=("hit", "energy", "area")):
        return None
    hit = page.scores("parts", "hit")
    area = page.scores("parts", "area")["gradcam"]
    methods = [r for r in hit if "random" not in r and page.same_classifier("parts", r)]
    most = sorted(methods, key=lambda row: -hit[row])[:3]

    def chance(row: str, measure: str) -> str:
        found = difference(
            page.values("parts", measure, row), page.values("parts", "area", row), 100
        )
        if found is None:
            return "not comparable with chance"
        word = {"better": "above", "worse": "below", "level": "level with"}[verdict(found)]
        return f"{word} chance ({found[0]:+.1f} ± {found[1]:.1f} points)"

    text = f"The differing parts cover {area:.0%} of the image, dilated. " + "; ".join(
        f"{ROWS[row].label}: its peak lies in them for {hit[row]:.0%} of the samples, "
        f"{chance(row, 'hit')}, and its energy is {chance(row, 'energy')}"
        for row in OURS.values()
    )
    text += ". The most hits have " + ", ".join(f"{ROWS[r].label} ({hit[r]:.0%})" for r in most)
    if page.has("parts", "cve", "ce"):
        text += ". In points, " + "; ".join(
            f"{ROWS[a].label} beside {ROWS[b].label}: hits "
            f"{judged(page.paired('parts', 'hit', a, b, 100))}, energy "
            f"{judged(page.paired('parts', 'energy', a, b, 100))}"
            for a, b in (("fgvce_dominant", "cve"), ("fgvce_invariant", "ce"))
        )
    return text + (
        ". FG-VCE replaces the cell that contributes most to P, whatever Q is; where two classes "
        "share all parts but one, that may be a part they share. Cells of a deep network also see "
        "far beyond their borders, so that a map of cells can only point roughly."
    )


def edits(page: Page) -> str | None:
    """Near-KP and Same-KP."""
    known = [name for name in parts.EDITING if page.has("parts", name)]
    if "edits_fgvce" not in known:
        return None
    rows = page.found["parts"]["rows"]

    def one(name: str) -> str:
        made, near = flipped_edits(rows[name]), rows[name]["near_kp_all"]
        shares = "—" if near is None else f"{near:.0f} and {rows[name]['same_kp_all']:.0f} %"
        edits = f"{mean(made):.1f} edits, " if made else ""
        unchanged = len(rows[name]["edits"]) - len(made)
        return f"{parts.EDITING[name]} {shares}, {edits}{unchanged} samples unchanged"

    return f"Near-KP and Same-KP over all edits: {'; '.join(map(one, known))}."
