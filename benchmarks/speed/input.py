"""Does decoding keep up? Images a second of the input pipeline, and of a ResNet-50.

Photographs are drawn at the size that CUB's mostly have, 500 x 375, or those of a folder.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from timing import median_times, script, show, timed

from fgvce_jax.data import open_dataset
from fgvce_jax.data.pipeline import image_loader
from fgvce_jax.models import ModelSpec, build

IMAGE_SIZE = 224
SIZES = {"224": None, "256, crop 224": 256}


def draw_photo(path: Path, seed: int, width: int = 500, height: int = 375) -> None:
    """A JPEG file that costs what a photograph does: detail at every scale, and noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(128, 9, size=(height, width, 3))  # the camera's noise
    for octave in range(1, 9):  # amplitudes fall with frequency as in natural images
        coarse = rng.normal(0, 80 / 2**octave, size=(2**octave, 2**octave, 3))
        image += jax.image.resize(coarse, image.shape, "cubic")
    Image.fromarray(np.uint8(image.clip(0, 255))).save(path, quality=92)


def read(load: Callable[[np.ndarray], Iterator[Any]], indices: np.ndarray) -> float:
    """Seconds an image from the second batch to the last, start-up left out."""
    stream = load(indices)
    next(stream)
    seconds, counts = timed(lambda: [len(index) for index, _ in stream])
    return seconds / sum(counts)


def measure(
    images: int = 512, batch: int = 32, folder: str = "", workers: str = "0", repeats: int = 3
) -> dict[str, Any]:
    """Images a second of the input pipeline, and of a ResNet-50's forward pass in float32."""
    clf = build(ModelSpec("resnet50"), 200, IMAGE_SIZE, jax.random.key(0))
    pixels = jnp.full((batch, IMAGE_SIZE, IMAGE_SIZE, 3), 0.5)
    forward = partial(jax.jit(lambda clf, pixels: clf(pixels)), clf, pixels)
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary, "test", "photos")
        photos.parent.mkdir()
        if folder:
            photos.symlink_to(Path(folder).resolve())
        else:
            photos.mkdir()
            for seed in range(16):
                draw_photo(photos / f"{seed}.jpg", seed)
        dataset = open_dataset("folder", "test", temporary)
        kilobytes = [(Path(temporary) / id).stat().st_size / 1000 for id in dataset.ids]
        ways = list(itertools.product(SIZES, map(int, workers.split(","))))
        measures = [lambda: median_times([forward], repeats=1)[0] / batch]
        for name, processes in ways:
            load = image_loader(dataset, batch, IMAGE_SIZE, SIZES[name], num_workers=processes)
            measures.append(partial(read, load, np.arange(images) % len(dataset)))
        # In turn, so that whatever else the machine does hits all alike.
        runs = [[run() for run in measures] for _ in range(repeats)]
    forward_rate, *rates = (1 / np.median(runs, axis=0)).tolist()
    rows = []
    for (name, processes), rate in zip(ways, rates, strict=True):
        row = {"preprocessing": name, "worker_processes": processes, "pipeline_images_per_s": rate}
        row |= {"forward_images_per_s": forward_rate, "ratio": rate / forward_rate}
        rows.append(show(row))
    settings = {"batch": batch, "images": images, "drawn": not folder}
    return {**settings, "mean_file_kb": float(np.mean(kilobytes)), "rows": rows}


if __name__ == "__main__":
    script(
        measure,
        images="read each time",
        folder="of JPEG photographs",
        workers="worker processes, with commas between them; 0 are threads",
    )
