"""A mutation run: would the tests notice a changed operator, constant or condition?

    python tests/mutate.py --count 64                        # over the core, the heads, ...
    python tests/mutate.py fgvce_jax/metrics --count 0       # every mutant of some files

Every mutant is one change in a copy of the tree, held against the tests named for its file, which
stop at the first failure. A line per mutant: killed, survived or, past the time limit, timeout
(which is a kill: an endless loop is noticed). The last line is the score.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The tests that are to notice a change, by the longest prefix of the file's path.
TESTS = {
    "fgvce_jax/partition.py": ["test_partition.py", "test_search.py"],
    "fgvce_jax/bank.py": ["test_bank.py"],
    "fgvce_jax/greedy.py": ["test_search.py", "methods/test_cve.py", "test_explain.py"],
    "fgvce_jax/matched.py": ["test_matched.py"],
    "fgvce_jax/search.py": ["test_search.py", "methods/test_cve.py", "test_explain.py"],
    "fgvce_jax/contrast.py": ["test_contrast.py"],
    "fgvce_jax/explain.py": ["test_explain.py"],
    "fgvce_jax/blur.py": ["metrics/test_faithfulness.py"],
    "fgvce_jax/heads/": ["heads", "test_partition.py", "test_search.py"],
    "fgvce_jax/heads/calm.py": ["heads", "methods/test_calm.py"],
    "fgvce_jax/methods/": ["methods/test_{stem}.py"],
    "fgvce_jax/methods/__init__.py": ["methods/test_registry.py"],
    "fgvce_jax/methods/gbp.py": ["methods/test_gradients.py"],
    "fgvce_jax/methods/ig.py": ["methods/test_gradients.py", "methods/test_registry.py"],
    "fgvce_jax/methods/scorecam.py": ["methods/test_cams.py", "methods/test_registry.py"],
    "fgvce_jax/methods/scores.py": ["methods/test_registry.py", "methods/test_cams.py"],
    "fgvce_jax/metrics/": ["metrics/test_{stem}.py"],
}

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def changed(node):
    """The node with its operator or value changed, or None where there is nothing to change."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in SWAPS:
            return ast.BinOp(left, SWAPS[type(op)](), right)
        case ast.BoolOp(op, values):
            return ast.BoolOp(SWAPS[type(op)](), values)
        case ast.Compare(left, [op, *ops], comparators) if type(op) in SWAPS:
            return ast.Compare(left, [SWAPS[type(op)](), *ops], comparators)
        case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand):
            return operand
        case ast.Constant(bool(value)):
            return ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            return ast.Constant(value + 1)


def sites(node):
    """(node, changed node) of every change; not in annotations, decorators and messages."""
    new = changed(node)
    if new is not None:
        yield node, new
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.Raise | ast.JoinedStr):
                    yield from sites(child)


def replaced(source, node, new):
    """The source with the text of `node` replaced by `new`, all else as it was."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    begin = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    text = b"".join(lines)
    return (text[:begin] + f"({ast.unparse(new)})".encode() + text[end:]).decode()


def tests_of(path):
    """The test files named for a file, those that exist."""
    named = TESTS[max((prefix for prefix in TESTS if path.startswith(prefix)), key=len)]
    files = [f"tests/{name.format(stem=Path(path).stem)}" for name in named]
    return tuple(file for file in files if (ROOT / file).exists())


def passes(tree, files, limit=None):
    """Whether the tests pass in a copy of the tree; raises TimeoutExpired past `limit` seconds."""
    # No bytecode: a file that was changed within a second and kept its length looks the same.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    command = [sys.executable, "-m", "pytest", *options, *files]
    run = subprocess.run(command, cwd=tree, env=environment, timeout=limit, capture_output=True)
    if run.returncode not in (0, 1, 2):  # 1: a test failed, 2: a file could not be imported
        sys.exit(run.stdout.decode() + run.stderr.decode())
    return run.returncode == 0


def time_limits(tree, paths):
    """Seconds for the tests of each file, generously more than they take on the tree as it is."""
    limits = {}
    for files in {tests_of(path) for path in paths}:
        if not files:
            sys.exit(f"no test file of {[path for path in paths if not tests_of(path)]}")
        start = time.monotonic()
        if not passes(tree, files):
            sys.exit(f"{' '.join(files)}: failing as they are")
        limits[files] = 30 + 5 * (time.monotonic() - start)
    return limits


def mutants(paths, count, seed):
    """`count` of the changes of the files, drawn by `seed`, in their order; all for 0."""
    found = [
        (path, node, new)
        for path in paths
        for node, new in sites(ast.parse((ROOT / path).read_text()))
    ]
    drawn = range(len(found))
    if count and count < len(found):
        drawn = sorted(random.Random(seed).sample(drawn, count))
    return [found[index] for index in drawn]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", default=list(TESTS), help="files or folders")
    parser.add_argument("--count", type=int, default=64, help="mutants drawn; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    named = [ROOT / path for path in arguments.paths]
    files = {file for path in named for file in (path.rglob("*.py") if path.is_dir() else [path])}
    paths = sorted(str(file.relative_to(ROOT)) for file in files if file.exists())
    drawn = mutants(paths, arguments.count, arguments.seed)
    score = Counter()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        left_out = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "runs", ".venv")
        shutil.copytree(ROOT, tree, ignore=left_out)
        limits = time_limits(tree, {path for path, *_ in drawn})
        for path, node, new in drawn:
            source = (ROOT / path).read_text()
            (tree / path).write_text(replaced(source, node, new))
            try:
                outcome = (
                    "survived" if passes(tree, tests_of(path), limits[tests_of(path)]) else "killed"
                )
            except subprocess.TimeoutExpired:
                outcome = "timeout"
            (tree / path).write_text(source)
            score[outcome] += 1
            change = f"{ast.unparse(node)}  ->  {ast.unparse(new)}"
            print(f"{outcome:8} {path}:{node.lineno}: {change}", flush=True)
    print(f"{score.total() - score['survived']} of {score.total()} noticed")


if __name__ == "__main__":
    main()
