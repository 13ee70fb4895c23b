"""The keypoint measures of a finished run, for any dataset that has keypoints.

Near-KP and Same-KP of the edits, and the three figures of FG-VCE's Fig. 6 for both maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from fgvce_jax.data.example import Dataset
from fgvce_jax.data.pipeline import move_keypoints
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.metrics import (
    Extent,
    chance_agreement,
    extent,
    keypoint_agreement,
    merged_sides,
    summarise_agreement,
)
from fgvce_jax.models import open_classifier
from fgvce_jax.progress import stage
from fgvce_jax.results import RunResults, read_run
from fgvce_jax.run_inputs import open_splits

MAPS = {"invariant": "contributions_before", "dominant": "contributions_after"}
"""Each map and the contributions of the class that it explains."""


def evaluate_run(run_folder: str | Path, *, merge_sides: bool = True) -> dict[str, Any]:
    """Measure a finished run.

    Args:
        run_folder: Of the run.
        merge_sides: In Same-KP, take the left and the right one of a pair as the same part, as
            published figures do.

    Returns:
        JSON of `explanations`, how many had references to take edits from; `not_annotated`, how
        many of their images (with keypoints that are NaN) and edits are left out; `keypoints`, the
        means of `summarise_agreement`, and `chance`, what random cells of the same images would
        reach; for "invariant" and "dominant" the mean `pixels`, `keypoints` and `contribution` of
        `metrics.extent` over the `counted` samples, those with a keypoint in the map's region
        (None where there are none), how many are `without_keypoint`, and in `keypoints_chance` how
        many keypoints as many pixels hold on average; and `edits`, the `id` of the image, the
        `step` from 1, `near_kp` and `same_kp` of every edit. `parts` is how many parts Same-KP
        tells apart.

    Raises:
        InputError: No finished run, a dataset without keypoints, or data that are gone.
    """
    results = read_run(run_folder)
    config = results.config
    dataset, references = open_splits(config.data, config.split, config.reference_split)
    _check_keypoints(config.data.name, dataset)
    clf = open_classifier(config.model)
    explained, rows = _explained(results)
    used = {edit["candidate_index"] for row in rows for edit in row["edits"]}
    with stage("Reading keypoints", len(rows) + len(used)) as advance:
        read = partial(_keypoints, view=(clf.image_size, clf.resize_to), advance=advance)
        of_image = read(dataset, {row["index"] for row in rows})
        of_reference = read(references, used)
    annotated = [not np.isnan(of_image[row["index"]]).any() for row in rows]
    shown = list(compress(rows, annotated))

    n = results.maps["invariant"].shape[-1]
    names = dataset.keypoint_names
    parts = merged_sides(names) if merge_sides else tuple(range(len(names)))
    options = {"n": n, "image_size": clf.image_size, "parts": parts}
    agreement, chance = (
        jax.jit(partial(f, **options)) for f in (keypoint_agreement, chance_agreement)
    )
    near, same, by_chance, edits = _agreement(shown, of_image, of_reference, agreement, chance)
    left_out = sum(len(row["edits"]) for row in rows) - len(edits)
    out: dict[str, Any] = {
        "explanations": len(rows),
        "parts": len(set(parts)),
        "not_annotated": {"images": len(rows) - len(shown), "edits": left_out},
    }
    if not shown:
        return out
    out["keypoints"] = summarise_agreement(near, same)
    out["chance"] = summarise_agreement(*by_chance)
    queries = np.stack([of_image[row["index"]] for row in shown])
    measure = jax.jit(jax.vmap(partial(extent, size=(clf.image_size, clf.image_size))))
    for name, contributions in MAPS.items():
        maps = (results.maps[key][explained[annotated]] for key in (name, contributions))
        out[name] = _means(measure(*maps, queries), queries[..., 2].sum(-1) / clf.image_size**2)
    return out | {"edits": edits}


def _agreement(
    rows: Sequence[dict[str, Any]],
    of_image: Mapping[int, Float[np.ndarray, "P 3"]],
    of_reference: Mapping[int, Float[np.ndarray, "P 3"]],
    agreement: Callable[..., Any],
    chance: Callable[..., Any],
) -> tuple[
    Float[np.ndarray, "M T"],
    Float[np.ndarray, "M T"],
    Float[np.ndarray, "2 M T"],
    list[dict[str, Any]],
]:
    """Near-KP and Same-KP of every edit of M explanations, NaN where unused; both as they are for
    random cells; and the first two as a list."""
    steps = max([1, *(len(row["edits"]) for row in rows)])
    near, same, *_ = by_chance = np.full((4, len(rows), steps), np.nan, np.float32)
    edits = []
    for i, row in enumerate(rows):
        query = of_image[row["index"]]
        old, new = np.full((2, steps), -1)
        candidates = np.zeros((steps, *query.shape), np.float32)
        for t, edit in enumerate(row["edits"]):
            points = of_reference[edit["candidate_index"]]
            if not np.isnan(points).any():
                old[t], new[t], candidates[t] = edit["cell"], edit["candidate_cell"], points
        near[i], same[i] = agreement(query, candidates, old, new)
        by_chance[2:, i] = np.where(old < 0, np.nan, chance(query, candidates))
        edits += [
            {"id": row["id"], "step": t + 1, "near_kp": float(a), "same_kp": float(b)}
            for t, (a, b) in enumerate(zip(near[i], same[i], strict=True))
            if not np.isnan(a)
        ]
    return near, same, by_chance[2:], edits


def _keypoints(
    dataset: Dataset,
    indices: set[int],
    view: tuple[int, int | None],
    advance: Callable[[int], None],
) -> dict[int, Float[np.ndarray, "P 3"]]:
    """Keypoints of images in the classifier's view, each image read once and in order."""
    found = {}
    for index in sorted(indices):
        try:
            example = dataset[index]
        except UnreadableImage as error:
            raise InputError(f"{error}; the run had read it") from error
        assert example.keypoints is not None  # of a dataset that has keypoint names
        height, width = example.image.shape[:2]
        found[index] = move_keypoints(example.keypoints, height, width, *view)
        advance(1)
    return found


def _means(found: Extent, density: Float[np.ndarray, "M"]) -> dict[str, float | int | None]:
    """Means over the samples with a keypoint inside; `density` is of visible keypoints a pixel."""
    counted = np.asarray(found.keypoints) > 0
    measured = found._asdict() | {"keypoints_chance": np.asarray(found.pixels) * density}
    means = {
        key: float(np.asarray(values)[counted].mean()) if counted.any() else None
        for key, values in measured.items()
    }
    return means | {"counted": int(counted.sum()), "without_keypoint": int((~counted).sum())}


def evaluation_table(measures: dict[str, Any]) -> str:
    """The measures of `evaluate_run` as text."""
    lines = [f"explanations     {measures['explanations']:,}"]
    if any(measures["not_annotated"].values()):
        left_out = "{images:,} images, {edits:,} edits".format(**measures["not_annotated"])
        lines.append(f"not annotated    {left_out}; left out")
    if "keypoints" not in measures:
        return "\n".join(lines)

    def row(label: str, *cells: str) -> str:
        return f"{label:<16}" + "".join(f" {cell:>9}" for cell in cells)

    def text(value: float | None, form: str) -> str:
        return "—" if value is None else format(value, form)

    points = measures["keypoints"]
    lines += ["", row("edits", "number", "Near-KP", "Same-KP")]
    for which in ("first", "all"):
        near, same = (text(points[f"{kind}_kp_{which}"], ".1f") for kind in ("near", "same"))
        lines.append(row(which, f"{points[f'{which}_edits']:,}", f"{near}%", f"{same}%"))
    by_chance = measures["chance"]
    near, same = (text(by_chance[f"{kind}_kp_all"], ".1f") for kind in ("near", "same"))
    lines.append(row("random cells", "", f"{near}%", f"{same}%"))
    lines += ["", row("map", "pixels", "keypoints", "s", "counted", "without")]
    for name in MAPS:
        found = measures[name]
        forms = {"pixels": ",.0f", "keypoints": ".2f", "contribution": ".4f"}
        means = (text(found[key], form) for key, form in forms.items())
        lines.append(row(name, *means, f"{found['counted']:,}", f"{found['without_keypoint']:,}"))
    note = """
Maps: pixels above half the maximum, keypoints and mean contribution s inside;
samples without a keypoint inside are left out (without)."""
    return "\n".join([*lines, note])


def _check_keypoints(name: str, dataset: Dataset) -> None:
    if not dataset.keypoint_names:
        raise InputError(
            f"dataset {name}: has no keypoints, expected one that has: birds, cub, or dogs "
            "prepared with StanfordExtra's JSON"
        )


def _explained(results: RunResults) -> tuple[Int[np.ndarray, "N"], list[dict[str, Any]]]:
    """The explanations that had references to take edits from: their places, and their edits."""
    table = results.explanations.read(["status", "id", "index", "edits"])
    explained = np.flatnonzero(np.array(table["status"].to_pylist()) == "explained")
    return explained, table.select(["id", "index", "edits"]).take(explained).to_pylist()
