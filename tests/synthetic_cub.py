"""A small CUB-200-2011 in the true layout, whose parts are painted where they are annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PARTS = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)
BACKGROUND = (255, 255, 255)
RADIUS = 6  # of a painted part, in pixels


def colour(part: int) -> tuple[int, int, int]:
    """A part's colour; any two differ by at least 100 in a channel, as they do from white."""
    return tuple((0, 110, 255)[(part + 1) // 3**k % 3] for k in range(3))


def paint(width: int, height: int, parts: np.ndarray) -> np.ndarray:
    """A white image with a square of each visible part's colour around its pixel."""
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    for part, (x, y, visible) in enumerate(parts):
        if visible:
            rows = slice(max(int(y) - RADIUS, 0), int(y) + RADIUS + 1)
            columns = slice(max(int(x) - RADIUS, 0), int(x) + RADIUS + 1)
            image[rows, columns] = colour(part)
    return image


def draw_species(root: Path, side: int, weather: float, seed: int = 0) -> None:
    """Draw images/ anew from the annotation files in `root`: a colour for each class, in weather.

    `weather` says how far an image's colour strays (of 255), so how often a small classifier takes
    a class for another.
    """
    rng = np.random.default_rng(seed)
    names = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    labels = dict(
        line.split() for line in (root / "image_class_labels.txt").read_text().splitlines()
    )
    colours = np.random.default_rng(1).uniform(40, 215, (1 + max(map(int, labels.values())), 3))
    for image_id, name in names.items():
        colour = colours[int(labels[image_id])] + rng.normal(scale=weather, size=3)
        small = np.uint8(np.clip(colour + rng.normal(scale=25, size=(6, 6, 3)), 0, 255))
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path, "JPEG")


def place_parts(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """[15, 3] whole pixels far enough apart that no two squares touch; a third is invisible."""
    step = 3 * RADIUS
    grid = [(x, y) for y in range(RADIUS, height, step) for x in range(RADIUS, width, step)]
    chosen = np.array(grid)[rng.choice(len(grid), len(PARTS), replace=False)]
    visible = rng.random(len(PARTS)) > 1 / 3
    return np.column_stack([chosen * visible[:, None], visible]).astype(float)


def make_cub(folder: Path, classes: int = 3, per_class: int = 4, seed: int = 0) -> Path:
    """Write `folder`/CUB_200_2011 and return it; every other image of a class is for training."""
    rng = np.random.default_rng(seed)
    root = folder / "CUB_200_2011"
    (root / "parts").mkdir(parents=True)
    names = [f"{k + 1:03d}.Drawn_Bird_{k + 1}" for k in range(classes)]
    lines: dict[str, list[str]] = {
        "classes.txt": [f"{k + 1} {name}" for k, name in enumerate(names)],
        "parts/parts.txt": [f"{p + 1} {name}" for p, name in enumerate(PARTS)],
    }
    for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes"):
        lines[name + ".txt"] = []
    lines["parts/part_locs.txt"] = []
    for i in range(classes * per_class):
        label, number = i // per_class, i + 1
        width, height = (150, 110) if i % 2 else (100, 160)
        parts = place_parts(rng, width, height)
        name = f"{names[label]}/Drawn_{number:04d}.jpg"
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(width, height, parts)).save(path, quality=95, subsampling=0)
        lines["images.txt"].append(f"{number} {name}")
        lines["image_class_labels.txt"].append(f"{number} {label + 1}")
        lines["train_test_split.txt"].append(f"{number} {i % 2}")
        lines["bounding_boxes.txt"].append(f"{number} 10.0 20.0 {i + 30}.0 40.0")
        for p, (x, y, visible) in enumerate(parts):
            lines["parts/part_locs.txt"].append(f"{number} {p + 1} {x} {y} {int(visible)}")
    for name, content in lines.items():
        (root / name).write_text("\n".join(content) + "\n")
    return root
