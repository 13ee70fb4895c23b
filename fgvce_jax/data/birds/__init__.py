"""`birds`: drawn birds whose classes differ in known parts, rendered on demand.

Every picture follows from (seed, split, index) alone; nothing is stored or downloaded. So the true
counterfactual of a picture is known: the same draws with another class are its twin, the same draws
with a part left out show what the part was worth.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence, Sized
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from fgvce_jax.data.birds.renderer import KEYPOINT_NAMES, Rendered, render
from fgvce_jax.data.birds.species import (
    CLASS_NAMES,
    CLASSES,
    DIFFERING,
    PART_NAMES,
    Species,
    differing_parts,
    named,
    sibling_parts,
    siblings,
)
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError

__all__ = [
    "CLASSES",
    "CLASS_NAMES",
    "DIFFERING",
    "KEYPOINT_NAMES",
    "PART_NAMES",
    "SPLITS",
    "Birds",
    "Rendered",
    "Species",
    "differing_parts",
    "render",
    "sibling_parts",
    "siblings",
]

SPLITS = {"train": 20_000, "test": 1_000}  # examples; 400 and 20 of each class
CHUNK = 100  # pictures rendered at once
Integers: TypeAlias = Sequence[int] | Int[np.ndarray, "B"]
_KEPT_CHUNKS = 12  # a run reads the test split's ten, and its report the same again: 60 MB
_RENDERING = threading.Lock()  # so that threads wait for a chunk instead of rendering it again


@partial(jax.jit, static_argnames="size")
def _render_chunk(seed, split, indices, labels, shown, size):
    """`Rendered` with a leading axis; images uint8 [CHUNK, 3, S, S].

    Takes int32 [CHUNK] indices and labels and bool [CHUNK, M] parts to show. Whole birds, twins and
    birds without a part come from this one compiled function, so that they agree to the bit.
    Channels come first because XLA's CPU loops over them are a third slower when they come last.
    """
    root = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), split)
    keys = jax.vmap(partial(jax.random.fold_in, root))(indices)
    out = jax.vmap(lambda key, label, shown: render(key, label, size, shown=shown))(
        keys, labels, shown
    )
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
        self._check([index])
        number, at = divmod(int(index), CHUNK)
        chunk = self._chunk(number)
        return Example(
            image=chunk["image"][at],
            label=int(self.labels[index]),
            id=self.ids[index],
            keypoints=chunk["keypoints"][at],
            part_masks=np.unpackbits(chunk["part_masks"][at], axis=-1, count=self.size).view(bool),
        )

    def _chunk(self, number: int) -> dict[str, np.ndarray]:
        """CHUNK neighbours at once; the last few chunks are kept for those who read in order."""
        with _RENDERING:
            if number not in self._chunks:
                indices = range(number * CHUNK, (number + 1) * CHUNK)
                chunk = self.render_batch(indices)
                chunk["part_masks"] = np.packbits(chunk["part_masks"], axis=-1)
                self._chunks[number] = chunk
                if len(self._chunks) > _KEPT_CHUNKS:
                    self._chunks.popitem(last=False)
            self._chunks.move_to_end(number)
            return self._chunks[number]

    def twin(self, index: int, class_index: int) -> Example:
        """The example at `index` as a bird of class `class_index`, its true counterfactual.

        Every random draw is kept, so the two pictures agree but for the parts in which the classes
        differ (`DIFFERING`) and what these hide; of its own class, a bird is its own twin. For many
        examples use `twins`: one takes as long as `CHUNK` of them.

        Raises:
            InputError: A class outside 0 … 49.
            IndexError: An index outside the split.
        """
        return _only(self.twins([index], [class_index]), f"{self.ids[index]}-as-{class_index:02d}")

    def without(self, index: int, parts: Collection[str]) -> Example:
        """The example at `index` without some of its parts: what lies behind them is shown.

        Nothing else changes. Where a part left out hid another one, that one's mask grows. For many
        examples use `withouts`: one takes as long as `CHUNK` of them.

        Args:
            index: Within the split.
            parts: Some of `part_names`, or none. The eye belongs to the body.

        Raises:
            InputError: An unknown part.
            IndexError: An index outside the split.
        """
        batch = self.withouts([index], [parts])
        left_out = (part for part in PART_NAMES if part in parts)
        return _only(batch, "-".join([self.ids[index], "without", *left_out]))

    def twins(self, indices: Integers, classes: Integers) -> dict[str, np.ndarray]:
        """`twin` of B examples, a class for each, as `render_batch` returns them.

        Raises:
            InputError: A class outside 0 … 49, or not one for each index.
            IndexError: An index outside the split.
        """
        classes = np.asarray(classes, np.int32)
        _check_one_each("classes", classes, indices)
        outside = classes[(classes < 0) | (classes >= len(CLASSES))]
        if len(outside):
            raise InputError(f"class_index: expected 0 to {len(CLASSES) - 1}, got {outside[0]}")
        return self._batch(indices, labels=classes)

    def withouts(
        self, indices: Integers, parts: Sequence[Collection[str]]
    ) -> dict[str, np.ndarray]:
        """`without` of B examples, some parts for each, as `render_batch` returns them.

        Raises:
            InputError: An unknown part, or not a collection of parts for each index.
            IndexError: An index outside the split.
        """
        _check_one_each("parts", parts, indices)
        shown = np.array([~named(some) for some in parts])
        return self._batch(indices, shown=shown)

    def render_batch(self, indices: Integers) -> dict[str, np.ndarray]:
        """Renders any number B of examples of the split.

        Returns:
            image uint8 [B, S, S, 3], label int32 [B], part_masks bool [B, M, S, S] and keypoints
            float32 [B, P, 3], as in `Example`.
        """
        return self._batch(indices)

    def images(self, indices: Integers) -> UInt8[np.ndarray, "B S S 3"]:
        """The images of `render_batch` alone: what training needs."""
        return np.concatenate([out.image for out in self._rendered(indices)])

    def _batch(
        self,
        indices: Integers,
        labels: Int[np.ndarray, "B"] | None = None,
        shown: Bool[np.ndarray, "B M"] | None = None,
    ) -> dict[str, np.ndarray]:
        """The examples as arrays, perhaps as other classes, perhaps with some parts only."""
        out = jax.tree.map(lambda *x: np.concatenate(x), *self._rendered(indices, labels, shown))
        label = self.labels[np.asarray(indices)] if labels is None else labels
        return dict(out._asdict(), label=label)

    def _rendered(
        self,
        indices: Integers,
        labels: Int[np.ndarray, "B"] | None = None,
        shown: Bool[np.ndarray, "B M"] | None = None,
    ) -> Iterator[Rendered]:
        """Whole chunks: one compilation, and a picture never depends on its batch."""
        wanted = np.asarray(indices, np.int32)
        self._check(wanted)
        labels = self.labels[wanted] if labels is None else labels
        shown = np.ones((len(wanted), len(PART_NAMES)), bool) if shown is None else shown
        split = list(SPLITS).index(self.split)
        for start in range(0, len(wanted), CHUNK):
            count = min(CHUNK, len(wanted) - start)
            rows = start + np.minimum(np.arange(CHUNK), count - 1)  # the last one fills the chunk
            chunk = wanted[rows], labels[rows], shown[rows]
            out = _render_chunk(self.seed, split, *chunk, size=self.size)
            image, part_masks, keypoints = (np.asarray(x)[:count] for x in out)
            image = np.ascontiguousarray(np.moveaxis(image, 1, -1))
            yield Rendered(image, part_masks, keypoints)

    def _check(self, indices: Integers) -> None:
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"birds: index {index} outside {self.split} of {len(self)}")


def _check_one_each(field: str, values: Sized, indices: Integers) -> None:
    if len(values) != len(indices):
        raise InputError(f"{field}: expected one for each of {len(indices)}, got {len(values)}")


def _only(batch: dict[str, np.ndarray], name: str) -> Example:
    """The example of a batch of one."""
    image, label, part_masks, keypoints = (
        batch[field][0] for field in ("image", "label", "part_masks", "keypoints")
    )
    return Example(image, int(label), name, keypoints, part_masks)
