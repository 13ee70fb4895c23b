"""What only one feature needs comes with an extra, which the error names."""

import sys
import tomllib
from pathlib import Path

import pytest

from fgvce_jax.cli import main

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("extra", "package", "module", "words"),
    [
        ("completion", "shtab", "shtab", ["completion", "zsh"]),
        ("digits", "scikit-learn", "sklearn.datasets", ["train", "--data.name", "digits"]),
        ("dogs", "scipy", "scipy.io", ["prepare", "dogs", "--from", "dogs"]),
        ("ray", "ray", "ray", ["explain", "--config", "demo", "--ray", "local"]),
        ("torch", "torch", "torch", ["port", "weights.pth"]),
    ],
)
def test_each_missing_package_is_named_with_its_extra(
    extra, package, module, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"")
    for name in ("dogs/Annotation/n1-A/a", "dogs/Images/n1-A/a.jpg", "dogs/train_list.mat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    out = [] if extra == "completion" else ["--to" if extra == "dogs" else "--out", "out"]
    assert main([*words, *out]) == 2
    assert [path for path in tmp_path.glob("out/**/*") if path.is_file()] == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"expected the package {package} (pip install 'fgvce-jax[{extra}]')" in line
    assert any(requirement.startswith(package) for requirement in EXTRAS[extra])
