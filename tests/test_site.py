"""What `docs/build.py` makes of the pages before and after they become a site."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
# By its path: benchmarks/pages has a build.py too.
SPEC = importlib.util.spec_from_file_location("build_of_the_site", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "two.html").write_text('<h1 id="here">2</h1><a href="../one.html">1</a>')
    (tmp_path / "one.html").write_text(
        '<a href="a/two.html#here"></a><a href="https://example.org/x"></a><a href="#top"></a>'
        '<img src="gone.png"><a href="a/two.html#there"></a><a href="a/three.html"></a><p id="top">'
        f'<a href="{build.SOURCE}/blob/main/README.md"></a>'
        f'<a href="{build.SOURCE}/blob/main/NONE"></a>'
    )
    assert build.broken_links(tmp_path) == [
        "one.html: a/three.html",
        "one.html: a/two.html#there",
        "one.html: gone.png",
        f"one.html: {build.SOURCE}/blob/main/NONE",
    ]


def test_links_out_of_the_pages_go_to_the_repository():
    page = ROOT / "docs" / "many-machines.md"
    text = build.out_of_docs(page, "[a](../examples/slurm.sh) [b](report.md) [c](../examples)")
    start = build.SOURCE
    expected = (
        f"[a]({start}/blob/main/examples/slurm.sh) [b](report.md) [c]({start}/tree/main/examples)"
    )
    assert text == expected


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path):
    outputs = [
        {"output_type": "stream", "text": ["1\n"]},
        {"data": {"text/plain": "a map", "image/png": "aGk="}},
        {"data": {"text/plain": "a card", "text/html": "<b>card</b>"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    page = build.page_of(tmp_path / "n.ipynb", tmp_path)
    assert page.startswith("# Title\n\n```python\nprint(1)\n```\n\n```text\n1\n```")
    assert "](n-1-1.png)" in page
    assert (tmp_path / "n-1-1.png").read_bytes() == b"hi"
    assert '<div class="output"><b>card</b></div>' in page


def test_every_page_is_in_the_navigation():
    """By its file, or made of a notebook."""
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in nav
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}.md" in nav


def test_the_notebooks_are_small():
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert notebook.stat().st_size < 300_000, notebook.name
