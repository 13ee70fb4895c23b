"""Files that travel with the package: checkpoints and presets."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped(name: str | Path) -> Path | None:
    """Where the package keeps its copy of a path such as "checkpoints/birds", or None.

    A wheel carries it inside the package; a checkout that is installed as editable has it beside.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    for root in (PACKAGE, PACKAGE.parent):
        if (root / name).exists():
            return root / name
    return None


def find(name: str | Path) -> Path | None:
    """`name` as a path from the working directory, else the package's copy, else None."""
    path = Path(name).expanduser()
    return path if path.exists() else shipped(name)
