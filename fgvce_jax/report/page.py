"""The report: one HTML file that needs nothing else, with a card for every explanation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float, UInt8
from PIL import Image

from fgvce_jax.data.example import Dataset
from fgvce_jax.errors import InputError
from fgvce_jax.files import whole_file
from fgvce_jax.methods import METHODS
from fgvce_jax.report.figures import (
    BLUE,
    ORANGE,
    data_uri,
    edits_chart,
    overlay,
    patch,
    probability_chart,
    window,
)
from fgvce_jax.results import RunResults, read_run

View = Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "S S 3"]]

_SHOWN_PAIRS = 8
_SHOWN_SKIPPED = 50
_CURVE = (350, 150)  # of the plot of p_target, in CSS pixels


def write_report(
    folder: str | Path,
    dataset: Dataset,
    references: Dataset,
    view: View,
    *,
    title: str | None = None,
    advance: Callable[[int], Any] = lambda count: None,
) -> Path:
    """Write report.html into the folder of a run.

    Every image is read once, in the order of its split. The page is written as it is drawn, so
    that memory does not grow with the number of cards (but for the reference patches, of which the
    bank holds a limited number).

    Args:
        folder: A run whose results are merged.
        dataset: The split that was explained.
        references: The split that the candidates come from.
        view: From an image to what the classifier saw of it.
        title: The page's title; by default the data and the classifier of the run's config.
        advance: Called with 1 for every card drawn.

    Returns:
        The file.

    Raises:
        InputError: No finished run, data other than the run's, or a file that cannot be written.
    """
    results = read_run(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    n = results.maps["invariant"].shape[-1]
    config = results.info["config"]
    methods = tuple(dict.fromkeys(config.get("methods", ())))
    page = environment.get_template("template.html.j2").stream(
        title=title or _title(config),
        confusion=config.get("pairs") == "confusion",
        n=n,
        orange=ORANGE,
        blue=BLUE,
        curve=_CURVE,
        info=results.info,
        info_json=json.dumps(
            {key: value for key, value in results.info.items() if key != "skipped"}, indent=2
        ),
        shown_skipped=_SHOWN_SKIPPED,
        summary=summary(results),
        methods=methods,
        nan=maps_with_nan(results, methods),
        pairs=confused_pairs(results),
        shown_pairs=_SHOWN_PAIRS,
        patches=_patches(results, references, view, n),
        cards=_cards(results, methods, dataset, view, advance),
    )
    page.enable_buffering(100)
    path = Path(folder) / "report.html"
    with whole_file(path) as file:
        page.dump(file, encoding="utf-8")
    return path


def _title(config: dict[str, Any]) -> str:
    """The data and the classifier in a few words, as far as the config names them."""
    data, model = config.get("data") or {}, config.get("model") or {}
    what = [data.get("name"), config.get("split") and f"{config['split']} split"]
    checkpoint = model.get("checkpoint") or ""
    what.append(str(Path(*Path(checkpoint).parts[-2:])) if checkpoint else model.get("arch"))
    return " · ".join(str(word) for word in what if word)


# --- the top ------------------------------------------------------------------------------------


def summary(results: RunResults) -> dict[str, Any]:
    """The figures at the top of the page.

    Returns:
        accuracy, flipped (share of the explanations that had references), edits and time (medians
        over them), each None where there is nothing to take it of; and the two charts as SVG.
    """
    counts = results.info["counts"]
    table = results.table.filter(pc.field("status") == "explained")
    edits, seconds = (table[name].to_numpy() for name in ("num_edits", "time_s"))
    flipped = table["flipped"].to_numpy()
    before, after = (table[f"p_target_{when}"].to_numpy() for when in ("before", "after"))
    return {
        "accuracy": counts["correct"] / counts["read"] if counts["read"] else None,
        "flipped": float(flipped.mean()) if len(table) else None,
        "edits": float(np.median(edits)) if len(table) else None,
        "time": duration(float(np.median(seconds))) if len(table) else None,
        "edits_chart": edits_chart(edits, flipped),
        "probability_chart": probability_chart(before, after),
    }


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 1.2 ms, 34 ms, 5.6 s."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"


def confused_pairs(results: RunResults) -> list[dict[str, Any]]:
    """Pairs (predicted, target), their names and how many images; the most frequent first.

    Ties go by name.
    """
    keys = ["predicted", "target", "predicted_name", "target_name"]
    rows = results.table.group_by(keys).aggregate([("id", "count")]).to_pylist()
    pairs = [
        {name: row[name] for name in keys}
        | {"key": f"{row['predicted']}-{row['target']}", "count": row["id_count"]}
        for row in rows
    ]
    return sorted(pairs, key=lambda p: (-p["count"], p["predicted_name"], p["target_name"]))


def maps_with_nan(results: RunResults, methods: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the images whose map holds NaN, by method; without those that have none."""
    found = {name: np.isnan(results.maps[name]).any((1, 2)) for name in methods}
    return {
        name: results.table["id"].filter(bad).to_pylist()
        for name, bad in found.items()
        if bad.any()
    }


# --- the cards ----------------------------------------------------------------------------------


def _patch_key(index: int, cell: int) -> str:
    return f"r{index}-{cell}"


def _patches(
    results: RunResults, references: Dataset, view: View, n: int
) -> Iterator[tuple[str, str]]:
    """The key and data URI of every reference patch that some edit used."""
    cells: dict[tuple[int, str], set[int]] = {}
    for batch in results.table.select(["edits"]).to_batches(max_chunksize=64):
        for edit in chain.from_iterable(batch["edits"].to_pylist()):
            image = edit["candidate_index"], edit["candidate_image"]
            cells.setdefault(image, set()).add(edit["candidate_cell"])
    for index, id in sorted(cells):
        image = _seen(results, references, index, id, view)
        for cell in sorted(cells[index, id]):
            yield _patch_key(index, cell), data_uri(patch(image, cell, n))


def _seen(
    results: RunResults, dataset: Dataset, index: int, id: str, view: View
) -> UInt8[np.ndarray, "S S 3"]:
    """An image as the classifier receives it; InputError where it is not the run's any more."""
    example = dataset[index]
    if example.id != id:
        raise InputError(
            f"{results.folder}: image {index} of the data is {example.id}, expected {id} as in "
            f"the run"
        )
    return view(example.image)


def _cards(
    results: RunResults,
    methods: Sequence[str],
    dataset: Dataset,
    view: View,
    advance: Callable[[int], Any],
) -> Iterator[dict[str, Any]]:
    """The template's variables for each explanation, in the order of the table."""
    maps = dict(results.maps)
    start = 0
    for batch in results.table.to_batches(max_chunksize=64):
        for k, row in enumerate(batch.to_pylist(), start):
            image = _seen(results, dataset, row["index"], row["id"], view)
            yield card(row, image, {name: maps[name][k] for name in maps}, methods)
            advance(1)
        start += len(batch)


def card(
    row: dict[str, Any],
    image: UInt8[np.ndarray, "S S 3"],
    maps: dict[str, Float[np.ndarray, "n n"]],
    methods: Sequence[str] = (),
) -> dict[str, Any]:
    """One explanation's row with its pictures (as data URIs), windows and curve.

    Positions are in cells from the image's top left corner. The gallery has, for each of
    `methods`, its name, the class it explains, and its map's picture (None where that holds NaN).
    """
    n = maps["invariant"].shape[0]
    return row | {
        "pair": f"{row['predicted']}-{row['target']}",
        "image": data_uri(Image.fromarray(image)),
        "small": image.shape[0] < 64,
        "invariant": data_uri(overlay(maps["invariant"], "invariant")),
        "dominant": data_uri(overlay(maps["dominant"], "dominant")),
        "gallery": [
            (name, METHODS[name].explains, _picture(maps[name], METHODS[name].explains))
            for name in methods
        ],
        "curve": _curve(row["p_target"]),
        "edits": [
            edit
            | {
                "patch": _patch_key(edit["candidate_index"], edit["candidate_cell"]),
                "replaced": window(edit["cell"], n),
                "candidate": window(edit["candidate_cell"], n),
                "p": p,
            }
            for edit, p in zip(row["edits"], row["p_target"][1:], strict=True)
        ],
    }


def _picture(values: Float[np.ndarray, "n n"], of: str) -> str | None:
    """A map in its class's colour; None where it holds NaN."""
    if np.isnan(values).any():
        return None
    return data_uri(overlay(values, {"P": "invariant", "Q": "dominant"}[of]))


def _curve(p_target: list[float]) -> list[tuple[float, float]]:
    """Points of p_target in the plot: evenly spaced, 1 at the top."""
    width, height = _CURVE
    steps = max(len(p_target) - 1, 1)
    return [
        (round(width * k / steps, 1), round(height * (1 - p), 1)) for k, p in enumerate(p_target)
    ]
