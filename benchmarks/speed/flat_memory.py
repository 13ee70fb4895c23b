"""The most memory that a run holds, over the size of its split.

    python benchmarks/speed/flat_memory.py [--sizes 1000,10000,100000] [--json FILE]

Splits of 32-pixel photographs of noise, in the form of CUB-200-2011, are prepared as records and
explained by a small network that is wrong about some of them, each in a process of its own.
The other split, which the candidates come from, has the same 400 images each time. Reaching a
million images is a matter of disk and hours, so the slope between the two largest splits is carried
on to ImageNet's 1,281,167.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
IMAGENET = 1_281_167
CLASSES, REFERENCES, SIDE = 20, 400, 32
PARTS = range(1, 16)
RUN = r"""
import re, sys
from pathlib import Path
from fgvce_jax.cli import main
code = main(sys.argv[1:])
# Not ru_maxrss, in which a process has its parent's peak.
print(int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
raise SystemExit(code)
"""


def write_cub(folder: Path, size: int) -> Path:
    """The official layout with `size` images to explain, each one of 200 pictures of its class."""
    rng = np.random.default_rng(0)
    root = folder / "CUB_200_2011"
    (root / "parts").mkdir(parents=True)
    names = [f"{k + 1:03d}.Noise_{k + 1}" for k in range(CLASSES)]
    colours = rng.uniform(60, 195, (CLASSES, 3))
    lines: dict[str, list[str]] = {
        "classes.txt": [f"{k + 1} {name}" for k, name in enumerate(names)],
        "parts/parts.txt": [f"{part} part_{part}" for part in PARTS],
        **{f"{name}.txt": [] for name in ("images", "image_class_labels", "train_test_split")},
        "bounding_boxes.txt": [],
        "parts/part_locs.txt": [],
    }
    pictures = {}
    for k, name in enumerate(names):
        (root / "images" / name).mkdir(parents=True)
        for i in range(200):
            colour = colours[k] + rng.normal(scale=12, size=3)
            pixels = np.uint8(np.clip(colour + rng.normal(scale=25, size=(6, 6, 3)), 0, 255))
            image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            pictures[k, i] = root / "images" / name / f"picture_{i}.jpg"
            image.save(pictures[k, i])
    for number in range(1, size + REFERENCES + 1):
        k, picture = number % CLASSES, number // CLASSES % 200
        name = f"{names[k]}/Noise_{number:07d}.jpg"
        os.link(pictures[k, picture], root / "images" / name)
        lines["images.txt"].append(f"{number} {name}")
        lines["image_class_labels.txt"].append(f"{number} {k + 1}")
        lines["train_test_split.txt"].append(f"{number} {int(number <= REFERENCES)}")
        lines["bounding_boxes.txt"].append(f"{number} 0.0 0.0 {SIDE}.0 {SIDE}.0")
        lines["parts/part_locs.txt"] += [f"{number} {part} 0.0 0.0 0" for part in PARTS]
    for picture in pictures.values():
        picture.unlink()
    for name, content in lines.items():
        (root / name).write_text("\n".join(content) + "\n")
    return root


def save_classifier(folder: Path, prepared: Path) -> None:
    """Random features, and a linear discriminant on them that is wrong about some images."""
    import jax
    import jax.numpy as jnp

    from fgvce_jax.data.cub import Cub
    from fgvce_jax.data.pipeline import image_loader
    from fgvce_jax.heads import PooledLinear
    from fgvce_jax.models import ModelSpec, build
    from fgvce_jax.models import save_classifier as save

    train = Cub("train", prepared)
    spec = ModelSpec("small_resnet", widths=(8, 16), blocks=(1, 1), stem_stride=2)
    clf = build(spec, CLASSES, SIDE, jax.random.key(0), class_names=train.class_names)
    pool = jax.jit(lambda clf, images: clf.features(images).mean((1, 2)))
    load = image_loader(train, 50, SIDE)
    pooled = np.concatenate([pool(clf, images) for _, images in load(np.arange(len(train)))])
    means = np.stack([pooled[train.labels == k].mean(0) for k in range(CLASSES)])
    spread = np.cov((pooled - means[train.labels]).T) + 1e-6 * np.eye(pooled.shape[1])
    kernel = np.linalg.solve(spread, means.T) / 4
    bias = -0.5 * (means.T * kernel).sum(0)
    save(replace(clf, head=PooledLinear(jnp.float32(kernel), jnp.float32(bias))), folder)


def explain(classifier: Path, prepared: Path, out: Path) -> dict:
    """The row of a split: what the run counted, its seconds and its peak in MiB."""
    from fgvce_jax.results import read_run

    command = [sys.executable, "-c", RUN, "explain", "--data.name=cub", "--quiet"]
    command += [f"--data.path={prepared}", f"--model.checkpoint={classifier}", f"--out={out}"]
    command += ["--bank.per_class=5", "--bank.top_m=3", "--batch_size=64"]
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    counts = read_run(out).info["counts"]
    return counts | {"seconds": seconds, "peak_mb": float(done.stdout.split()[-1])}


def measure(folder: Path, sizes: list[int]) -> list[dict]:
    """The rows of all sizes; the smallest runs twice, as its first run compiles the programs."""
    from fgvce_jax.data.prepare import prepare

    classifier, rows = folder / "classifier", []
    for size in sizes:
        prepared = folder / f"{size}"
        if not prepared.exists():
            with tempfile.TemporaryDirectory(dir=folder) as images:
                prepare("cub", write_cub(Path(images), size), prepared)
        if not classifier.exists():
            save_classifier(classifier, prepared)
            explain(classifier, prepared, folder / "first")
        rows.append(explain(classifier, prepared, folder / f"run-{size}"))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--folder", type=Path, help="Kept afterwards; a temporary one by default.")
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        rows = measure(folder, sizes)
    before, last = rows[-2:]
    slope = (last["peak_mb"] - before["peak_mb"]) / (last["images"] - before["images"])
    peaks = [row["peak_mb"] for row in rows]
    figures = {
        "rows": rows,
        "spread": max(peaks) / min(peaks) - 1,
        "mb_per_100000": 1e5 * slope,
        "imagenet_mb": last["peak_mb"] + slope * (IMAGENET - last["images"]),
    }
    print(figures)
    if options.json:
        sys.path.insert(0, str(ROOT))
        from benchmarks.provenance import stamp

        figures = {"provenance": stamp()} | figures
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
