"""`birds`: drawn birds whose classes differ in known parts, rendered on demand.

Every picture follows from (seed, split, index) alone; nothing is stored or downloaded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from fgvce_jax.data.birds.renderer import KEYPOINT_NAMES, Rendered, render
from fgvce_jax.data.birds.species import (
    CLASS_NAMES,
    CLASSES,
    PART_NAMES,
    Species,
    differing_parts,
    siblings,
)
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError

__all__ = [
    "CLASSES",
    "CLASS_NAMES",
    "KEYPOINT_NAMES",
    "PART_NAMES",
    "SPLITS",
    "Birds",
    "Rendered",
    "Species",
    "differing_parts",
    "render",
    "siblings",
]

SPLITS = {"train": 20_000, "test": 1_000}  # examples; 400 and 20 of each class
CHUNK = 100  # pictures rendered at once
_KEPT_CHUNKS = 4
_RENDERING = threading.Lock()  # so that threads wait for a chunk instead of rendering it again


@partial(jax.jit, static_argnames="size")
def _render_chunk(seed, split, indices, labels, size):
    """`Rendered` with a leading axis for int32 [CHUNK] indices; images uint8 [CHUNK, 3, S, S].

    Channels come first because XLA's CPU loops over them are a third slower when they come last.
    """
    root = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), split)
    keys = jax.vmap(partial(jax.random.fold_in, root))(indices)
    out = jax.vmap(partial(render, size=size))(keys, labels)
    image = jnp.round(jnp.moveaxis(out.image, -1, 1) * 255).astype(jnp.uint8)
    return out._replace(image=image)


class Birds:
    """One split of the birds, a `Dataset`.

    Example i shows class i % 50, so that every prefix is balanced.

    Args:
        split: "train" (20,000) or "test" (1,000).
        size: Side of the pictures in pixels.
        seed: Another seed gives another, equally distributed set of pictures.

    Raises:
        InputError: Unknown split, or a size below 16.
    """

    class_names: tuple[str, ...] = CLASS_NAMES
    keypoint_names: tuple[str, ...] = KEYPOINT_NAMES
    part_names: tuple[str, ...] = PART_NAMES

    def __init__(self, split: str, size: int = 112, seed: int = 0):
        if split not in SPLITS:
            raise InputError(f"birds: unknown split {split!r}; expected one of {', '.join(SPLITS)}")
        if size < 16:
            raise InputError(f"birds: size {size}; expected at least 16 pixels")
        self.split, self.size, self.seed = split, size, seed
        self.labels = np.arange(SPLITS[split], dtype=np.int32) % len(CLASSES)
        self.ids: Sequence[str] = tuple(f"birds-{split}-{i:05d}" for i in range(SPLITS[split]))
        self._chunks: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; raises IndexError outside the split."""
        if not 0 <= index < len(self):
            raise IndexError(f"birds: index {index} outside {self.split} of {len(self)}")
        number, at = divmod(int(index), CHUNK)
        chunk = self._chunk(number)
        return Example(
            image=chunk["image"][at],
            label=int(self.labels[index]),
            id=self.ids[index],
            keypoints=chunk["keypoints"][at],
            part_masks=chunk["part_masks"][at],
        )

    def _chunk(self, number: int) -> dict[str, np.ndarray]:
        """CHUNK neighbours at once; the last few chunks are kept for those who read in order."""
        with _RENDERING:
            if number not in self._chunks:
                indices = range(number * CHUNK, (number + 1) * CHUNK)
                self._chunks[number] = self.render_batch(indices)
                if len(self._chunks) > _KEPT_CHUNKS:
                    self._chunks.popitem(last=False)
            self._chunks.move_to_end(number)
            return self._chunks[number]

    def render_batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Renders any number B of examples of the split.

        Returns:
            image uint8 [B, S, S, 3], label int32 [B], part_masks bool [B, M, S, S] and keypoints
            float32 [B, P, 3], as in `Example`.
        """
        out = jax.tree.map(lambda *x: np.concatenate(x), *self._rendered(indices))
        return dict(out._asdict(), label=self.labels[np.asarray(indices)])

    def images(self, indices: Sequence[int]) -> UInt8[np.ndarray, "B S S 3"]:
        """The images of `render_batch` alone: what training needs."""
        return np.concatenate([out.image for out in self._rendered(indices)])

    def _rendered(self, indices: Sequence[int]) -> Iterator[Rendered]:
        """Whole chunks: one compilation, and a picture never depends on its batch."""
        wanted = np.asarray(indices, np.int32)
        for start in range(0, len(wanted), CHUNK):
            count = min(CHUNK, len(wanted) - start)
            padded = np.pad(wanted[start : start + count], (0, CHUNK - count), mode="edge")
            split = list(SPLITS).index(self.split)
            out = _render_chunk(self.seed, split, padded, self.labels[padded], size=self.size)
            image, part_masks, keypoints = (np.asarray(x)[:count] for x in out)
            image = np.ascontiguousarray(np.moveaxis(image, 1, -1))
            yield Rendered(image, part_masks, keypoints)
