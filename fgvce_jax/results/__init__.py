"""A run on disk: written in parts, each whole or absent, and read back in one piece.

A run is a folder:

    config.json           its config: the run's identity
    inputs.json           fingerprints of the weights and data that the config names
    parts/                while it runs: a Parquet file per part of the split, a row per image
    explanations.parquet  a row per explanation (`EXPLANATIONS`)
    predictions.parquet   a row per image that was read (`PREDICTIONS`)
    maps.parquet          a column of float32 [n, n] tensors per map, rows as in the explanations
    run.json              config, counts, skipped images, versions and timings
    report.html           the page to look at

Of a split of more than `merge.IN_ONE_FILE` images the explanations and their maps are a Parquet
dataset in the place of the two files, and each map's column holds n lists of n numbers:

    explanations/         part-00000.parquet, ...

Every file is written under a temporary name, flushed to the disk and renamed, so that at every
instant the folder holds only whole files. While `parts/` exists the run is unfinished and can be
continued; `run.json` exists only beside the tables it belongs to. One process at a time owns the
folder (`files.FolderLock`).
"""

from fgvce_jax.results.parts import CORE_MAPS, EXPLANATIONS, PREDICTIONS, Edit, ImageResult
from fgvce_jax.results.read import RunResults, read_run
from fgvce_jax.results.summary import flips, skip_reasons, summary
from fgvce_jax.results.write import Run, open_run, unfinished_run

__all__ = [
    "CORE_MAPS",
    "EXPLANATIONS",
    "PREDICTIONS",
    "Edit",
    "ImageResult",
    "Run",
    "RunResults",
    "flips",
    "open_run",
    "read_run",
    "skip_reasons",
    "summary",
    "unfinished_run",
]
