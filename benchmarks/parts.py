"""Part localisation: do the maps point at the part in which P and Q are known to differ?

And, for the methods that make edits, Near-KP and Same-KP: do the exchanged cells show parts, and
the same ones? No paper has this table; it needs data whose parts are known (birds).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pictures import laid_over, save
from tables import (
    ROWS,
    Results,
    Study,
    Table,
    choose,
    constants,
    maps_of,
    mean,
    numbers,
    parser,
    run,
    shown,
)

from fgvce_jax.data.pipeline import move_keypoints
from fgvce_jax.errors import InputError
from fgvce_jax.methods.cve import cve_counterfactuals, cve_semantic_counterfactuals
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
    """Hit, energy and area of every sample, in [0, 1]; None where the part is hidden."""
    explained = maps_of(study, name)
    whole = np.isfinite(explained.maps).all((1, 2))
    maps = np.where(whole[:, None, None], explained.maps, 0)
    measured = jax.jit(jax.vmap(lambda m, masks, d: localisation(m, masks, d, study.n)))
    out = study.batched(measured, maps, study.part_masks, study.differing)
    return {
        "scores": {
            key: numbers(np.where(whole, value, np.nan)) for key, value in out._asdict().items()
        },
        "excluded": [id for id, ok in zip(study.ids, whole, strict=True) if not ok],
    }


def agree(study: Study, name: str) -> dict[str, Any]:
    """Near-KP and Same-KP of the edits of one method."""
    if study.keypoints is None:
        raise InputError(f"dataset {study.config.data.name}: has no keypoints")
    if name.startswith("edits_fgvce"):
        options = {"sigma": 0.0} if name.endswith("without_sp") else {}
        found, bank = study.explanation(**options), study.bank(**options)
    else:
        function = cve_semantic_counterfactuals if "semantic" in name else cve_counterfactuals
        bank = study.bank(None)
        found = study.batched(
            lambda images, q: function(study.clf, images, q, bank=bank)._replace(cells=q),
            study.images,
            study.target,
        )
    of_target = study.target[:, None]
    images = np.asarray(bank.image)[of_target, found.edit_candidate]
    cells = np.asarray(bank.cell)[of_target, found.edit_candidate]
    used = found.edit_cell >= 0
    points = np.zeros((*used.shape, *study.keypoints.shape[1:]), np.float32)
    view = (study.clf.image_size, study.clf.resize_to)
    for i in np.unique(images[used]):
        example = study.references.dataset[int(i)]
        moved = move_keypoints(example.keypoints, *example.image.shape[:2], *view)
        points[used & (images == i)] = moved
    measured = jax.jit(
        jax.vmap(lambda *sample: keypoint_agreement(*sample, study.n, study.size[0]))
    )
    near, same = measured(study.keypoints, points, found.edit_cell, cells)
    return summarise_agreement(np.asarray(near), np.asarray(same)) | {
        "edits": found.num_edits.tolist(),
        "flipped": int(found.flipped.sum()),
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


def main() -> None:
    """Measure, print, write, draw."""
    options = parser(__doc__, [*DEFAULT, *EDITING]).parse_args()
    names = choose("method", options.methods, [*ROWS, *EDITING])
    study = Study(options)
    siblings = np.zeros(len(study), bool)
    if study.knows_parts:
        siblings = study.differing.sum(1) == 1
    results = Results("parts", study)
    results.content["siblings"] = siblings.tolist()
    rows = results.measure(
        names, lambda name: (agree if name in EDITING else localise)(study, name)
    )

    table, notes, areas = [], [], None
    for name in (name for name in names if name in ROWS):
        found, row = rows[name], ROWS[name]
        if "missing" in found:
            notes.append(f"{row.label}: — because {found['missing']}.")
            table.append([row.label, row.explains, None, None, None, None])
            continue
        line: list[str | None] = [row.label, row.explains]
        for chosen in (np.ones(len(study), bool), siblings):
            for key in MEASURES:
                values = zip(found["scores"][key], chosen, strict=True)
                line.append(shown([None if v is None else 100 * v for v, c in values if c]))
        table.append(line)
        areas = found["scores"]["area"]
        if found["excluded"]:
            notes.append(f"{row.label}: NaN in the maps of {', '.join(found['excluded'])}.")
    columns = [
        "Method",
        "class",
        *MEASURES.values(),
        *(f"{m}, siblings" for m in MEASURES.values()),
    ]
    if areas:
        visible = np.array([a is not None for a in areas])
        everywhere = mean(areas)
        among = mean([a for a, s in zip(areas, siblings, strict=True) if s])
        notes.append(
            f"{visible.sum()} of {len(study)} samples, {(visible & siblings).sum()} of them "
            "siblings (P and Q differ in exactly one part); where the part is hidden, a sample is "
            f"left out. The differing parts, dilated by half a cell, cover {everywhere[0]:.0%} of "
            f"the image, {among[0]:.0%} for siblings: the energy of a map that says nothing."
        )
    notes += constants(study, names)
    edits = [name for name in names if name in EDITING]
    if edits:
        second = [
            [
                EDITING[name],
                *(
                    None if "missing" in rows[name] else rows[name][key]
                    for key in ("near_kp_first", "same_kp_first", "near_kp_all", "same_kp_all")
                ),
                None if "missing" in rows[name] else float(np.mean(rows[name]["edits"])),
                None if "missing" in rows[name] else f"{rows[name]['flipped']} of {len(study)}",
            ]
            for name in edits
        ]
        headings = ["Near-KP, first", "Same-KP, first", "Near-KP, all", "Same-KP, all"]
        keypoints = Table(
            ["Method", *headings, "Edits, mean", "Flipped"],
            second,
            ["In percent of the first edits, and of all edits."],
        )
        results.content["keypoints"] = vars(keypoints)
        print(keypoints.markdown(), end="\n\n")
    results.finish(Table(columns, table, notes))
    drawn = [name for name in SHOWN if name in names and "missing" not in rows[name]]
    if drawn and siblings.any():
        save(draw(study, drawn), options.out / "parts.png")


if __name__ == "__main__":
    run(main)
