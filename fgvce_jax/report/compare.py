"""Runs over the same images side by side: two classifiers, or two searches of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fgvce_jax.data.example import Dataset
from fgvce_jax.errors import InputError
from fgvce_jax.files import whole_file
from fgvce_jax.metrics import spearman
from fgvce_jax.pictures import PALETTES
from fgvce_jax.report import bundle
from fgvce_jax.report.cards import encoded
from fgvce_jax.report.page import CHUNK, in_chunks
from fgvce_jax.report.sources import Source, View
from fgvce_jax.results import RunResults

_COLUMNS = (
    *("id", "index", "predicted_name", "target_name", "status", "flipped", "edits"),
    *("p_predicted", "p_target"),
)
_MAPS = {"P": "invariant", "Q": "dominant"}


@dataclass(frozen=True)
class Side:
    """One of the runs.

    Attributes:
        name: Its folder's.
        correct: By id, whether an image that it read is classified correctly.
        rows: By id, its explanation as in the run's table, with its `place` there.
        maps: The two maps by "P" and "Q", float32 [M, n, n].
    """

    name: str
    correct: dict[str, bool]
    rows: dict[str, dict[str, Any]]
    maps: dict[str, Float[np.ndarray, "M n n"]]

    @property
    def n(self) -> int:
        """Cells per side."""
        return self.maps["P"].shape[-1]


def open_side(results: RunResults, name: str) -> Side:
    """A run as a side of the comparison."""
    read = results.predictions
    right = (read["predicted"].to_numpy() == read["target"].to_numpy()).tolist()
    rows = results.explanations.read(_COLUMNS).to_pylist()
    return Side(
        name,
        dict(zip(read["id"].to_pylist(), right, strict=True)),
        {row["id"]: row | {"place": place} for place, row in enumerate(rows)},
        {of: results.maps[name] for of, name in _MAPS.items()},
    )


def write_comparison(
    runs: Sequence[RunResults],
    names: Sequence[str],
    path: Path,
    dataset: Dataset | None,
    view: View,
) -> Path:
    """Write the page of some runs, at least two.

    Args:
        runs: Finished runs.
        names: What they are called.
        path: The page.
        dataset: The split of the first run; None where it is gone.
        view: What that run's classifier saw of an image.

    Raises:
        InputError: Fewer than two runs, no image that all of them read, or a file that cannot be
            written.
    """
    if len(runs) < 2:
        raise InputError(f"runs: expected at least two to compare, got {len(runs)}")
    sides = [open_side(run, name) for run, name in zip(runs, names, strict=True)]
    common = [id for id in sides[0].correct if all(id in side.correct for side in sides)]
    if not common:
        raise InputError(f"{path.name}: expected runs of the same images, got none in common")
    wrong = {id: tuple(k for k, side in enumerate(sides) if not side.correct[id]) for id in common}
    shown = [id for id in common if any(id in side.rows for side in sides)]
    groups = Counter(wrong.values())
    order = sorted(groups, key=lambda which: (-len(which), which))
    title = {which: _title(which, names) for which in order}
    index = _index(sides, shown, [wrong[id] for id in shown], order, title)
    cards = _cards(sides, shown, Source(dataset, view))
    chunks = (
        (f"cards-{number}", bundle.as_json(some)) for number, some in enumerate(in_chunks(cards))
    )
    variables = {
        "runs": [_figures(side, common) for side in sides],
        "common": len(common),
        "groups": [(title[which], groups[which]) for which in order],
        "agreement": list(chain.from_iterable(_agreement(sides[0], side) for side in sides[1:])),
    }
    blocks = chain(chunks, [("index", bundle.as_json(index))])
    with whole_file(path) as file:
        bundle.page("compare", variables, blocks).dump(file, encoding="utf-8")
    return path


def _title(wrong: tuple[int, ...], names: Sequence[str]) -> str:
    if not wrong:
        return "all right"
    if len(wrong) == len(names):
        return "both wrong" if len(names) == 2 else "all wrong"
    return f"only {', '.join(names[k] for k in wrong)} wrong"


def _figures(side: Side, common: Sequence[str]) -> dict[str, str]:
    rows = [side.rows[id] for id in common if id in side.rows]
    explained = [row for row in rows if row["status"] == "explained"]
    right = sum(side.correct[id] for id in common)
    edits = [len(row["edits"]) for row in explained]
    return {
        "name": side.name,
        "accuracy": f"{right / len(common):.1%}",
        "wrong": f"{len(common) - right:,}",
        "explained": f"{len(explained):,}",
        "flipped": f"{np.mean([row['flipped'] for row in explained]):.1%}" if explained else "–",
        "edits": f"{np.median(edits):g}" if edits else "–",
    }


def _index(
    sides: Sequence[Side],
    shown: Sequence[str],
    wrong: Sequence[tuple[int, ...]],
    order: Sequence[tuple[int, ...]],
    title: Mapping[tuple[int, ...], str],
) -> dict[str, Any]:
    """What the page needs before any card; classes are numbered here, by name."""
    first = [next(side.rows[id] for side in sides if id in side.rows) for id in shown]
    classes = _classes(sides)
    return {
        "n": sides[0].n,
        "folder": None,
        "classes": {str(k): name for name, k in classes.items()},
        "palettes": {of: PALETTES[name] for of, name in _MAPS.items()},
        "chunks": {"cards": CHUNK},
        "runs": [{"name": side.name, "n": side.n} for side in sides],
        "groups": [title[which] for which in order],
        "pairs": [],
        "suspect_from": 1,
        "rows": {
            "id": list(shown),
            "P": [classes[row["predicted_name"]] for row in first],
            "Q": [classes[row["target_name"]] for row in first],
            "suspect": [None] * len(shown),
            "group": [order.index(which) for which in wrong],
        },
    }


def _classes(sides: Sequence[Side]) -> dict[str, int]:
    rows = chain.from_iterable(side.rows.values() for side in sides)
    names = chain.from_iterable((row["predicted_name"], row["target_name"]) for row in rows)
    return {name: k for k, name in enumerate(dict.fromkeys(names))}


def _cards(sides: Sequence[Side], shown: Sequence[str], source: Source) -> Iterator[dict[str, Any]]:
    classes = _classes(sides)

    def column(side: Side, id: str) -> dict[str, Any] | None:
        if (row := side.rows.get(id)) is None:
            return None
        return {
            "P": classes[row["predicted_name"]],
            "Q": classes[row["target_name"]],
            "flipped": row["flipped"],
            "edits": [edit["cell"] for edit in row["edits"]],
            "pP": [row["p_predicted"][k] for k in (0, -1)] if row["p_predicted"] else [0, 0],
            "pQ": [row["p_target"][k] for k in (0, -1)] if row["p_target"] else [0, 0],
            "maps": {of: encoded(maps[row["place"]]) for of, maps in side.maps.items()},
        }

    for id in shown:
        index = next(side.rows[id] for side in sides if id in side.rows)["index"]
        seen = source(index, id)
        runs = [column(side, id) for side in sides]
        yield {"image": seen.picture, "gone": seen.gone, "runs": runs}


def _agreement(a: Side, b: Side) -> Iterator[dict[str, str]]:
    """How far two runs agree where both are wrong, and on the same question (P and Q)."""
    both = [id for id in a.rows if id in b.rows and not (a.correct[id] or b.correct[id])]
    names = ("predicted_name", "target_name")
    asked = [id for id in both if all(a.rows[id][name] == b.rows[id][name] for name in names)]
    yield {
        "name": f"{b.name}: same wrong class, of {len(both):,} images wrong in both",
        "found": f"{len(asked) / len(both):.1%}" if both else "–",
        "chance": "",
    }
    if a.n != b.n or not asked:
        return
    cells = [[{e["cell"] for e in side.rows[id]["edits"]} for side in (a, b)] for id in asked]
    some = [(x, y) for x, y in cells if x and y]
    if some:
        found = np.mean([len(x & y) / min(len(x), len(y)) for x, y in some])
        chance = np.mean([max(len(x), len(y)) / a.n**2 for x, y in some])
        what = f"{b.name}: edited cells in common, of the shorter list"
        yield {"name": what, "found": f"{found:.1%}", "chance": f"{chance:.1%}"}
    for of, words in (("P", "evidence for P"), ("Q", "deciding for Q")):
        places = ([side.rows[id]["place"] for id in asked] for side in (a, b))
        maps = (side.maps[of][place] for side, place in zip((a, b), places, strict=True))
        found = np.asarray(jax.vmap(spearman)(*(jnp.asarray(m.reshape(len(m), -1)) for m in maps)))
        text = f"{np.nanmean(found):.2f}" if np.isfinite(found).any() else "–"
        yield {"name": f"{b.name}: rank correlation, {words}", "found": text, "chance": "0.00"}
