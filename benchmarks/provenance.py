"""Where a measurement comes from: the weights, the code, the machine.

Every JSON file of a benchmark carries the `stamp` of its time, and the pages are built from files
whose stamps agree. Needs jax, numpy and the package only.
"""

import ast
import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jax

import fgvce_jax
from fgvce_jax.files import fingerprint
from fgvce_jax.models import Classifier, named
from fgvce_jax.run_inputs import weights_of

PACKAGE = Path(fgvce_jax.__file__).resolve().parent

SHOWS = {"cli", "display", "report"}
"""Folders of the package that show what was computed, and change nothing of it."""


def stamp(clf: Classifier | None = None) -> dict[str, Any]:
    """The provenance of a measurement made now; `clf` is None where the weights are random."""
    return {
        "checkpoint": None if clf is None else checkpoint_hash(clf),
        "code": code_hash(PACKAGE),
        "commit": commit(PACKAGE.parent),
        "machine": machine(),
    }


def checkpoint_hash(clf: Classifier) -> str:
    """A hash of a classifier's weights and their names, whatever file they were read from.

    Of functions of the user's own, of the arrays that they use.
    """
    return fingerprint(weights_of(clf) if clf.spec is None else sorted(named(clf).items()))


@cache
def code_hash(folder: Path) -> str:
    """A hash of a package's Python files but for those in `SHOWS`.

    Comments, docstrings and layout do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] in SHOWS:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            if isinstance(node, documented) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:16]


def commit(root: Path) -> str | None:
    """The commit that is checked out, "-dirty" where files differ from it; None without git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """The machine by its processor and accelerator types, and the versions that matter."""
    device, info = jax.devices()[0], Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: *(.*\S)", info.read_text(), re.M) if info.exists() else []
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "accelerator": None if device.platform == "cpu" else device.device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def describe(machine: dict[str, Any]) -> str:
    """A machine in one line."""
    where = machine["accelerator"] or f"{machine['cores']} cores of {machine['processor']}"
    return f"{where}, jax {machine['jax']}"
