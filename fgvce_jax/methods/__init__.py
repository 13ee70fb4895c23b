"""The explainers that the paper compares, under one signature and by name.

    maps = METHODS["gradcam"](clf, images, classes, **options)

`images` are float32 [B, H, W, 3] in [0, 1] and `classes` int32 [B], the class each map speaks for.
The maps are float32, [B, n, n] for a method of cells and [B, H, W] for one of pixels (fgcam's lie
between: [B, m, m] for a stage of m x m). Contrastive methods also take `contrast_classes`, and
`explains` tells which of the two classes their maps are of. Every method is jitted, with the
classifier as an argument; options that change shapes are static.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from fgvce_jax.errors import InputError

# name -> (module of this package, function); a module is imported when its method is first used.
_TABLE: dict[str, tuple[str, str]] = {
    # one class
    "gbp": ("gbp", "gbp"),
    "ig": ("ig", "ig"),
    "rise": ("rise", "rise"),
    "ep": ("ep", "ep"),
    "gradcam": ("cams", "gradcam"),
    "gradcampp": ("cams", "gradcampp"),
    "scorecam": ("scorecam", "scorecam"),
    "layercam": ("cams", "layercam"),
    "fgcam": ("fgcam", "fgcam"),
    "calm": ("calm", "calm"),
    "contributions": ("fgvce", "contributions"),
    # a class against another
    "ce": ("ce", "ce"),
    "scout": ("scout", "scout"),
    "cce": ("cce", "cce"),
    "cve": ("cve", "cve"),
    "cve_semantic": ("cve", "cve_semantic"),
    "fgvce_invariant": ("fgvce", "fgvce_invariant"),
    "fgvce_dominant": ("fgvce", "fgvce_dominant"),
}


class UnknownMethod(InputError, KeyError):
    """No method has that name; the message lists those there are."""

    __str__ = InputError.__str__  # KeyError shows its message in quotes


class _Methods(Mapping[str, Callable[..., Any]]):
    """The table, read as functions."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in _TABLE:
            near = difflib.get_close_matches(name, _TABLE, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UnknownMethod(f"method {name!r}: expected one of {', '.join(_TABLE)}{hint}")
        module, function = _TABLE[name]
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLE)

    def __len__(self) -> int:
        return len(_TABLE)


METHODS: Mapping[str, Callable[..., Any]] = _Methods()
"""By name. An unknown one raises `UnknownMethod`, an `InputError` and a KeyError."""


def explains(name: str) -> Literal["P", "Q"]:
    """The class that a method's maps explain, called as usual: `classes` (P) or the contrast's."""
    return "Q" if name in ("cve", "cve_semantic", "fgvce_dominant") else "P"
