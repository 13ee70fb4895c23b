"""Does decoding keep up? Images a second of the input pipeline alone, and of a ResNet-50.

    python benchmarks/input.py [--images 512] [--folder PHOTOS] [--workers 0 2] [--json FILE]

The pipeline reads a prepared CUB-200-2011 of JPEG photographs (TFDS's `array_record` files), decodes
and resizes them (224 directly, and 256 with a centre crop) and batches them, keypoints moved along,
as `fgvce explain` does; the forward pass is the plain classifier's, on the same
machine. Photographs are drawn at the size that CUB's mostly have, 500 x 375, unless a folder of
JPEG files is given.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import describe, machine

from fgvce_jax.data.cub import Cub
from fgvce_jax.data.pipeline import batches
from fgvce_jax.data.prepare import prepare
from fgvce_jax.models import ModelSpec, build

IMAGE_SIZE = 224
SIZES = {"224": None, "256, crop 224": 256}


def prepared(files: list[bytes], count: int, folder: Path) -> Cub:
    """A CUB-200-2011 of `count` test images, `files` in turn, prepared as `fgvce data prepare`."""
    root = folder / "CUB_200_2011"
    (root / "parts").mkdir(parents=True)
    (root / "images/001.Photo").mkdir(parents=True)
    ids, parts = range(1, count + 1), range(1, 16)
    lines = {
        "classes.txt": ["1 001.Photo"],
        "images.txt": [f"{i} 001.Photo/{i}.jpg" for i in ids],
        "image_class_labels.txt": [f"{i} 1" for i in ids],
        "train_test_split.txt": [f"{i} {int(i == 1)}" for i in ids],
        "bounding_boxes.txt": [f"{i} 0.0 0.0 10.0 10.0" for i in ids],
        "parts/parts.txt": [f"{p} part {p}" for p in parts],
        "parts/part_locs.txt": [f"{i} {p} 5.0 5.0 1" for i in ids for p in parts],
    }
    for name, text in lines.items():
        (root / name).write_text("\n".join(text) + "\n")
    for i in ids:
        (root / f"images/001.Photo/{i}.jpg").write_bytes(files[i % len(files)])
    prepare("cub", root, folder / "prepared")
    return Cub("test", folder / "prepared")


def draw_photo(seed: int, width: int = 500, height: int = 375) -> bytes:
    """A JPEG file that costs what a photograph does: detail at every scale, and noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 9):  # amplitudes fall with frequency as in natural images
        coarse = rng.normal(size=(2**octave, 2**octave, 3)) / 2**octave
        low, high = coarse.min(), coarse.max()
        scaled = np.uint8(255 * (coarse - low) / (high - low))
        big = Image.fromarray(scaled).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(big, np.float32) / 255 * (high - low) + low
    image = 255 * (image - image.min()) / (image.max() - image.min())
    image += rng.normal(scale=9, size=image.shape)  # the camera's noise
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(image, 0, 255))).save(file, "JPEG", quality=92)
    return file.getvalue()


def read_all(photos: Cub, batch_size: int, resize_to: int | None, num_workers: int) -> float:
    """Images a second of the pipeline from its second batch to the last, start-up left out."""
    stream = batches(
        photos, range(len(photos)), batch_size, IMAGE_SIZE, resize_to, num_workers=num_workers
    )
    next(stream)
    start = time.perf_counter()
    count = sum(len(batch.index) for batch in stream)
    return count / (time.perf_counter() - start)


def forward_pass(batch_size: int) -> Callable[[], float]:
    """A function that measures a ResNet-50's plain forward pass, float32, in images a second."""
    clf = build(ModelSpec("resnet50"), 200, IMAGE_SIZE, jax.random.key(0))
    forward = jax.jit(lambda clf, images: clf(images))
    images = jnp.full((batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), 0.5)

    def measure() -> float:
        start = time.perf_counter()
        jax.block_until_ready(forward(clf, images))
        return batch_size / (time.perf_counter() - start)

    measure()  # compiles
    return measure


def measure(photos: Cub, arguments: argparse.Namespace) -> dict[Any, float]:
    """Images a second: of the forward pass, and of every (preprocessing, worker processes)."""
    measures: dict[Any, Callable[[], float]] = {"forward": forward_pass(arguments.batch)}
    for (name, resize_to), workers in itertools.product(SIZES.items(), arguments.workers):
        measures[name, workers] = partial(read_all, photos, arguments.batch, resize_to, workers)
    # In turn, so that whatever else the machine does hits all alike.
    runs = [{key: run() for key, run in measures.items()} for _ in range(arguments.repeats)]
    return {key: float(np.median([run[key] for run in runs])) for key in measures}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="Read by the pipeline each time.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="Of JPEG photographs.")
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="Worker processes.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    if arguments.folder:
        paths = sorted(
            p for p in arguments.folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg")
        )
        if not paths:
            sys.exit(f"{arguments.folder}: no JPEG files")
        files = [path.read_bytes() for path in paths]
    else:
        files = [draw_photo(seed) for seed in range(16)]
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(prepared(files, arguments.images, Path(folder)), arguments)
    here = machine()
    forward = rates.pop("forward")
    rows = [
        {
            "preprocessing": name,
            "worker_processes": workers,
            "pipeline_images_per_s": rate,
            "forward_images_per_s": forward,
            "ratio": rate / forward,
        }
        for (name, workers), rate in rates.items()
    ]

    mean = np.mean([len(file) for file in files]) / 1000
    print(f"{describe(here)}; {len(files)} JPEG files of {mean:.0f} kB; batch {arguments.batch}")
    print(f"ResNet-50 forward pass, float32: {forward:.1f} images/s")
    print(f"{'resize':>14} {'workers':>8} {'pipeline images/s':>18} {'x forward':>10}")
    for row in rows:
        print(
            f"{row['preprocessing']:>14} {row['worker_processes'] or 'threads':>8} "
            f"{row['pipeline_images_per_s']:18.0f} {row['ratio']:10.1f}"
        )
    if arguments.json:
        result = {
            "machine": here,
            "batch": arguments.batch,
            "images": arguments.images,
            "mean_file_kb": float(mean),
            "drawn": arguments.folder is None,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
