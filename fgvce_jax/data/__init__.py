"""Datasets, a file each, all giving the same `Example`; each is imported when it is opened.

Those that are TFDS builders are imported here already, so that TFDS knows them by name.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from importlib import import_module
from os import PathLike
from typing import Any

from fgvce_jax.data.example import Dataset, Example
from fgvce_jax.errors import InputError

__all__ = ["DATASETS", "Dataset", "Example", "open_dataset"]

DATASETS = {
    "birds": "fgvce_jax.data.birds:Birds",
    "digits": "fgvce_jax.data.digits:Digits",
    "folder": "fgvce_jax.data.folder:Folder",
    "cub": "fgvce_jax.data.cub:Cub",
    "dogs": "fgvce_jax.data.dogs:Dogs",
}


def open_dataset(
    name: str,
    split: str,
    path: str | PathLike[str] | None = None,
    *,
    max_pixels: int | None = None,
    test_share: float | None = None,
    **options: Any,
) -> Dataset:
    """Opens one split of a dataset.

    Args:
        name: One of `DATASETS`.
        split: "train", "test" or another split that the dataset has.
        path: Where the images lie, for the datasets that are read from disk.
        max_pixels: Of an image, for the datasets that are read from disk; see `DataConfig`.
        test_share: For a folder without splits of its own; likewise.
        **options: Further arguments of the dataset, such as `size` for birds and digits.

    Raises:
        InputError: Unknown name, split or option, a path missing or not wanted, or whatever the
            dataset finds wrong with its files.
    """
    if name not in DATASETS:
        raise InputError(f"dataset {name!r}: unknown; expected one of {', '.join(DATASETS)}")
    module, _, attribute = DATASETS[name].partition(":")
    dataset = getattr(import_module(module), attribute)
    parameters = inspect.signature(dataset).parameters
    known = [key for key in parameters if key != "split"]
    if path is not None:
        options["path"] = path
    for key, value in (("max_pixels", max_pixels), ("test_share", test_share)):
        if value is not None and key in known:
            options[key] = value
    for key in options:
        if key not in known:
            expected = ", ".join(known) or "none"
            raise InputError(f"dataset {name}: unknown option {key!r}; expected {expected}")
    if path is None and "path" in known and parameters["path"].default is inspect.Parameter.empty:
        raise InputError(f"dataset {name}: no path given; expected the folder that holds it")
    return dataset(split, **options)


# A bare accelerator machine has no TFDS; the other datasets open there all the same.
with suppress(ModuleNotFoundError):
    for _name in ("cub", "dogs"):
        import_module(DATASETS[_name].partition(":")[0])
