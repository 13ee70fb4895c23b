"""What a release says of itself: one version, one address, links that hold away from a checkout."""

import re
import tomllib
from pathlib import Path

import fgvce_jax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
URLS = PROJECT["project"]["urls"]
FILES = f"{URLS['Source']}/blob/main/"
RAW = FILES.replace("github.com", "raw.githubusercontent.com").replace("/blob/", "/")


def readme_on_pypi():
    text = (ROOT / "README.md").read_text()
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    return text


def test_no_link_of_the_readme_breaks_on_pypi():
    links = re.findall(r"\]\(([^)]+)\)", readme_on_pypi())
    assert any(link.startswith(FILES) for link in links)
    assert any(link.startswith(RAW) for link in links)  # the picture
    for link in links:
        assert link.startswith("https://")
        for start in (FILES, RAW):
            if link.startswith(start):
                assert (ROOT / link.removeprefix(start).partition("#")[0]).exists(), link


def test_the_version_and_its_changes_are_written_down():
    version = fgvce_jax.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## [{version}]" in changes
    assert f"\n[{version}]: {URLS['Source']}/" in changes
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_project_has_one_address():
    """Where it moves, pyproject.toml is changed, and this names what is left behind."""
    host = re.compile(
        r"https?://[\w.-]*(?:github\.com|githubusercontent\.com|github\.io)/[^\s)\"'>]*"
    )
    own = [URLS["Source"], URLS["Documentation"], RAW.removesuffix("main/")]
    for name in ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "README.md", "pyproject.toml"):
        for address in host.findall((ROOT / name).read_text()):
            ours = "fgvce" in address
            assert not ours or any(address.startswith(start) for start in own), (name, address)


def test_the_readme_is_short_enough_to_be_read():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
