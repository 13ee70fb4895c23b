"""The package's floors: an import goes down or stays on its floor."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fgvce_jax"

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def floors(page):
    """The page's list, the lowest first: the modules and packages of a floor on one line."""
    lines = page.split("fgvce_jax/\n", 1)[1].split("```", 1)[0].splitlines()
    return [line.strip().split("  ")[0].split() for line in lines]


HEIGHT = {name: height for height, floor in enumerate(floors(PAGE.read_text())) for name in floor}
# What `import fgvce_jax` loads; and two lines of the page that are one floor.
HEIGHT["__init__"] = HEIGHT["explain"] + 0.5
HEIGHT |= {name: 0 for name, height in HEIGHT.items() if height == 1}

# Down, and still not wanted: a measure favours no method, training serves all of them.
APART = {("metrics", "methods"), ("train", "methods")}


def modules(root):
    """{dotted name below the package: path}; a package is its own `__init__`."""
    paths = {path.relative_to(root).with_suffix(""): path for path in root.rglob("*.py")}
    return {".".join(key.parts).removesuffix(".__init__"): path for key, path in paths.items()}


def imported(source, names):
    """The package's modules that a source imports, lazily or not, with the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            package, _, inner = target.partition(".")
            if package == "fgvce_jax":
                # `from fgvce_jax.bank import Bank` names something in a module, not a module.
                yield inner if inner in names else inner.rpartition(".")[0], node.lineno


def floor(module):
    return module.split(".")[0] or "__init__"


def violations(root):
    names = modules(root)
    for module, path in names.items():
        for target, line in imported(path.read_text(), names):
            here, there = floor(module), floor(target)
            up = {here, there} <= set(HEIGHT) and HEIGHT[there] > HEIGHT[here]
            if up or (here, there) in APART:
                yield f"{path.relative_to(root)}:{line}: {here} imports {there}"


def test_every_module_has_a_floor():
    assert {floor(module) for module in modules(ROOT)} <= set(HEIGHT)


def test_the_list_has_no_module_that_is_gone():
    assert set(HEIGHT) <= {floor(module) for module in modules(ROOT)}


def test_imports_go_down():
    assert not set(violations(ROOT))


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("bank", "from fgvce_jax.heads import PooledLinear", []),
        ("bank", "from fgvce_jax.bank import Bank\nimport numpy", []),
        ("bank", "import fgvce_jax.models", []),
        (
            "bank",
            "def lazy():\n    from fgvce_jax.search import search",
            ["2: bank imports search"],
        ),
        ("bank", "from fgvce_jax import search", ["1: bank imports search"]),
        ("bank", "import fgvce_jax.search as s", ["1: bank imports search"]),
        ("bank", "from fgvce_jax import Bank", ["1: bank imports __init__"]),
        ("bank", "import fgvce_jax", ["1: bank imports __init__"]),
        (
            "metrics/extent",
            "from fgvce_jax.methods.rise import rise",
            ["1: metrics imports methods"],
        ),
    ],
)
def test_what_counts_as_an_import(tmp_path, module, source, found):
    others = ["__init__", "search", "heads/__init__", "models/__init__", "methods/rise"]
    for name in [module, *others]:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source if name == module else "")
    assert list(violations(tmp_path)) == [f"{module}.py:{line}" for line in found]


def test_files_and_functions_are_short():
    """At most 400 lines a file and 60 a function, docstring included."""
    long = []
    for path in sorted(ROOT.rglob("*.py")):
        source = path.read_text("utf-8")
        if source.count("\n") > 400:
            long.append(f"{path.name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{path.name}, {node.name}: {node.end_lineno - node.lineno + 1} lines")
    assert long == []
