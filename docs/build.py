"""Build the site: `python docs/build.py`, then open site/index.html.

The pages of docs/ are Markdown that reads well by itself. A copy of them in build/docs is made fit
for a site: links out of docs/ go to the repository, formulas become MathML (which browsers draw
without a connection), notebooks become pages. Zensical turns the copy into HTML. Any warning, and
any link that leads nowhere, ends the build with exit code 1.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
DOCS, COPY, SITE = ROOT / "docs", ROOT / "build" / "docs", ROOT / "site"
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
SHIM = "https://unpkg.com/iframe-worker/shim"
LEFT_OUT = ("*.py", "*.ipynb", "*.json")
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


def out_of_docs(page: Path, text: str) -> str:
    """Relative links to files outside docs/ as links to the repository."""

    def link(match: re.Match[str]) -> str:
        target = (page.parent / match[1]).resolve()
        if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT):
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({SOURCE}/{kind}/main/{target.relative_to(ROOT).as_posix()})"

    return re.sub(r"\]\((\.\./[^)#\s]+)\)", link, text)


def formulas(text: str) -> str:
    """`$$...$$` and `$...$` outside code as MathML, a tag as the equation's number."""
    from latex2mathml.converter import convert  # of the extra docs, which the tests do without

    def block(match: re.Match[str]) -> str:
        tag = re.search(r"\\tag\{(\w+)\}", match[1])
        math = convert(re.sub(r"\\tag\{\w+\}", "", match[1]).strip(), display="block")
        number = f'<span id="eq-{tag[1]}">({tag[1]})</span>' if tag else ""
        return f'<div class="equation">{math}{number}</div>'

    parts = CODE.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\$\$(.+?)\$\$", block, parts[i], flags=re.DOTALL)
        # In a span: Markdown takes a line that begins with another element for a block.
        parts[i] = re.sub(r"\$([^$\n]+)\$", r"<span>$\1$</span>", parts[i])
        parts[i] = re.sub(r"\$([^$\n]+)\$", lambda match: convert(match[1]), parts[i])
    return "".join(parts)


def page_of(notebook: Path, folder: Path) -> str:
    """A notebook as Markdown, with its pictures beside it in `folder`."""
    pieces = []
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        source = "".join(cell["source"])
        pieces.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for place, output in enumerate(cell.get("outputs", ())):
            data = output.get("data", {"text/plain": output.get("text", "")})
            text = "".join(data.get("text/plain", ""))
            if "image/png" in data:
                name = f"{notebook.stem}-{number}-{place}.png"
                (folder / name).write_bytes(base64.b64decode("".join(data["image/png"])))
                pieces.append(f"![Output of the cell above]({name})")
            elif "text/html" in data:
                pieces.append(f'<div class="output">{"".join(data["text/html"])}</div>')
            elif text.strip():
                pieces.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(pieces) + "\n"


def copy_pages() -> None:
    """Fill build/docs."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(DOCS, COPY, ignore=shutil.ignore_patterns(*LEFT_OUT, "__pycache__"))
    for page in DOCS.rglob("*.md"):
        text = out_of_docs(page, page.read_text())
        text = formulas(text) if page.name == "method.md" and page.parent == DOCS else text
        (COPY / page.relative_to(DOCS)).write_text(text)
    for notebook in (DOCS / "notebooks").glob("*.ipynb"):
        folder = COPY / "notebooks"
        (folder / f"{notebook.stem}.md").write_text(page_of(notebook, folder))


def build() -> list[str]:
    """Run Zensical; what it complained about."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = run.stdout + run.stderr
    complaints = [line for line in said.splitlines() if re.match(r"(griffe|mkdocstrings):", line)]
    if run.returncode:
        complaints.append(said)
    return complaints


def without_requests() -> None:
    """Put our own worker.js where the theme would fetch a script for search from elsewhere."""
    for page in SITE.rglob("*.html"):
        above = "../" * (len(page.relative_to(SITE).parts) - 1)
        text = page.read_text()
        page.write_text(text.replace(SHIM, f"{above}worker.js"))


class Links(HTMLParser):
    """The addresses that a page links to or shows, and the names of its places."""

    def __init__(self, page: Path):
        super().__init__()
        self.found: list[str] = []
        self.places: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "base":
                self.found.append(value)
            if name in ("id", "name") and value:
                self.places.add(value)


def broken_links(site: Path = SITE) -> list[str]:
    """Links of the site that lead nowhere, and links to files that the repository has not."""
    pages = {page.resolve(): Links(page) for page in site.rglob("*.html")}
    broken = []
    for page, links in pages.items():
        for link in links.found:
            address, _, place = unquote(link).partition("#")
            ours = re.match(re.escape(SOURCE) + r"/(?:blob|tree|raw)/main/(.+)", address)
            if ours and not (ROOT / ours[1]).exists():
                broken.append(f"{page.relative_to(site.resolve())}: {link}")
            if re.match(r"[a-z]+:|//", address) or page.name == "404.html":
                continue
            target = (page.parent / address).resolve() if address else page
            lost = place and target in pages and place not in pages[target].places
            if lost or not target.exists():
                broken.append(f"{page.relative_to(site.resolve())}: {link}")
    return sorted(set(broken))


def main() -> int:
    """Build and check; the exit code."""
    copy_pages()
    problems = build()
    if not problems:
        without_requests()
        problems = broken_links()
    print("\n".join(problems) or f"{SITE / 'index.html'}: {len(list(SITE.rglob('*.html')))} pages")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
