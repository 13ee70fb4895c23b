"""The pages of docs/ say what the code says."""

import ast
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
QUOTED = re.compile(r'```python title="([\w/.]+): (\w+)"\n(.*?)```', re.DOTALL)


def functions(path, name):
    """The text of every function of that name in a file, without indents."""
    source = (ROOT / path).read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield flush(ast.get_source_segment(source, node))


def flush(text):
    return [line.strip() for line in textwrap.dedent(text).strip().splitlines()]


def stands_in(lines, source):
    return any(source[i : i + len(lines)] == lines for i in range(len(source)))


@pytest.mark.parametrize("quoted", QUOTED.findall((DOCS / "method.md").read_text()))
def test_the_quoted_code_stands_in_the_function_named_above_it(quoted):
    path, name, code = quoted
    assert any(stands_in(flush(code), source) for source in functions(path, name)), (path, name)


def test_every_equation_of_the_paper_is_there_in_order():
    tags = re.findall(r"\\tag\{(\d+)\}", (DOCS / "method.md").read_text())
    assert tags == [str(number) for number in range(1, 13)]


def test_files_that_the_pages_name_exist():
    for page in DOCS.rglob("*.md"):
        for path in re.findall(
            r"`((?:fgvce_jax|benchmarks|tests|examples|configs)/[\w/.-]+)`", page.read_text()
        ):
            assert (ROOT / path).exists(), (page.name, path)


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("README.md", [r"predicted .* \(0\.\d\d\), not .*\nflipped by \d+ edits of 49 cells: .*"]),
        ("docs/classifiers.md", [r"10 PooledLinear", r"\(1, 10\)"]),
    ],
)
def test_the_python_of_a_page_runs_as_it_stands(page, said, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # as in a checkout
    for code, expected in zip(blocks(page), said, strict=True):
        exec(compile(code, page, "exec"), {"__name__": "__main__"})
        assert re.match(expected, capsys.readouterr().out)
