"""Part localisation: do the maps point at the part in which P and Q are known to differ?

And, for the methods that make edits, Near-KP and Same-KP: do the exchanged cells show parts, and
the same ones? No paper has this table; it needs data whose parts are known (birds).
"""

from functools import cache, partial
from statistics import fmean
from typing import Any

import jax
import numpy as np
from results import Table, absences, measured, shown
from rows import ROWS, draw, maps_of
from scores import table_of
from study import SEARCHES, Study, script

from fgvce_jax.data.birds import CLASS_NAMES, PART_NAMES, differing_parts
from fgvce_jax.data.pipeline import move_keypoints, preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.metrics import (
    keypoint_agreement,
    localisation,
    merged_sides,
    summarise_agreement,
)

DEFAULT = [name for name in ROWS if not name.endswith("_sp") or "fgvce" in name]
DEFAULT.sort(key=lambda name: ROWS[name].explains)
EDITING = {
    **{f"edits_{name}": label for name, label in SEARCHES.items()},
    **{f"edits_{name}": ROWS[name].label for name in ("cve", "cve_semantic")},
}
SHOWN = ("gradcam", "contributions", "fgvce_invariant", "fgvce_dominant", "cve")
MEASURES = {"hit": "Hit, %", "energy": "Energy, %"}
AGREEMENT = {
    f"{kind.lower()}_kp_{which}": f"{kind}-KP, {which}"
    for which in ("first", "all")
    for kind in ("Near", "Same")
}


@cache
def parts_of(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """The parts' masks, bool [N, M, S, S], and in which of them P and Q differ, bool [N, M]."""
    if study.config.data.name != "birds":
        raise InputError(f"the parts of dataset {study.config.data.name} are not known")

    def view(mask):
        grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
        return preprocess(grey, *study.view)[..., 0] > 127

    examples = (study.inputs.dataset[int(i)] for i in study.index)
    masks = [[view(mask) for mask in example.part_masks] for example in examples]
    number = [CLASS_NAMES.index(name) for name in study.clf.class_names]
    pairs = zip(study.predicted, study.target, strict=True)
    differing = [differing_parts(number[p], number[q]) for p, q in pairs]
    return np.array(masks), np.array([[part in d for part in PART_NAMES] for d in differing])


def localise(study: Study, name: str) -> dict[str, Any]:
    """Hit, energy and area of every sample, in [0, 1]; None where no differing part is visible."""
    masks, differing = parts_of(study.calm if name == "calm" else study)
    explained = maps_of(study, name)
    localised = jax.jit(jax.vmap(partial(localisation, n=study.n)))
    out = study.batched(localised, explained.maps, masks, differing)._asdict()
    return explained.scored(out) | {"siblings": (differing.sum(1) == 1).tolist()}


def agree(study: Study, name: str) -> dict[str, Any]:
    """Near-KP and Same-KP of the edits of one method."""
    keypoints = study.keypoints
    search = name.removeprefix("edits_")
    if search in SEARCHES:
        found, (bank, _) = study.explanation(search), study.search(search)
    else:
        found, bank = study.exhaustive(search), study.bank(None, study.sigma)
    places = bank.group[study.target][:, None], found.edit_candidate
    images, cells, used = bank.image[places], bank.cell[places], found.edit_cell >= 0
    points = np.zeros((*used.shape, *keypoints.shape[1:]), np.float32)
    for i in np.unique(images[used]):
        example = study.inputs.references[int(i)]
        moved = move_keypoints(example.keypoints, *example.image.shape[:2], *study.view)
        points[used & (images == i)] = moved
    view = {"n": study.n, "image_size": study.size[0]}
    parts = merged_sides(study.inputs.references.keypoint_names)
    agreement = jax.jit(jax.vmap(partial(keypoint_agreement, **view, parts=parts)))
    near_same = jax.device_get(agreement(keypoints, points, found.edit_cell, cells))
    edits, flipped = found.num_edits.tolist(), found.flipped.tolist()
    return summarise_agreement(*near_same) | {"edits": edits, "flipped": flipped}


def percent(found: dict[str, Any], key: str, siblings: bool) -> list[float]:
    """A row's scores, of all samples that have one or of those that differ in one part."""
    pairs = zip(found.get("scores", {}).get(key, []), found.get("siblings", []), strict=True)
    return [100 * v for v, sibling in pairs if v is not None and (sibling or not siblings)]


def parts_table(rows: dict[str, Any]) -> Table:
    """Hits and energy, of all samples and of siblings; chance in the last row."""
    columns = {
        f"{title}{group}": lambda name, key=key, group=group: shown(percent(rows[name], key, group))
        for group in ("", ", siblings")
        for key, title in MEASURES.items()
    }
    table = table_of(rows, ROWS, columns)
    # CALM's classifier has a P of its own.
    if usual := [found for name, found in measured(rows).items() if name != "calm"]:
        area, of_siblings = (percent(usual[0], "area", siblings) for siblings in (False, True))
        chance = [shown(values) for values in (area, area, of_siblings, of_siblings)]
        table.rows.append(["area of the parts", "", *chance])
        count = f"{len(area)} samples of {len(usual[0]['siblings'])}"
        table.notes.append(f"{count}, {len(of_siblings)} siblings.")
    return table


def keypoints_table(rows: dict[str, Any]) -> Table:
    """Near-KP and Same-KP of the methods that make edits."""
    table = []
    for name, found in rows.items():
        edits, flipped = (np.array(found.get(key, []), int) for key in ("edits", "flipped"))
        changed = edits[flipped == 1]
        unchanged = len(edits) - len(changed) if "edits" in found else None
        mean = fmean(changed) if len(changed) else None
        table.append([EDITING[name], *(found.get(key) for key in AGREEMENT), mean, unchanged])
    columns = ["Method", *AGREEMENT.values(), "Edits, mean", "Not changed"]
    return Table(columns, table, absences(rows, EDITING))


def measure(study: Study) -> None:
    """Measure, print, write; draw images whose classes differ in one part, with its outline."""

    def function(name: str) -> dict[str, Any]:
        return (agree if name in EDITING else localise)(study, name)

    known, default = [*ROWS, *EDITING], [*DEFAULT, *EDITING]
    results, rows = study.measure("parts", function, known, default)
    keypoints = {name: rows.pop(name) for name in EDITING if name in rows}
    results.finish(table=parts_table(rows), keypoints=keypoints_table(keypoints))
    if drawn := [name for name in SHOWN if name in measured(rows)]:
        masks, differing = parts_of(study)
        chosen = np.flatnonzero(differing.sum(1) == 1)[:4]
        outlines = [masks[i][differing[i]].any(0) for i in chosen]
        draw(study, "parts", drawn, chosen, outlines)


if __name__ == "__main__":
    script(measure, __doc__)
