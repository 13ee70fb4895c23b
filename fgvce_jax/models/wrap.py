"""Anyone's JAX model as a classifier: traced, and cut at the last map that its logits depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fgvce_jax.errors import InputError
from fgvce_jax.heads import PooledLinear, Tokens
from fgvce_jax.models.calls import channels_first, of_image, takes_batches
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.program import (
    Program,
    attention_masses,
    first_product,
    passes,
    shape_of,
    spatial_sides,
    trace,
)

_SAME = 1e-5
"""Most that logits may differ from the model's own, over the largest of them."""
_MOST_SPECIAL = 16  # tokens beside the patches


@dataclass(frozen=True, eq=False)
class Grid:
    """How a value holds an image's cells.

    Attributes:
        shape: Of the value.
        n: Cells along a side.
        channels_first: Of a map: whether its channels come first.
        special: Of tokens: how many stand before the patches; None for a map.
    """

    shape: tuple[int, ...]
    n: int
    channels_first: bool = False
    special: int | None = None

    def cells(self, value: Array) -> Float[Array, "n n C"]:
        """The cells in a value."""
        value = value.reshape(self._plain)
        if self.special is not None:
            return value[self.special :].reshape(self.n, self.n, -1)
        return jnp.moveaxis(value, 0, -1) if self.channels_first else value

    def context(self, value: Array) -> Float[Array, "S C"] | None:
        """The special tokens in a value."""
        return value.reshape(self._plain)[: self.special] if self.special else None

    def value(self, cells: Float[Array, "n n C"], context: Any = None) -> Array:
        """The value that holds these."""
        if self.special is not None:
            patches = cells.reshape(-1, cells.shape[-1])
            value = patches if context is None else jnp.concatenate([context, patches])
        else:
            value = jnp.moveaxis(cells, -1, 0) if self.channels_first else cells
        return value.reshape(self.shape)

    @property
    def _plain(self) -> tuple[int, ...]:
        """The shape without leading axes of 1."""
        rank = 2 if self.special is not None else 3
        return self.shape[len(self.shape) - rank :]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ForeignFeatures:
    """A model up to the cut: images [B, S, S, 3] in [0, 1] to cells (and special tokens).

    Attributes:
        program: From one normalised image to the value at the cut.
        mean: Per channel, [3], in units of [0, 1].
        std: Likewise.
        grid: How the value holds the cells.
    """

    program: Program
    mean: Float[Array, "3"]
    std: Float[Array, "3"]
    grid: Grid = field(metadata={"static": True})

    def __call__(self, images: Float[ArrayLike, "B S S 3"]) -> Any:
        """Cells (and special tokens)."""

        def of_image(image):
            value = self.program((image - self.mean) / self.std).astype(jnp.float32)
            cells, context = self.grid.cells(value), self.grid.context(value)
            return cells if context is None else (cells, context)

        return jax.vmap(of_image)(jnp.asarray(images))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ForeignHead:
    """A model from the cut on: cells [..., n, n, C] (and special tokens) to logits [..., K].

    Attributes:
        program: From the value at the cut to logits.
        grid: How the value holds the cells.
        masses: The attention's exponentials behind the cut, and the axis of their keys.
    """

    program: Program
    grid: Grid = field(metadata={"static": True})
    masses: tuple[tuple[Var, int], ...] = field(default=(), metadata={"static": True})

    def __call__(self, cells, *context):
        """Logits; `context` are the special tokens and, for a transformer, the log of a mask."""
        if cells.ndim > 3:
            return jax.vmap(self)(cells, *context)
        tokens, log_mask = (*context, None, None)[:2]
        scaled = {} if log_mask is None else self._scaled(jnp.exp(log_mask).ravel())
        logits = self.program(self.grid.value(cells, tokens), scaled=scaled)
        return logits.reshape(-1).astype(jnp.float32)

    def _scaled(self, share: Float[Array, "patches"]) -> dict[Var, Array]:
        """What each exponential is multiplied by, so that patches keep a share of their mass."""
        shares = jnp.concatenate([jnp.ones(self.grid.special or 0), share])
        return {
            var: shares.reshape([-1 if a == axis else 1 for a in range(len(shape_of(var)))])
            for var, axis in self.masses
        }


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ForeignNorm:
    """The norm behind the cut of a transformer, of any number of tokens [..., C].

    Attributes:
        program: From the tokens at the cut to what the attention reads of them, one by one.
        grid: How many tokens it takes at a time.
    """

    program: Program
    grid: Grid = field(metadata={"static": True})

    def __call__(self, tokens: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """The tokens behind the norm."""
        at_once = math.prod(self.grid.shape[:-1])
        rows = tokens.reshape(-1, tokens.shape[-1])
        padded = jnp.pad(rows, ((0, -len(rows) % at_once), (0, 0)))
        chunks = padded.reshape(-1, *self.grid.shape)
        found = jax.vmap(self.program)(chunks).reshape(padded.shape)
        return found[: len(rows)].reshape(tokens.shape)


def wrap(
    model: Any,
    image_size: int,
    *,
    class_names: Sequence[str] = (),
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    resize_to: int | None = None,
    special_tokens: int | None = None,
) -> Classifier:
    """A classifier of another library's model, with its logits.

    It is cut at the last value that everything passes through and that is a map, or a square of
    tokens, on which the logits depend: before the pooling of a ResNet or a ConvNeXt, before the
    last block of a transformer that reads its class token. What follows is searched as it is; a
    mean and a linear layer are recognised. Behind the cut of a transformer masks act on the
    attention, as everywhere in this package.

    Args:
        model: A model of Flax NNX (jimm and bonsai too), a bound Linen module, a model of Keras 3
            on JAX or of Equinox (Equimo too); or any function from normalised images
            [1, S, S, 3] to logits [1, K].
        image_size: S.
        class_names: K names.
        mean: Per channel, of the images that the model takes, in units of [0, 1]; by default it
            takes them as they are.
        std: Likewise.
        resize_to: Short side in pixels before the centre crop of S.
        special_tokens: Of a transformer, the tokens before the patches; by default counted.

    Raises:
        InputError: Nothing that can be called, other logits than one vector, weights that are NaN,
            maps that are not square, or no place to cut.
    """
    program, num_classes = _traced(model, image_size)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(size=(image_size, image_size, 3)), jnp.float32)
    mean32, std32 = jnp.float32(mean), jnp.float32(std)
    normalised = (image - mean32) / std32
    cut, grid = _last_map(program, model, special_tokens)
    features = ForeignFeatures(
        program.between(program.equations.inputs[0], cut), mean32, std32, grid
    )
    head = _head(
        program.between(cut, program.equations.output), grid, jax.jit(features)(image[None])
    )
    clf = Classifier(features, head, num_classes, image_size, tuple(class_names), resize_to)
    _check_same(jax.jit(clf)(image[None])[0], jax.jit(program)(normalised).reshape(-1))
    return clf


def _traced(model: Any, size: int) -> tuple[Program, int]:
    """The model's program, and how many classes it knows."""
    call = of_image(model)
    try:
        program, out = trace(call, size, size, 3)
    except InputError:
        raise
    except Exception as error:  # whatever their code raises
        why = str(error).strip().split("\n", maxsplit=1)[0]
        raise InputError(
            f"model: cannot be called with images [1, {size}, {size}, 3] ({why})"
        ) from error
    shapes = [list(leaf.shape) for leaf in jax.tree.leaves(out)]
    axes = 2 if takes_batches(model) else 1
    if len(shapes) != 1 or len(shapes[0]) != axes or (axes == 2 and shapes[0][0] != 1):
        raise InputError(f"head: expected one vector of logits of an image, got {shapes}")
    for array in program.weights:
        if jnp.issubdtype(array.dtype, jnp.floating) and not bool(jnp.isfinite(array).all()):
            raise InputError(f"weights: expected numbers, an array {list(array.shape)} holds NaN")
    return program, shapes[0][-1]


def _last_map(program: Program, model: Any, special: int | None) -> tuple[Var, Grid]:
    """The last value that holds cells on which the logits depend."""
    for var in reversed(list(passes(program))):
        grid = _grid(program, var, model, special)
        if grid is not None and _matters(program, var, grid):
            return var, grid
    raise InputError(
        "model: expected a map or tokens of at least 2 x 2 cells that everything passes through, "
        "found none"
    )


def _matters(program: Program, var: Var, grid: Grid) -> bool:
    """Whether the logits depend on the cells in a value: behind a last block, say, they do not."""
    rest = program.between(var, program.equations.output)
    value = jax.random.normal(jax.random.key(0), grid.shape)

    @jax.jit
    def slope(rest, value):
        logits, pull = jax.vjp(rest, value)
        return grid.cells(pull(jnp.cos(jnp.arange(logits.size)).reshape(logits.shape))[0])

    return bool(jnp.any(slope(rest, value) != 0))


def _grid(program: Program, var: Var, model: Any, special: int | None) -> Grid | None:
    """How a value holds cells; None where it is neither a map nor tokens."""
    shape = shape_of(var)
    plain = shape[1:] if takes_batches(model) and shape[:1] == (1,) else shape
    if len(plain) == 3 and min(plain) > 1:
        square = [plain[0] == plain[1], plain[1] == plain[2]]  # channels last, channels first
        first = channels_first(model) if square[0] == square[1] else square[1]
        sides = plain[1:] if first else plain[:2]
        if sides[0] != sides[1]:
            raise InputError(f"features: expected as many rows as columns, got {sides}")
        return Grid(shape, sides[0], first)
    if len(plain) == 2 and plain[0] > 3:
        return _token_grid(program, var, shape, plain[0], special)
    return None


def _token_grid(
    program: Program, var: Var, shape: tuple[int, ...], tokens: int, special: int | None
) -> Grid:
    """Of tokens: the patches are those that a convolution made, or the largest square."""
    if special is None:
        sides = spatial_sides(program, var)
        patches = math.isqrt(tokens) ** 2 if sides is None else math.prod(sides)
        if sides is not None and sides[0] != sides[1]:
            raise InputError(f"tokens: expected a square of patches, got {sides[0]} x {sides[1]}")
        special = tokens - patches
    n = math.isqrt(max(tokens - special, 0))
    if n < 2 or n * n + special != tokens or not 0 <= special <= _MOST_SPECIAL:
        raise InputError(
            f"tokens: expected a square of patches behind the special tokens, got {tokens} tokens"
        )
    return Grid(shape, n, special=special)


def _head(rest: Program, grid: Grid, seen: Any) -> Any:
    """The rest of the model in the shape the search needs."""
    masses = attention_masses(rest, math.prod(grid.shape[:-1])) if grid.special is not None else {}
    head = ForeignHead(rest, grid, tuple(masses.items()))
    if masses:
        norm = rest.between(rest.equations.inputs[0], first_product(rest, grid.shape))
        return Tokens(head, ForeignNorm(norm, grid))
    return head if grid.special else _pooled(head, seen[0]) or head


def _pooled(head: ForeignHead, cells: Float[Array, "n n C"]) -> PooledLinear | None:
    """The head as a mean and a linear layer, if that is what it is."""
    shape = cells.shape

    def of_mean(mean: Float[Array, "C"]) -> Float[Array, "K"]:
        return head(jnp.broadcast_to(mean, shape))

    @jax.jit
    def linear() -> PooledLinear:
        bias, pull = jax.vjp(of_mean, jnp.zeros(shape[-1]))
        kernel = jax.lax.map(lambda row: pull(row)[0], jnp.eye(len(bias)), batch_size=16).T
        return PooledLinear(kernel, bias)

    found, passed = linear(), jax.jit(head)
    # On cells of which each counts by itself, as a mean does not see which is where.
    for key in range(3):
        noise = jax.random.normal(jax.random.key(key), shape)
        probe = cells + noise * (jnp.abs(cells).mean() + 1)
        ours, theirs = found(probe), passed(probe)
        if not jnp.abs(ours - theirs).max() <= _SAME * jnp.maximum(1, jnp.abs(theirs).max()):
            return None
    return found


def _check_same(ours: Float[Array, "K"], theirs: Float[Array, "K"]) -> None:
    """Raise InputError unless the classifier has the model's logits."""
    if not bool(jnp.isfinite(theirs).all()):
        raise InputError("model: expected logits that are numbers, got NaN or infinite ones")
    if len(theirs) > 1 and bool((theirs >= 0).all()) and abs(float(theirs.sum()) - 1) < 1e-4:
        raise InputError(
            "head: expected logits, got probabilities, which are positive and sum to 1; leave the "
            "softmax away (Keras: classifier_activation=None)"
        )
    off = float(jnp.abs(ours - theirs).max())
    if not off <= _SAME * max(1.0, float(jnp.abs(theirs).max())):
        raise InputError(
            f"model: expected the same logits from its two parts, they differ by {off}"
        )
