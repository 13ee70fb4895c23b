"""A whole split of a synthetic CUB-200-2011, explained, killed and resumed.

    python tests/whole_split.py [--annotations CUB_200_2011] [--kills 20] [--json FILE]

makes images for the official annotation files (all 11,788 entries; a few handmade ones where no
files are given), prepares them, fits a small classifier, explains the test split once without
interruption and once killed at random moments, and compares; and it holds the memory that the
whole split takes to that of its first tenth. One image cannot be decoded. `test_whole_split.py`
does so in a reduced size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from synthetic_cub import draw_species, make_cub

from fgvce_jax.cli import main as fgvce
from fgvce_jax.results import read_run

IMAGE_SIZE = 32
MEMORY_MAY_GROW = 1.15  # from a tenth of the split to the whole: what allocators scatter
SOFTEN = 4  # a temperature: fitted to few images, the discriminant is too sure of itself
COMMON = ("--bank.per_class=4", "--bank.top_m=3", "--data.name=cub")


def prepare_cub(folder: Path, annotations: Path | None) -> None:
    """Write the archive's folder and the prepared records below `folder`."""
    from fgvce_jax.data.prepare import prepare

    if annotations is None:
        root = make_cub(folder, classes=6, per_class=16)
        draw_species(root, side=160, weather=20)  # no part lies further out
    else:
        root = folder / "CUB_200_2011"
        shutil.copytree(annotations, root, copy_function=shutil.copyfile)
        draw_species(root, side=500, weather=4)
    first = next(
        image
        for line in (root / "train_test_split.txt").read_text().splitlines()
        for image, is_train in [line.split()]
        if is_train == "0"
    )
    names = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    (root / "images" / names[first]).write_text("not a picture")
    prepare("cub", root, folder / "prepared")


def fit_classifier(folder: Path) -> None:
    """Save a small ResNet of random weights whose last layer is a linear discriminant analysis."""
    import jax
    import jax.numpy as jnp

    from fgvce_jax.data.cub import Cub
    from fgvce_jax.data.pipeline import image_loader
    from fgvce_jax.heads import PooledLinear
    from fgvce_jax.models import ModelSpec, build, save_classifier

    train = Cub("train", folder / "prepared")
    spec = ModelSpec("small_resnet", widths=(16, 32, 64), blocks=(1, 1, 1), stem_stride=2)
    names = train.class_names
    clf = build(spec, len(names), IMAGE_SIZE, jax.random.key(0), class_names=names)
    pool = jax.jit(lambda clf, images: clf.features(images).mean((1, 2)))
    load = image_loader(train, 64, IMAGE_SIZE)
    pooled = np.concatenate([pool(clf, images) for _, images in load(np.arange(len(train)))])
    means = np.stack([pooled[train.labels == k].mean(0) for k in range(len(names))])
    spread = np.cov((pooled - means[train.labels]).T) + 1e-6 * np.eye(pooled.shape[1])
    kernel = np.linalg.solve(spread, means.T)
    bias = -0.5 * (means.T * kernel).sum(0)
    head = PooledLinear(jnp.float32(kernel / SOFTEN), jnp.float32(bias / SOFTEN))
    save_classifier(replace(clf, head=head), folder / "classifier")


class Explaining:
    """`fgvce explain` in processes of their own, which start with all modules imported."""

    def __init__(self, folder: Path, *options: str):
        self.arguments = [
            "explain",
            *COMMON,
            f"--data.path={folder / 'prepared'}",
            f"--model.checkpoint={folder / 'classifier'}",
            *options,
        ]
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["whole_split", "fgvce_jax.run", "grain"])

    def start(self, out: Path) -> multiprocessing.Process:
        """Begin, or continue, the run in `out`."""
        process = self.context.Process(target=_explain, args=([*self.arguments, f"--out={out}"],))
        process.start()
        return process

    def run(self, out: Path) -> float:
        """Run to the end; the seconds it took."""
        start = time.perf_counter()
        process = self.start(out)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"fgvce {' '.join(self.arguments)}: exit code {process.exitcode}")
        return time.perf_counter() - start

    def kill(self, out: Path, seconds: float, after_a_part: bool = False) -> bool:
        """Run for `seconds`, or so long after a part, then SIGKILL; was it needed."""
        process = self.start(out)
        while after_a_part and process.is_alive() and not _has_parts(out):
            time.sleep(0.01)
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL


def _has_parts(out: Path) -> bool:
    return any((out / "parts").glob("*.parquet"))


def _explain(arguments: list[str]) -> None:
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        code = fgvce(arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = Path(arguments[-1].removeprefix("--out="))
    (out.parent / f"{out.name}.peak").write_text(str(peak / 1024))
    sys.exit(code)


def peak_mb(out: Path) -> float:
    """Most memory that the process which ended the run in `out` held, in MB."""
    return float((out.parent / f"{out.name}.peak").read_text())


def differences(ours: Path, theirs: Path) -> list[str]:
    """What differs between two finished runs, besides the time that things took."""
    left, right = read_run(ours), read_run(theirs)
    found = [
        name
        for name in ("table", "predictions")
        if not _timeless(getattr(left, name)).equals(_timeless(getattr(right, name)))
    ]
    found += [name for name in ("counts", "skipped") if left.info[name] != right.info[name]]
    a, b = left.maps, right.maps
    if set(a) != set(b):
        return [*found, "names of maps"]
    return found + [f"maps {name}" for name in a if not np.array_equal(a[name], b[name])]


def _timeless(table):
    return table.drop_columns([name for name in table.column_names if name.startswith("time")])


def broken_files(out: Path) -> Iterator[str]:
    """Result files of a run, at whatever moment, that cannot be read back."""
    for path in out.rglob("*.parquet"):
        try:
            pq.read_table(path)
        except Exception as error:
            yield f"{path}: {error}"
    for path in out.rglob("*.np[yz]"):
        try:
            arrays = np.load(path)
            if path.suffix == ".npz":
                with arrays:
                    [arrays[name] for name in arrays.files]
        except Exception as error:
            yield f"{path}: {error}"


def kill_and_resume(
    explaining: Explaining, out: Path, kills: int, longest: float, seed: int = 0
) -> int:
    """Kill the run `kills` times, each at a moment drawn from 0 to `longest` seconds, then end it.

    Every second kill comes in the tenth of that time after a part was written, so that there is
    something to continue from however slow the machine starts a process. A run that ends first is
    looked at, removed, and begun again.

    Returns:
        How often it was continued from at least one part.
    """
    rng = np.random.default_rng(seed)
    killed = continued = 0
    while killed < kills:
        continued += _has_parts(out)
        late = killed % 2 == 1
        killed += explaining.kill(out, rng.uniform(0, longest / 10 if late else longest), late)
        for file in broken_files(out):
            raise AssertionError(f"after kill {killed}, not whole: {file}")
        if (out / "run.json").exists() and not (out / "parts").exists():
            shutil.rmtree(out)
    explaining.run(out)
    return continued


def main() -> None:
    """Do it in the size that the arguments say, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, help="The official annotation files.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="Kept afterwards; a temporary one by default.")
    parser.add_argument("--part_size", type=int, default=128)
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "classifier").exists():
            prepare_cub(folder, arguments.annotations)
            fit_classifier(folder)
        options = (f"--part_size={arguments.part_size}", "--batch_size=64")
        explaining = Explaining(folder, *options)
        whole, killed = folder / "whole", folder / "killed"
        seconds = explaining.run(whole)
        counts = read_run(whole).info["counts"]
        print(f"uninterrupted: {counts} in {seconds:.1f} s, at most {peak_mb(whole):.0f} MB")
        tenth = folder / "tenth"
        limit = counts["images"] // 10
        Explaining(folder, *options, f"--limit={limit}").run(tenth)
        print(f"the first tenth: {limit} images, at most {peak_mb(tenth):.0f} MB")
        continued = kill_and_resume(explaining, killed, arguments.kills, seconds)
        found = differences(killed, whole)
        print(f"killed {arguments.kills} times, continued {continued} times: {found or 'the same'}")
        flat = peak_mb(whole) <= MEMORY_MAY_GROW * peak_mb(tenth)
        if not flat:
            print(f"memory grows: more than {MEMORY_MAY_GROW} times that of a tenth")
        if arguments.json:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from benchmarks.provenance import stamp

            figures = {
                "provenance": stamp(),
                "counts": counts,
                "seconds": seconds,
                "peak_mb": {str(limit): peak_mb(tenth), str(counts["images"]): peak_mb(whole)},
                "kills": arguments.kills,
                "continued": continued,
                "differences": found,
            }
            arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
        sys.exit(bool(found) or not flat)


if __name__ == "__main__":
    main()
