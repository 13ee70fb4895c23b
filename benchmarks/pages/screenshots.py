"""Draw docs/report*.png: the report of a run of the demo, in Debian's Chromium.

fgvce demo && fgvce evaluate fgvce-demo && fgvce report fgvce-demo
python benchmarks/pages/screenshots.py fgvce-demo
"""

import argparse
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).resolve().parents[2] / "docs"
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
COLOURS = 128  # of a picture's palette: a third of the bytes, and hardly seen


def index_of(report: Path) -> dict[str, Any]:
    """The report's index: its pairs and rows."""
    [text] = re.findall(r'id="index">(.*?)</script>', report.read_text("utf-8"))
    return json.loads(text)


def places(index: dict[str, Any]) -> dict[str, tuple[str, int, int, str]]:
    """What is drawn: by name the address, the window's width and height, and the colour scheme."""
    pair = index["pairs"][0]
    rows = zip(*(index["rows"][key] for key in ("id", "P", "Q", "edits")), strict=True)
    card = next(id for id, p, q, edits in rows if (p, q) == (pair["P"], pair["Q"]) and edits > 3)
    return {
        "report": ("", 1240, 900, "light"),
        "report-pair": (f"#pair={pair['P']}-{pair['Q']}", 1240, 760, "dark"),
        "report-card": (f"#card={card}", 1240, 820, "light"),
        "report-narrow": (f"#card={card}", 420, 900, "dark"),
    }


def save(picture: bytes, path: Path) -> None:
    """Write a screenshot with a palette."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def draw(page: Page, report: Path, at: str, path: Path) -> None:
    """One screenshot, once what is in view is built."""
    page.goto(f"{report.resolve().as_uri()}{at}")
    page.wait_for_function(
        """() => [...document.querySelectorAll(".card")].every((card) => {
            const {top, bottom} = card.getBoundingClientRect();
            return bottom < 0 || top > innerHeight || card.dataset.built === "yes";
        })"""
    )
    page.wait_for_timeout(500)
    save(page.screenshot(), path)


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="the demo's folder")
    report = parser.parse_args().run / "report.html"
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        for name, (at, width, height, scheme) in places(index_of(report)).items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme=scheme)
            draw(page, report, at, DOCS / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
