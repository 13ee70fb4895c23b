"""The report: one HTML file that needs nothing else, with a card for every explanation."""

from __future__ import annotations

import base64
import hashlib
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
from fgvce_jax.pictures import data_uri, overlay, patch, window
from fgvce_jax.report.figures import edits_chart, probability_chart
from fgvce_jax.results import RunResults, read_run

View = Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "S S 3"]]

MOST_CARDS = 2000  # of a larger run an evenly spaced sample is shown
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
    that memory does not grow with the number of cards, only with that of reference patches. There
    are at most `MOST_CARDS`, evenly spaced over the explanations; the figures are of all of them.

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
    shown = results.sample(MOST_CARDS)
    info, config = results.info, results.info["config"]
    methods = tuple(dict.fromkeys(config.get("methods", ())))
    script = Path(__file__).with_name("script.js").read_text("utf-8")
    page = _template().stream(
        policy=content_policy(script),
        script=script,
        title=title or _title(config),
        confusion=config.get("pairs") == "confusion",
        n=shown.maps["invariant"].shape[-1],
        explanations=len(results.explanations),
        shown=len(shown.explanations),
        curve=_CURVE,
        info=info,
        info_json=json.dumps({key: info[key] for key in info if key != "skipped"}, indent=2),
        shown_skipped=_SHOWN_SKIPPED,
        summary=summary(results),
        methods=methods,
        nan=maps_with_nan(shown, methods),
        pairs=confused_pairs(results),
        shown_pairs=_SHOWN_PAIRS,
        patches=_patches(shown, references, view),
        cards=_cards(shown, methods, dataset, view, advance),
    )
    page.enable_buffering(100)
    path = Path(folder) / "report.html"
    with whole_file(path) as file:
        page.dump(file, encoding="utf-8")
    return path


def _template() -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("template.html.j2")


def content_policy(script: str) -> str:
    """The page's Content-Security-Policy: its one script, its styles and embedded pictures.

    Nothing is fetched or sent, and no other script runs, whatever an image's name holds. Styles
    are inline, as the charts carry theirs in attributes.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _title(config: dict[str, Any]) -> str:
    """The data and the classifier in a few words, as far as the config names them."""
    data, model = config.get("data") or {}, config.get("model") or {}
    split, checkpoint = config.get("split"), model.get("checkpoint")
    classifier = Path(*Path(checkpoint).parts[-2:]) if checkpoint else model.get("arch")
    words = data.get("name"), split and f"{split} split", classifier
    return " · ".join(str(word) for word in words if word)


# --- the top ------------------------------------------------------------------------------------


def summary(results: RunResults) -> dict[str, Any]:
    """The figures at the top of the page, and the two charts as SVG.

    They are accuracy, flipped (share of the explanations that had references), edits and time
    (medians over them), each None where there is nothing to take it of.
    """
    counts = results.info["counts"]
    names = "num_edits", "time_s", "flipped", "p_target_before", "p_target_after"
    table = results.explanations.read(["status", *names])
    table = table.filter(pc.field("status") == "explained")
    edits, seconds, flipped, before, after = (table[name].to_numpy() for name in names)
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
    """Pairs (predicted, target), their names and how many images; the most frequent first."""
    names = ["predicted_name", "target_name"]
    table = results.explanations.read(["predicted", "target", *names])
    groups = table.group_by(table.column_names).aggregate([([], "count_all")])
    order = [("count_all", "descending"), *((name, "ascending") for name in names)]
    pairs = groups.sort_by(order)
    return [row | {"key": _pair_key(row), "count": row["count_all"]} for row in pairs.to_pylist()]


def _pair_key(row: dict[str, Any]) -> str:
    return f"{row['predicted']}-{row['target']}"


def maps_with_nan(results: RunResults, methods: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the images whose map holds NaN, by method; without those that have none."""
    found = {name: np.isnan(results.maps[name]).any((1, 2)) for name in methods}
    ids = results.table["id"]
    return {name: ids.filter(bad).to_pylist() for name, bad in found.items() if bad.any()}


# --- the cards ----------------------------------------------------------------------------------


def _patch_key(index: int, cell: int) -> str:
    return f"r{index}-{cell}"


def _patches(results: RunResults, references: Dataset, view: View) -> Iterator[tuple[str, str]]:
    """The key and data URI of every reference patch that some edit used."""
    n = results.maps["invariant"].shape[-1]
    cells: dict[tuple[int, str], set[int]] = {}
    for batch in results.table.select(["edits"]).to_batches(max_chunksize=64):
        for edit in chain.from_iterable(batch["edits"].to_pylist()):
            image = edit["candidate_index"], edit["candidate_image"]
            cells.setdefault(image, set()).add(edit["candidate_cell"])
    for place, used in sorted(cells.items()):
        image = _seen(results, references, *place, view)
        for cell in sorted(used):
            yield _patch_key(place[0], cell), data_uri(patch(image, cell, n))


def _seen(
    results: RunResults, dataset: Dataset, index: int, id: str, view: View
) -> UInt8[np.ndarray, "S S 3"]:
    """An image as the classifier receives it; InputError where it is not the run's any more."""
    example = dataset[index]
    if example.id != id:
        found = f"image {index} of the data is {example.id}"
        raise InputError(f"{results.folder}: {found}, expected {id} as in the run")
    return view(example.image)


def _cards(
    results: RunResults,
    methods: Sequence[str],
    dataset: Dataset,
    view: View,
    advance: Callable[[int], Any],
) -> Iterator[dict[str, Any]]:
    """The template's variables for each explanation, in the order of the table."""
    maps = dict(results.maps)  # each file is opened once
    batches = results.table.to_batches(max_chunksize=64)
    for k, row in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches)):
        image = _seen(results, dataset, row["index"], row["id"], view)
        yield card(row, image, {name: maps[name][k] for name in maps}, methods)
        advance(1)


def card(
    row: dict[str, Any],
    image: UInt8[np.ndarray, "S S 3"],
    maps: dict[str, Float[np.ndarray, "n n"]],
    methods: Sequence[str] = (),
) -> dict[str, Any]:
    """One explanation's row with its pictures (as data URIs), windows and curve.

    Positions are in cells from the image's top left corner. The gallery has, for each of
    `methods`, its name, the class it explains, and its map's picture (None where that holds NaN).
    The curve has a point in the plot for each p_target, evenly spaced, 1 at the top.
    """
    n = maps["invariant"].shape[0]
    explains = {name: METHODS[name].explains for name in methods}
    p_target, (width, height) = row["p_target"], _CURVE
    step = width / max(len(p_target) - 1, 1)
    return row | {
        "pair": _pair_key(row),
        "image": data_uri(Image.fromarray(image)),
        "small": image.shape[0] < 64,
        "invariant": data_uri(overlay(maps["invariant"], "invariant")),
        "dominant": data_uri(overlay(maps["dominant"], "dominant")),
        "gallery": [(name, of, _picture(maps[name], of)) for name, of in explains.items()],
        "curve": [(round(step * k, 1), round(height * (1 - p), 1)) for k, p in enumerate(p_target)],
        "edits": [
            edit
            | {
                "patch": _patch_key(edit["candidate_index"], edit["candidate_cell"]),
                "replaced": window(edit["cell"], n),
                "candidate": window(edit["candidate_cell"], n),
                "p": p,
            }
            for edit, p in zip(row["edits"], p_target[1:], strict=True)
        ],
    }


def _picture(values: Float[np.ndarray, "n n"], of: str) -> str | None:
    """A map in its class's colour; None where it holds NaN."""
    if np.isnan(values).any():
        return None
    return data_uri(overlay(values, {"P": "invariant", "Q": "dominant"}[of]))
