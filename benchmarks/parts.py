"""Part localisation: do the maps point at the part in which P and Q are known to differ?

And, for the methods that make edits, Near-KP and Same-KP: do the exchanged cells show parts, and
the same ones? No paper has this table; it needs data whose parts are known (birds).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import laid_over, save
from script import Results, Table, absences, choose, mean, measured, numbers, parser, run, shown
from study import Study
from tables import ROWS, left_out, maps_of, remarks, row_constants

from fgvce_jax.data.pipeline import move_keypoints
from fgvce_jax.metrics import keypoint_agreement, localisation, summarise_agreement

DEFAULT = [name for name in ROWS if not name.endswith("_sp") or "fgvce" in name]
EDITING = {
    "edits_fgvce": "FG-VCE",
    "edits_fgvce_without_sp": "FG-VCE w/o SP",
    "edits_cve": "CVE",
    "edits_cve_semantic": "CVE-semantic",
}
SHOWN = ("gradcam", "contributions", "fgvce_invariant", "fgvce_dominant", "cve")
MEASURES = {"hit": "Hit, %", "energy": "Energy, %"}


def localise(study: Study, name: str) -> dict[str, Any]:
    """Hit, energy and area of every sample, in [0, 1]; None where no differing part is visible."""
    own = ROWS[name].subject(study)
    masks, differing = own.part_masks, own.differing  # asked first: they may be missing
    explained = maps_of(study, name)
    localised = jax.jit(jax.vmap(lambda m, masks, d: localisation(m, masks, d, study.n)))
    out = own.batched(localised, explained.maps, masks, differing)
    return {
        "scores": {
            key: numbers(np.where(explained.whole, value, np.nan))
            for key, value in out._asdict().items()
        },
        "siblings": (differing.sum(1) == 1).tolist(),
        **left_out(explained),
    }


def agree(study: Study, name: str) -> dict[str, Any]:
    """Near-KP and Same-KP of the edits of one method."""
    keypoints = study.keypoints
    if name.startswith("edits_fgvce"):
        sigma = 0.0 if name.endswith("without_sp") else study.sigma
        found, bank = study.explanation(sigma), study.bank(study.top_m, sigma)
    else:
        found, bank = study.exhaustive(name.removeprefix("edits_")), study.bank(None, study.sigma)
    group = bank.group(study.target)[:, None]
    images = np.asarray(bank.image)[group, found.edit_candidate]
    cells = np.asarray(bank.cell)[group, found.edit_candidate]
    used = found.edit_cell >= 0
    points = np.zeros((*used.shape, *keypoints.shape[1:]), np.float32)
    view = (study.clf.image_size, study.clf.resize_to)
    for i in np.unique(images[used]):
        example = study.references.dataset[int(i)]
        moved = move_keypoints(example.keypoints, *example.image.shape[:2], *view)
        points[used & (images == i)] = moved
    agreement = jax.jit(
        jax.vmap(lambda *sample: keypoint_agreement(*sample, study.n, study.size[0]))
    )
    near, same = agreement(keypoints, points, found.edit_cell, cells)
    return summarise_agreement(np.asarray(near), np.asarray(same)) | {
        "edits": found.num_edits.tolist(),
        "flipped": found.flipped.tolist(),
    }


def draw(study: Study, names: list[str], count: int = 4) -> Figure:
    """Images whose classes differ in one part, its outline over the maps."""
    one_part = np.flatnonzero(study.differing.sum(1) == 1)[:count]
    width = len(names) + 1
    figure = Figure(figsize=(1.3 * width + 0.6, 1.35 * len(one_part) + 0.4), layout="constrained")
    axes = figure.subplots(len(one_part), width, squeeze=False)
    for row, i in zip(axes, one_part, strict=True):
        mask = study.part_masks[i][study.differing[i]].any(0)
        pictures = [study.images[i]]
        pictures += [
            np.asarray(
                laid_over(study.images[i], maps_of(study, n).maps[i], ROWS[n].explains, len(mask))
            )
            for n in names
        ]
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture)
            if mask.any():
                axis.contour(mask, [0.5], colors="#212529", linewidths=0.8)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(study.captions[i], fontsize=6)
    for axis, heading in zip(axes[0], ["image", *(ROWS[n].label for n in names)], strict=True):
        axis.set_title(heading.replace(", ", "\n"), fontsize=7)
    return figure


def parts_table(rows: dict[str, Any]) -> Table:
    """Hits and energy in percent, of all samples and of siblings."""
    table, notes = [], remarks(rows, ROWS)
    for name, found in rows.items():
        line: list[str | None] = [ROWS[name].label, ROWS[name].explains]
        for among in (samples_of, siblings_of):
            line += [shown(100 * v for v in among(found, key)) for key in MEASURES]
        table.append(line)
    columns = ["Method", "class", *MEASURES.values()]
    columns += [f"{title}, siblings" for title in MEASURES.values()]
    # CALM's classifier has a P of its own.
    usual = [found for name, found in measured(rows).items() if name != "calm"]
    if usual:
        areas, narrow = (among(usual[0], "area") for among in (samples_of, siblings_of))
        notes.append(
            f"{len(areas)} of {len(usual[0]['siblings'])} samples, {len(narrow)} of them siblings "
            "(P and Q differ in exactly one part); where the differing parts are hidden, a sample "
            "is left out. Dilated by half a cell, these parts cover "
            + " and ".join(
                f"{mean(area)[0]:.0%} of the image{of}"
                for area, of in ((areas, ""), (narrow, " for siblings"))
                if area
            )
            + ": the energy of a map that says nothing."
        )
    return Table(columns, table, notes)


def samples_of(found: dict[str, Any], key: str) -> list[float]:
    """A row's scores, of all samples that have one."""
    return [v for v in found.get("scores", {}).get(key, []) if v is not None]


def siblings_of(found: dict[str, Any], key: str) -> list[float]:
    """A row's scores, of the samples whose P and Q differ in one part."""
    values = zip(found.get("scores", {}).get(key, []), found.get("siblings", []), strict=True)
    return [v for v, sibling in values if sibling and v is not None]


def keypoints_table(rows: dict[str, Any]) -> Table:
    """Near-KP and Same-KP of the methods that make edits."""
    headings = {
        "near_kp_first": "Near-KP, first",
        "same_kp_first": "Same-KP, first",
        "near_kp_all": "Near-KP, all",
        "same_kp_all": "Same-KP, all",
    }
    table = []
    for name, found in rows.items():
        line = [EDITING[name], *(found.get(key) for key in headings), None, None]
        if "flipped" in found:
            flipped = [e for e, f in zip(found["edits"], found["flipped"], strict=True) if f]
            line[-2:] = (
                float(np.mean(flipped)) if flipped else None,
                len(found["edits"]) - len(flipped),
            )
        table.append(line)
    return Table(
        ["Method", *headings.values(), "Edits, mean", "Not changed"],
        table,
        [
            *absences(rows, EDITING),
            "In percent of the first edits, and of all edits. The mean number of edits is that of "
            "the samples whose prediction changed; the last column counts the others.",
        ],
    )


def main() -> None:
    """Measure, print, write, draw."""
    options = parser(__doc__, [*DEFAULT, *EDITING]).parse_args()
    names = choose("method", options.methods, [*ROWS, *EDITING])
    study = Study(options)
    results = Results("parts", study)
    results.measure(
        names,
        lambda name: (agree if name in EDITING else localise)(study, name),
        lambda name: row_constants(study, name),
    )
    if edits := results.among(EDITING):
        keypoints = keypoints_table(edits)
        results.content["keypoints"] = asdict(keypoints)
        print(keypoints.markdown(), end="\n\n")
    rows = results.among(ROWS)
    results.finish(parts_table(rows))
    drawn = [name for name in SHOWN if name in measured(rows)]
    if drawn and (study.differing.sum(1) == 1).any():
        save(draw(study, drawn), options.out / "parts.png")


if __name__ == "__main__":
    run(main)
