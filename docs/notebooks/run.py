"""Make the notebooks from their Python files, and execute them.

`python docs/notebooks/run.py` writes `NAME.ipynb` with outputs beside each `NAME.py`; `--check`
executes the notebooks that are there, as they are, and writes nothing. In a Python file a line
`# %%` begins a cell of code, and `# %% [markdown]` one of text.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SECONDS = 120  # for one notebook, on two cores


def notebook(source: str) -> nbformat.NotebookNode:
    """The cells of a Python file."""
    cells = []
    for kind, body in re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", source, re.M | re.S):
        if kind:
            text = re.sub(r"^# ?", "", body, flags=re.M).strip()
            cells.append(nbformat.v4.new_markdown_cell(text))
        else:
            cells.append(nbformat.v4.new_code_cell(body.strip()))
    for number, cell in enumerate(cells):  # the same file gives the same notebook
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(book: nbformat.NotebookNode) -> float:
    """Execute in place, in this folder; the seconds. An exception of a cell comes through."""
    started = time.perf_counter()
    client = NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    for cell in book.cells:
        cell.get("metadata", {}).pop("execution", None)  # times, another at each execution
    return time.perf_counter() - started


def main() -> int:
    """Execute all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=sorted(p.stem for p in HERE.glob("*.py")))
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    for name in options.names:
        if name == "run":
            continue
        book = notebook((HERE / f"{name}.py").read_text())
        path = HERE / f"{name}.ipynb"
        if options.check:
            kept = nbformat.read(path, as_version=4)
            if [cell["source"] for cell in kept.cells] != [cell["source"] for cell in book.cells]:
                print(f"{path.name}: not made of {name}.py as it is; run docs/notebooks/run.py")
                return 1
        seconds = execute(book)
        if seconds > SECONDS:
            print(f"{name}: {seconds:.0f} s, expected at most {SECONDS}")
            return 1
        if not options.check:
            nbformat.write(book, path)
        print(f"{name}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
