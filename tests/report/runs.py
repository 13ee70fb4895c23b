"""Small runs to write reports of."""

import numpy as np

from fgvce_jax.data.example import Example
from fgvce_jax.report import View
from fgvce_jax.results import CORE_MAPS, Edit, ImageResult, open_run

N, SIZE = 7, 70
VIEW = View(SIZE)
CLASSES = ('<script>alert("wren")</script>', "finch & co", "owl's_cousin", "غراب", "x" * 300)


class Images:
    """A dataset whose image k is one grey, with ids that must be escaped."""

    class_names = CLASSES
    keypoint_names = part_names = ()
    labels = np.zeros(0, np.int32)  # a page takes them from the run

    def __init__(self, name, count=300):
        self.name = name
        self.ids = tuple(f"{name}/<{k}>.png" for k in range(count))
        self.read = []

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        self.read.append(index)
        image = np.full((SIZE // 2, SIZE, 3), index * 20 % 256, np.uint8)
        return Example(image, 0, self.ids[index])


def mistake(index, label, predicted, cells, flipped=True, p=0.1, extra=(), classes=3, seed=0):
    """An explanation whose edits replace some cells, with logits of which nothing is left out."""
    rng = np.random.default_rng([seed, index])
    edits = tuple(
        Edit(cell, f"train/<{k}>.png", k, 48 - cell, 0.5 + 0.01 * cell)
        for k, cell in enumerate(cells)
    )
    maps = {name: np.eye(N) for name in (*CORE_MAPS, *extra)}
    return ImageResult(
        index,
        f"test/<{index}>.png",
        label,
        "explained" if cells else "no_reference",
        predicted=predicted,
        flipped=flipped,
        edits=edits,
        p_predicted=np.linspace(0.8, 0.05, len(cells) + 1).tolist(),
        p_target=np.linspace(p, 0.9, len(cells) + 1).tolist(),
        time_s=0.004,
        maps=maps,
        logits=rng.normal(size=classes),
        logit_changes=rng.normal(size=len(cells) * classes),
        nearest=[predicted] * 7 + [label] * 3,
    )


def make_run(folder, records, info=None, **config):
    config = {"data": {"name": "birds"}, "model": {"arch": "vgg16"}, "split": "test"} | config
    with open_run(folder, config) as run:
        run.write_part(0, records)
        run.merge(CLASSES, 1, info or {})
        run.finish()
    return folder
