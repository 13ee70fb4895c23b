"""What was measured of a run's edits and maps, each beside the level that chance reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fgvce_jax.files import read_json


def findings(folder: Path, twins: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Measures as text: `name`, `found` and `chance`.

    Those of `fgvce evaluate`, where the folder holds its evaluation.json, and where the edits lie
    of images that have a twin (`known.twins`).
    """
    path = folder / "evaluation.json"
    measured = _measured(read_json(path)) if path.exists() else []
    return [*_in_differing_parts([twin for twin in twins if twin["hits"]]), *measured]


def _in_differing_parts(twins: list[Mapping[str, Any]]) -> list[dict[str, str]]:
    if not twins:
        return []
    first = sum(twin["hits"][0] for twin in twins) / len(twins)
    first_chance = sum(twin["chance"] for twin in twins) / len(twins)
    edits = sum(len(twin["hits"]) for twin in twins)
    every = sum(sum(twin["hits"]) for twin in twins) / edits
    chance = sum(twin["chance"] * len(twin["hits"]) for twin in twins) / edits
    what = "in a part in which P and Q differ"
    return [
        {"name": f"first edits {what}", "found": f"{first:.1%}", "chance": f"{first_chance:.1%}"},
        {"name": f"edits {what}", "found": f"{every:.1%}", "chance": f"{chance:.1%}"},
    ]


def _measured(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Near-KP, Same-KP, and the keypoints in the maps."""
    if "keypoints" not in evaluation:
        return []
    found, chance = evaluation["keypoints"], evaluation.get("chance", {})
    rows = [
        _row(
            f"{kind}-KP, {words}", *(of.get(f"{kind.lower()}_kp_{which}") for of in (found, chance))
        )
        for kind in ("Near", "Same")
        for which, words in (("first", "first edits"), ("all", "all edits"))
    ]
    for name, words in (("invariant", "evidence for P"), ("dominant", "deciding for Q")):
        values = (evaluation[name].get(key) for key in ("keypoints", "keypoints_chance"))
        rows.append(_row(f"keypoints in the map, {words}", *values, form="{:.2f}"))
    return rows


def _row(
    name: str, found: float | None, chance: float | None, form: str = "{:.1f}%"
) -> dict[str, str]:
    texts = ("–" if value is None else form.format(value) for value in (found, chance))
    return dict(zip(("name", "found", "chance"), (name, *texts), strict=True))
