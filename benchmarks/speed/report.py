"""The report: how long it takes to write, how large it is, how it opens and scrolls in Chromium.

fgvce demo
python benchmarks/speed/report.py --run fgvce-demo

Measured are the demo's report, and one of a run made from its explanations again and again, under
other ids, with as many cards as a report can have.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timing import script, show

from fgvce_jax.data.example import Dataset, Example
from fgvce_jax.report import MOST_CARDS, View, write_report
from fgvce_jax.results import CORE_MAPS, Edit, ImageResult, RunResults, open_run, read_run
from fgvce_jax.run_inputs import open_inputs

QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PART = 500  # records of a part

# When the first card in view is built, and the longest time between two frames until then.
OPENING = """
    globalThis.opened = new Promise((resolve) => {
        new MutationObserver((_, observer) => {
            if (!document.querySelector(".card[data-built=yes]")) return;
            observer.disconnect();
            requestAnimationFrame(() => resolve(performance.now() / 1000));
        }).observe(document, {subtree: true, attributes: true, attributeFilter: ["data-built"]});
    });
"""
# Scrolls by `step` pixels a frame: the frames' seconds, and how many had a card in view unbuilt.
SCROLLING = """
    ({frames, step}) => new Promise((resolve) => {
        const seconds = [];
        let [empty, before] = [0, performance.now()];
        const unbuilt = () => [0.25, 0.5, 0.75].some((y) => {
            const at = document.elementFromPoint(innerWidth / 2, y * innerHeight);
            const card = at?.closest(".card");
            return card ? card.dataset.built !== "yes" : at?.closest("#cards > div:empty");
        });
        function frame(now) {
            seconds.push((now - before) / 1000);
            before = now;
            if (unbuilt()) empty += 1;
            if (seconds.length > frames) resolve({seconds: seconds.slice(1), empty});
            else { scrollBy(0, step); requestAnimationFrame(frame); }
        }
        requestAnimationFrame(frame);
    })
"""


class Again:
    """A split whose image k is that of a given row of another: as many images as there are rows."""

    def __init__(self, split: Dataset, indices: Sequence[int], count: int):
        self.class_names, self.labels = split.class_names, split.labels
        self.keypoint_names, self.part_names = split.keypoint_names, split.part_names
        self._examples = [split[index] for index in indices]
        self.ids: Sequence[str] = [f"{k:05d}-{self._of(k).id}" for k in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        return replace(self._of(index), id=self.ids[index])

    def _of(self, index: int) -> Example:
        return self._examples[index % len(self._examples)]


def record(row: dict[str, Any], maps: Mapping[str, Any], k: int, id: str) -> ImageResult:
    """A row of a run's table, with its maps, as the explanation of another image."""
    own = {key: row[key] for key in ("predicted", "target", "status", "flipped", "time_s")}
    own |= {key: row[key] for key in ("p_predicted", "p_target", "logits", "logit_changes")}
    edits = tuple(Edit(**edit) for edit in row["edits"])
    return ImageResult(k, id, row["target"], edits=edits, nearest=row["nearest"], maps=maps, **own)


def many(results: RunResults, ids: Sequence[str], folder: Path) -> RunResults:
    """A run in `folder` with an explanation for every id, those of `results` in turn."""
    rows, info = results.table.to_pylist(), results.info
    drawn = {name: results.maps[name] for name in CORE_MAPS}
    maps = [{name: drawn[name][k] for name in CORE_MAPS} for k in range(len(rows))]
    found = (record(rows[k % len(rows)], maps[k % len(rows)], k, id) for k, id in enumerate(ids))
    parts = range(0, len(ids), PART)
    with open_run(folder, info["config"]) as run:
        for number, _ in enumerate(parts):
            run.write_part(number, list(islice(found, PART)))
        kept = {key: info[key] for key in ("cells", "edits_interact")}
        run.merge(list(info["classes"].values()), len(parts), kept)
        run.finish()
    return read_run(folder)


def in_chromium(page: Path, frames: int, step: int, repeats: int) -> dict[str, Any]:
    """Seconds until the first card is there, of its frames while it scrolls, and of a search."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        for _ in range(repeats):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.add_init_script(OPENING)
            tab.goto(page.resolve().as_uri(), wait_until="commit")
            opened = tab.evaluate("opened")
            tab.locator(".card").first.scroll_into_view_if_needed()
            tab.wait_for_timeout(500)
            scrolled = tab.evaluate(SCROLLING, {"frames": frames, "step": step})
            seconds = sorted(scrolled["seconds"])
            started = time.perf_counter()
            tab.keyboard.press("/")
            tab.keyboard.type("a")
            tab.locator("#shown").text_content()
            rows.append(
                {
                    "open_s": opened,
                    "frame_longest_s": seconds[-1],
                    "frame_median_s": seconds[len(seconds) // 2],
                    "frames_unbuilt": scrolled["empty"] / frames,
                    "search_s": time.perf_counter() - started,
                }
            )
            tab.close()
        browser.close()
    return {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in rows[0]}


def size(page: Path) -> int:
    """Bytes of a report with its folder."""
    return page.stat().st_size + sum(f.stat().st_size for f in page.parent.glob("report-data/*"))


def measure(
    run: str = "fgvce-demo",
    cards: int = MOST_CARDS,
    frames: int = 300,
    step: int = 60,
    repeats: int = 3,
) -> dict[str, Any]:
    """Seconds to write and to open a report, and of its frames; its size."""
    results = read_run(run)
    inputs = open_inputs(results.config)
    view, references = View(inputs.clf.image_size, inputs.clf.resize_to), inputs.references
    timings = results.info["timings"]
    demo = {
        "cards": len(results.explanations),
        "write_s": timings["seconds"]["report"],
        "share_of_run": timings["seconds"]["report"] / timings["total"],
        "bytes": size(results.folder / "report.html"),
    }
    rows = [show(demo | in_chromium(results.folder / "report.html", frames, step, repeats))]
    split = Again(inputs.dataset, results.table["index"].to_pylist(), cards)
    with TemporaryDirectory() as temporary:
        large = many(results, split.ids, Path(temporary, "run"))
        started = time.perf_counter()
        page = write_report(large, split, references, view)
        row = {"cards": cards, "write_s": time.perf_counter() - started, "bytes": size(page)}
        rows.append(show(row | in_chromium(page, frames, step, repeats)))
    settings = {"viewport": [1280, 900], "frames": frames, "pixels_a_frame": step}
    return settings | {"repeats": repeats, "rows": rows}


if __name__ == "__main__":
    script(
        measure,
        run="the demo's folder",
        cards="of the large report",
        frames="scrolled through",
        step="pixels scrolled by from frame to frame",
    )
