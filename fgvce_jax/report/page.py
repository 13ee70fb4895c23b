"""The report: a page that needs nothing else, with a card for every explanation.

The data go one way: the run's folder, a JSON model of the report (`cards`, `pairs`, `head`), the
page (`bundle`). Cards, references and pairs travel in chunks, which the page reads when a card
comes into view. Up to `IN_ONE_FILE` cards the chunks are blocks of the page; of a larger run they
are scripts in a folder beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from fgvce_jax.data.example import Dataset
from fgvce_jax.files import whole_file, writing
from fgvce_jax.methods import METHODS
from fgvce_jax.pictures import PALETTES
from fgvce_jax.report import bundle
from fgvce_jax.report.cards import card
from fgvce_jax.report.findings import findings
from fgvce_jax.report.head import head, times
from fgvce_jax.report.known import part_names, parts_by_cell, twins
from fgvce_jax.report.pairs import PairTotals, confused_pairs, totals
from fgvce_jax.report.sources import Source, View
from fgvce_jax.report.suspects import SUSPECT_FROM, suspicion
from fgvce_jax.results import RunResults, read_run

IN_ONE_FILE = 2000
"""The most cards of a report that is one file."""

MOST_CARDS = 10_000
"""The most cards of a report: of a larger run an evenly spaced sample is shown."""

CHUNK = 50
"""Items of a chunk of data."""

_DRAWN = ("invariant", "dominant")


def write_report(
    run: str | Path | RunResults,
    dataset: Dataset | None,
    references: Dataset | None,
    view: View,
    *,
    title: str | None = None,
    advance: Callable[[int], Any] = lambda count: None,
    out: Path | None = None,
    in_one_file: int = IN_ONE_FILE,
) -> Path:
    """Write report.html into the folder of a run, and report-data/ beside it where it is large.

    Every image is read once, in the order of its split, and written as it is read, so that memory
    does not grow with the number of pictures. There are at most `MOST_CARDS` cards, evenly spaced
    over the explanations; the figures are of all of them.

    Args:
        run: A run whose results are merged: its folder, or what was read of it.
        dataset, references: The splits of the images and of the candidates; None where one is gone.
        view: From an image to what the classifier saw of it.
        title: The page's title; by default the data and the classifier of the run's config.
        advance: Called with 1 for every card drawn.
        out: The folder to write into; by default the run's.
        in_one_file: The most cards of a report that is one file.

    Returns:
        The page.

    Raises:
        InputError: No finished run, data other than the run's, or a file that cannot be written.
    """
    started = time.perf_counter()
    results = run if isinstance(run, RunResults) else read_run(run)
    folder = out or results.folder
    shown = results.sample(MOST_CARDS)
    methods = tuple(dict.fromkeys(results.info["config"].get("methods", ())))
    model = Model(shown, confused_pairs(results), methods, view, advance)
    top = head(results, shown, title, methods)
    apart = len(shown.explanations) > in_one_file
    data = folder / "report-data"
    chunks = model.chunks(dataset, references)
    if apart:
        _write_chunks(data, chunks)
        chunks = iter(())

    def blocks() -> Iterator[tuple[str, str]]:
        for kind, number, items in chunks:
            yield f"{kind}-{number}", bundle.as_json(items)
        known = {"folder": data.name if apart else None}  # last of all, as the chunks add to it
        known |= {"times": times(results, time.perf_counter() - started)}
        yield "index", bundle.as_json(known | model.index(top))

    info = dict(results.info)
    variables = {"head": top, "skipped": info.pop("skipped"), "info": json.dumps(info, indent=2)}
    with whole_file(path := folder / "report.html") as file:
        bundle.page("report", variables, blocks(), apart).dump(file, encoding="utf-8")
    if not apart:
        shutil.rmtree(data, ignore_errors=True)
    return path


def _write_chunks(folder: Path, chunks: Iterable[tuple[str, int, list[Any]]]) -> None:
    """Write a folder of scripts, in the place of the one that is there once it is whole."""
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with writing(new):
            new.mkdir()
            for kind, number, items in chunks:
                text = f'fgvceChunk("{kind}",{number},{bundle.as_json(items)});\n'
                (new / f"{kind}-{number}.js").write_text(text, "utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            new.replace(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@dataclass
class Model:
    """The report as JSON: chunks of cards, references and pairs, then the index.

    Attributes:
        results: The run, those of its explanations that have a card.
        pairs: Of all its explanations.
        methods: Other methods whose maps stand beside.
        view: What the classifier saw of an image.
        advance: Called with 1 for every card.
    """

    results: RunResults
    pairs: list[dict[str, int]]
    methods: Sequence[str]
    view: View
    advance: Callable[[int], Any]
    n: int = field(init=False)
    _totals: dict[tuple[int, int], PairTotals] = field(init=False)
    _used: list[tuple[int, str]] = field(init=False)
    _places: dict[int, int] = field(init=False)
    _suspicion: list[float | None] = field(default_factory=list)
    _twins: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self):
        self.n = self.results.maps["invariant"].shape[-1]
        self._totals = totals(self.pairs, self.n)
        self._used = _references(self.results)
        self._places = {index: place for place, (index, _) in enumerate(self._used)}

    def chunks(
        self, dataset: Dataset | None, references: Dataset | None
    ) -> Iterator[tuple[str, int, list[Any]]]:
        """(kind, number, items) of every chunk: the images' cards, then references, then pairs."""
        found = {
            "cards": self._cards(dataset),
            "references": self._references(references),
            "pairs": (total.as_json() for total in self._totals.values()),  # once cards were added
        }
        for kind, items in found.items():
            for number, some in enumerate(in_chunks(items)):
                yield kind, number, some

    def _cards(self, dataset: Dataset | None) -> Iterator[dict[str, Any]]:
        source, parts = Source(dataset, self.view), part_names(dataset)
        maps = {name: self.results.maps[name] for name in (*_DRAWN, *self.methods)}
        confusion = self.results.info["config"].get("pairs") == "confusion"
        other = "target" if confusion else "predicted"
        batches = self.results.table.to_batches(max_chunksize=100)
        k = 0
        for rows in (batch.to_pylist() for batch in batches):
            found = twins(dataset, rows, other, self.n, self.view)
            for row, twin in zip(rows, found, strict=True):
                seen = source(row["index"], row["id"])
                shows = None
                if seen.example is not None and parts:
                    shows = parts_by_cell(seen.example, self.n, self.view)
                own = {name: values[k] for name, values in maps.items()}
                one = card(row, seen, own, self._places, parts, shows)
                self._totals[row["predicted"], row["target"]].add(one["edits"], own, parts, shows)
                k += 1
                if twin:
                    self._twins.append({key: twin[key] for key in ("hits", "chance")})
                score = None if confusion else suspicion(row)
                self._suspicion.append(score if score is None else round(score, 4))
                yield one | {"twin": twin}
                self.advance(1)
        source.check(str(self.results.folder))

    def _references(self, references: Dataset | None) -> Iterator[dict[str, Any]]:
        source = Source(references, self.view)
        for index, id in self._used:
            seen = source(index, id)
            yield {"id": id, "image": seen.picture, "gone": seen.gone}
        source.check(str(self.results.folder))

    def index(self, top: dict[str, Any]) -> dict[str, Any]:
        """What the page needs before any card."""
        table = self.results.table
        names = {}
        for of in ("target", "predicted"):
            found = zip(table[of].to_pylist(), table[f"{of}_name"].to_pylist(), strict=True)
            names |= dict(found)
        return {
            "question": top["question"],
            "n": top["n"],
            "explanations": top["explanations"],
            "classes": {str(k): name for k, name in names.items()},
            "methods": [{"name": name, "of": METHODS[name].explains} for name in self.methods],
            "palettes": {"P": PALETTES["invariant"], "Q": PALETTES["dominant"]},
            "edits_interact": self.results.info.get("edits_interact"),
            "reference_classes": np.unique(self.results.predictions["target"].to_numpy()).tolist(),
            "chunks": {"cards": CHUNK, "references": CHUNK, "pairs": CHUNK},
            "pairs": self.pairs,
            "findings": findings(self.results.folder, self._twins),
            "suspect_from": SUSPECT_FROM,
            "rows": _rows(self.results) | {"suspect": self._suspicion},
        }


def in_chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items, `CHUNK` at a time."""
    remaining = iter(items)
    while some := list(islice(remaining, CHUNK)):
        yield some


def _references(results: RunResults) -> list[tuple[int, str]]:
    """Index and id of every reference image that some edit used, in the order of the split."""
    used: set[tuple[int, str]] = set()
    for batch in results.table.select(["edits"]).to_batches(max_chunksize=256):
        edits = chain.from_iterable(batch["edits"].to_pylist())
        used.update((edit["candidate_index"], edit["candidate_image"]) for edit in edits)
    return sorted(used)


_COLUMNS = {
    "id": "id",
    "index": "index",
    "P": "predicted",
    "Q": "target",
    "status": "status",
    "flipped": "flipped",
    "edits": "num_edits",
    "pP0": "p_predicted_before",
    "pP1": "p_predicted_after",
    "pQ0": "p_target_before",
    "pQ1": "p_target_after",
}


def _rows(results: RunResults) -> dict[str, list[Any]]:
    """The columns of the table that are searched, sorted and filtered by."""
    found = {key: results.table[name].to_pylist() for key, name in _COLUMNS.items()}
    numbers = {
        key: [None if value is None else round(value, 6) for value in found[key]]
        for key in ("pP0", "pP1", "pQ0", "pQ1")
    }
    return found | numbers
