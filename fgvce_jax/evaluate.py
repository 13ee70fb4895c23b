"""The keypoint measures of a finished run, for any dataset that has keypoints.

Near-KP and Same-KP of the edits, and the three figures of FG-VCE's Fig. 6 for both maps.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fgvce_jax.config import ExplainConfig, from_dict
from fgvce_jax.data import open_dataset
from fgvce_jax.data.pipeline import move_keypoints
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.metrics import extent, keypoint_agreement, summarise_agreement
from fgvce_jax.results import read_run
from fgvce_jax.run import open_classifier

if TYPE_CHECKING:
    from jaxtyping import Float

    from fgvce_jax.data.example import Dataset
    from fgvce_jax.models import Classifier

MAPS = {"invariant": "contributions_before", "dominant": "contributions_after"}
"""Each map and the contributions of the class that it explains."""


def evaluate(run_folder: str | Path) -> dict[str, Any]:
    """Measure a finished run.

    Returns:
        `explanations`, how many there are; `keypoints`, the means of `summarise_agreement`; and for
        "invariant" and "dominant" the mean `pixels`, `keypoints` and `contribution` of
        `metrics.extent` over the `counted` samples, those with a keypoint in the map's region
        (None where there are none), and how many are `without_keypoint`. JSON can hold it.

    Raises:
        InputError: No finished run, a dataset without keypoints, or data that cannot be read any
            more.
    """
    results = read_run(run_folder)
    config = from_dict(ExplainConfig, results.info["config"])
    dataset, references = (
        open_dataset(config.data.name, split, config.data.path)
        for split in (config.split, config.reference_split)
    )
    if not dataset.keypoint_names:
        raise InputError(
            f"dataset {config.data.name}: has no keypoints, expected one that has: birds, cub, or "
            "dogs prepared with StanfordExtra's JSON"
        )
    clf = open_classifier(config.model)
    points = _Points(clf)
    size = (clf.image_size, clf.image_size)
    n = results.maps["invariant"].shape[-1]
    steps = max([1, *results.table["num_edits"].to_pylist()])
    agreement = jax.jit(partial(keypoint_agreement, n=n, image_size=clf.image_size))

    near, same, queries = [], [], []
    for index, edits in zip(
        results.table["index"].to_pylist(), results.table["edits"].to_pylist(), strict=True
    ):
        query = points(dataset, index)
        queries.append(query)
        old, new = np.full(steps, -1), np.full(steps, -1)
        candidates = np.zeros((steps, *query.shape), np.float32)
        for t, edit in enumerate(edits):
            old[t], new[t] = edit["cell"], edit["candidate_cell"]
            candidates[t] = points(references, edit["candidate_index"])
        of_edits = agreement(query, candidates, old, new)
        near.append(np.asarray(of_edits[0]))
        same.append(np.asarray(of_edits[1]))

    out: dict[str, Any] = {"explanations": len(queries)}
    if not queries:
        return out
    out["keypoints"] = summarise_agreement(np.stack(near), np.stack(same))
    measure = jax.jit(jax.vmap(partial(extent, size=size)))
    for name, contributions in MAPS.items():
        found = measure(results.maps[name], results.maps[contributions], np.stack(queries))
        out[name] = _means({k: np.asarray(v) for k, v in found._asdict().items()})
    return out


class _Points:
    """Keypoints of an image as the classifier sees it; every image is read once."""

    def __init__(self, clf: Classifier):
        self.clf = clf
        self.kept: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, dataset: Dataset, index: int) -> Float[np.ndarray, "P 3"]:
        key = (id(dataset), index)
        if key not in self.kept:
            try:
                example = dataset[index]
            except UnreadableImage as error:
                raise InputError(f"{error}; the run had read it") from error
            self.kept[key] = move_keypoints(
                example.keypoints,
                *example.image.shape[:2],
                self.clf.image_size,
                self.clf.resize_to,
            )
        return self.kept[key]


def _means(found: dict[str, np.ndarray]) -> dict[str, float | int | None]:
    counted = found["keypoints"] > 0
    means = {
        key: float(values[counted].mean()) if counted.any() else None
        for key, values in found.items()
    }
    return means | {"counted": int(counted.sum()), "without_keypoint": int((~counted).sum())}


def evaluation_table(measures: dict[str, Any]) -> str:
    """What `evaluate` found, as text."""
    lines = [f"explanations     {measures['explanations']:,}"]
    if not measures["explanations"]:
        return lines[0]

    def text(value: float | None, form: str) -> str:
        return "—" if value is None else format(value, form)

    points = measures["keypoints"]
    lines += ["", f"{'edits':<16} {'number':>9} {'Near-KP':>9} {'Same-KP':>9}"]
    for label, which in (("first", "first"), ("all", "all")):
        near, same = (text(points[f"{kind}_kp_{which}"], ".1f") for kind in ("near", "same"))
        lines.append(f"{label:<16} {points[f'{which}_edits']:>9,} {near:>8}% {same:>8}%")
    lines += [
        "",
        f"{'map':<16} {'pixels':>9} {'keypoints':>9} {'s':>9} {'counted':>9} {'without':>9}",
    ]
    for name in MAPS:
        found = measures[name]
        lines.append(
            f"{name:<16} {text(found['pixels'], ',.0f'):>9} {text(found['keypoints'], '.2f'):>9} "
            f"{text(found['contribution'], '.4f'):>9} {found['counted']:>9,} "
            f"{found['without_keypoint']:>9,}"
        )
    lines.append("")
    lines.append("Maps: pixels above half the maximum, keypoints and mean contribution s inside;")
    lines.append("samples without a keypoint inside are left out (without).")
    return "\n".join(lines)
