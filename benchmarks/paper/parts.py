"""Part localisation: do the maps point at the part in which P and Q are known to differ?

And, for the methods that make edits, Near-KP and Same-KP: do the exchanged cells show parts, and
the same ones? No paper has this table; it needs data whose parts are known (birds).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from pictures import panel
from results import Table, absences, choose, mean, measured, numbers, shown
from rows import ROWS, maps_of
from scores import remarks
from study import Study, script

from fgvce_jax.data.birds import CLASS_NAMES, PART_NAMES, differing_parts
from fgvce_jax.data.pipeline import move_keypoints, preprocess
from fgvce_jax.errors import InputError
from fgvce_jax.metrics import keypoint_agreement, localisation, summarise_agreement

DEFAULT = [name for name in ROWS if not name.endswith("_sp") or "fgvce" in name]
DEFAULT.sort(key=lambda name: ROWS[name].explains)
EDITING = {
    "edits_fgvce": "FG-VCE",
    "edits_fgvce_without_sp": "FG-VCE w/o SP",
    **{f"edits_{name}": ROWS[name].label for name in ("cve", "cve_semantic")},
}
SHOWN = ("gradcam", "contributions", "fgvce_invariant", "fgvce_dominant", "cve")
MEASURES = {"hit": "Hit, %", "energy": "Energy, %"}
AGREEMENT = {
    "near_kp_first": "Near-KP, first",
    "same_kp_first": "Same-KP, first",
    "near_kp_all": "Near-KP, all",
    "same_kp_all": "Same-KP, all",
}


@cache
def parts_of(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """The parts' masks, bool [N, M, S, S], and in which of them P and Q differ, bool [N, M].

    Raises:
        InputError: That is not known of the dataset; of birds it is.
    """
    if study.config.data.name != "birds":
        raise InputError(f"the parts of dataset {study.config.data.name} are not known")

    def view(mask):
        grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
        return preprocess(grey, *study.view)[..., 0] > 127

    masks = [[view(mask) for mask in study.data[int(i)].part_masks] for i in study.index]
    number = [CLASS_NAMES.index(name) for name in study.clf.class_names]
    pairs = zip(study.predicted, study.target, strict=True)
    differing = [differing_parts(number[p], number[q]) for p, q in pairs]
    return np.array(masks), np.array([[part in d for part in PART_NAMES] for d in differing])


def localise(study: Study, name: str) -> dict[str, Any]:
    """Hit, energy and area of every sample, in [0, 1]; None where no differing part is visible."""
    masks, differing = parts_of(study.calm if name == "calm" else study)
    explained = maps_of(study, name)
    localised = jax.jit(jax.vmap(lambda m, masks, d: localisation(m, masks, d, study.n)))
    out = study.batched(localised, explained.maps, masks, differing)
    scores = {k: np.where(explained.whole, v, np.nan) for k, v in out._asdict().items()}
    return {
        "scores": {key: numbers(values) for key, values in scores.items()},
        "siblings": (differing.sum(1) == 1).tolist(),
        **explained.left_out(),
    }


def agree(study: Study, name: str) -> dict[str, Any]:
    """Near-KP and Same-KP of the edits of one method."""
    keypoints = study.keypoints
    if "fgvce" in name:
        sigma = 0.0 if name.endswith("without_sp") else study.sigma
        found, bank = study.explanation(sigma), study.bank(study.top_m, sigma)
    else:
        found, bank = study.exhaustive(name.removeprefix("edits_")), study.bank(None, study.sigma)
    group = bank.group[study.target][:, None]
    images = bank.image[group, found.edit_candidate]
    cells = bank.cell[group, found.edit_candidate]
    used = found.edit_cell >= 0
    points = np.zeros((*used.shape, *keypoints.shape[1:]), np.float32)
    for i in np.unique(images[used]):
        example = study.references[0][int(i)]
        moved = move_keypoints(example.keypoints, *example.image.shape[:2], *study.view)
        points[used & (images == i)] = moved
    agreement = jax.jit(
        jax.vmap(lambda *sample: keypoint_agreement(*sample, study.n, study.size[0]))
    )
    near_same = agreement(keypoints, points, found.edit_cell, cells)
    return summarise_agreement(*map(np.asarray, near_same)) | {
        "edits": found.num_edits.tolist(),
        "flipped": found.flipped.tolist(),
    }


def values_of(found: dict[str, Any], key: str, siblings: bool) -> list[float]:
    """A row's scores, of all samples that have one or of those that differ in one part."""
    pairs = zip(found.get("scores", {}).get(key, []), found.get("siblings", []), strict=True)
    return [v for v, sibling in pairs if v is not None and (sibling or not siblings)]


def parts_table(rows: dict[str, Any]) -> Table:
    """Hits and energy in percent, of all samples and of siblings; chance in the last row."""
    groups = (False, True)

    def line(label: str, explains: str, found: dict[str, Any], keys: list[str]) -> list[Any]:
        values = [values_of(found, key, siblings) for siblings in groups for key in keys]
        return [label, explains, *(shown(100 * v for v in series) for series in values)]

    table = [line(ROWS[n].label, ROWS[n].explains, found, [*MEASURES]) for n, found in rows.items()]
    notes = remarks(rows, ROWS)
    # CALM's classifier has a P of its own.
    if usual := [found for name, found in measured(rows).items() if name != "calm"]:
        table.append(line("area of the parts", "", usual[0], ["area", "area"]))
        counts = [len(values_of(usual[0], "area", siblings)) for siblings in groups]
        notes.append(f"{counts[0]} samples of {len(usual[0]['siblings'])}, {counts[1]} siblings.")
    columns = ["Method", "class", *MEASURES.values()]
    columns += [f"{title}, siblings" for title in MEASURES.values()]
    return Table(columns, table, notes)


def keypoints_table(rows: dict[str, Any]) -> Table:
    """Near-KP and Same-KP of the methods that make edits."""
    table = []
    for name, found in rows.items():
        flipped = np.array(found.get("edits", []))[np.array(found.get("flipped", []), bool)]
        edits = mean(flipped)
        unchanged = len(found["edits"]) - len(flipped) if "edits" in found else None
        shares = [found.get(key) for key in AGREEMENT]
        table.append([EDITING[name], *shares, edits and float(edits[0]), unchanged])
    columns = ["Method", *AGREEMENT.values(), "Edits, mean", "Not changed"]
    return Table(columns, table, absences(rows, EDITING))


def draw(study: Study, names: list[str], count: int = 4) -> None:
    """Images whose classes differ in one part, its outline over the maps."""
    masks, differing = parts_of(study)
    chosen = np.flatnonzero(differing.sum(1) == 1)[:count]
    outlines = [masks[i][differing[i]].any(0) for i in chosen]
    columns = {ROWS[n].label: (ROWS[n].explains, maps_of(study, n).maps[chosen]) for n in names}
    if len(chosen) and columns:
        captions, path = [study.captions[i] for i in chosen], study.options.out / "parts.png"
        panel(path, study.images[chosen], captions, columns, outlines=outlines)


def measure(study: Study) -> None:
    """Measure, print, write, draw."""
    names = choose("method", study.options.methods, [*ROWS, *EDITING], [*DEFAULT, *EDITING])
    results = study.results("parts")
    results.measure(names, lambda name: (agree if name in EDITING else localise)(study, name))
    rows = results.among(dict.fromkeys([*DEFAULT, *ROWS]))
    results.finish(table=parts_table(rows), keypoints=keypoints_table(results.among(EDITING)))
    draw(study, [name for name in SHOWN if name in measured(rows)])


if __name__ == "__main__":
    script(measure, __doc__)
