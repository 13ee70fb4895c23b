"""Every public name is documented, and stands in the API reference."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

API = Path(__file__).parents[1] / "docs" / "api"
REFERENCE = "\n".join(page.read_text() for page in API.glob("*.md"))
PACKAGES = ("heads", "models", "metrics", "data", "data.birds", "key", "results", "train", "cuts")
MODULES = ["fgvce_jax", *(f"fgvce_jax.{name}" for name in PACKAGES)]
NAMES = [(module, name) for module in MODULES for name in importlib.import_module(module).__all__]
METHODS = importlib.import_module("fgvce_jax.methods").METHODS


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_is_in_the_reference(module, name):
    """By itself, or where a package shows what another defines."""
    value = getattr(importlib.import_module(module), name)
    same = [
        f"{m}.{name}" for m in MODULES if getattr(importlib.import_module(m), name, None) is value
    ]
    # A module of the same name hides a function from the reference, which then needs its own path.
    named = [
        path for path in same if re.search(rf"^::: {re.escape(path)}(\.{name})?$", REFERENCE, re.M)
    ]
    assert named or f"`{module}.{name}`" in REFERENCE


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_function_or_class_is_documented(module, name):
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert value.__doc__
        assert not value.__doc__.startswith(f"{name}("), "a dataclass's signature, no docstring"


@pytest.mark.parametrize("name", METHODS)
def test_the_function_of_every_method_is_in_the_reference(name):
    method = METHODS[name]
    function = f"{method.module}.{method.function or method.name}"
    found = re.search(
        rf"^::: fgvce_jax\.methods\.{re.escape(function)}(_weights)?$", REFERENCE, re.M
    )
    assert found
    assert method.load().__doc__


def test_the_reference_names_nothing_that_is_gone():
    for path in re.findall(r"^::: (fgvce_jax[\w.]*)$", REFERENCE, re.M):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
        assert not (API.parents[1] / f"{path.replace('.', '/')}.py").exists(), "a module"
