"""Does decoding keep up? Images a second of the input pipeline alone, and of a ResNet-50.

The pipeline decodes JPEG photographs, resizes them (224 directly, and 256 with a centre crop) and
batches them, as `fgvce explain` does. Photographs are drawn at the size that CUB's mostly have,
500 x 375, unless a folder of JPEG files is given.
"""

from __future__ import annotations

import io
import itertools
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
from PIL import Image
from timing import finish, median_times, parser, show

from fgvce_jax.data import open_dataset
from fgvce_jax.data.pipeline import batches
from fgvce_jax.models import ModelSpec, build

IMAGE_SIZE = 224
SIZES = {"224": None, "256, crop 224": 256}


def draw_photo(seed: int, width: int = 500, height: int = 375) -> bytes:
    """A JPEG file that costs what a photograph does: detail at every scale, and noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(128, 9, size=(height, width, 3))  # the camera's noise
    for octave in range(1, 9):  # amplitudes fall with frequency as in natural images
        coarse = np.uint8(rng.normal(128, 40, size=(2**octave, 2**octave, 3)).clip(0, 255))
        big = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image += (np.asarray(big, np.float32) - 128) * 2 / 2**octave
    file = io.BytesIO()
    Image.fromarray(np.uint8(image.clip(0, 255))).save(file, "JPEG", quality=92)
    return file.getvalue()


def read_all(photos: Any, batch_size: int, resize_to: int | None, num_workers: int) -> float:
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
    images = jnp.full((batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), 0.5)
    forward = partial(jax.jit(lambda clf, images: clf(images)), clf, images)
    return lambda: batch_size / median_times([forward], repeats=1)[0]


def main() -> None:
    """Measure, print the table, write the JSON."""
    arguments = parser(__doc__, repeats=3)
    arguments.add_argument("--images", type=int, default=512, help="read each time")
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--folder", type=Path, help="of JPEG photographs")
    arguments.add_argument("--workers", type=int, nargs="+", default=[0], help="worker processes")
    options = arguments.parse_args()
    if options.folder:
        files = [path.read_bytes() for path in sorted(options.folder.glob("*.jp*g"))]
    else:
        files = [draw_photo(seed) for seed in range(16)]
    if not files:
        sys.exit(f"{options.folder}: no JPEG files")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "test" / "photos"
        images.mkdir(parents=True)
        for i in range(options.images):
            (images / f"{i}.jpg").write_bytes(files[i % len(files)])
        photos = open_dataset("folder", "test", folder)
        measures: dict[Any, Callable[[], float]] = {"forward": forward_pass(options.batch)}
        for (name, resize_to), workers in itertools.product(SIZES.items(), options.workers):
            measures[name, workers] = partial(read_all, photos, options.batch, resize_to, workers)
        # In turn, so that whatever else the machine does hits all alike.
        runs = [{key: run() for key, run in measures.items()} for _ in range(options.repeats)]
    rates = {key: float(np.median([run[key] for run in runs])) for key in measures}
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
    for row in rows:
        show(row)
    mean = float(np.mean([len(file) for file in files])) / 1000
    settings = {"batch": options.batch, "images": options.images, "drawn": options.folder is None}
    finish(options, {"name": "input", **settings, "mean_file_kb": mean, "rows": rows})


if __name__ == "__main__":
    main()
