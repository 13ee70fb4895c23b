"""A classifier cut in two: features (image -> cells, context) and head (both -> logits)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fgvce_jax.checks import check_cells
from fgvce_jax.config import MOST
from fgvce_jax.errors import InputError
from fgvce_jax.heads import SearchHead, searchable
from fgvce_jax.models.pytree import fit_for_jit

_STATIC = {"static": True}


class FeatureMap(NamedTuple):
    """Images at the cut.

    Attributes:
        cells: [B, n, n, C].
        context: The rest that the head needs of each image and no edit touches, a transformer's
            class token for instance: arrays with leading axis B, or None.
    """

    cells: Float[Array, "B n n C"]
    context: Any = None

    @classmethod
    def of(cls, out: Any) -> FeatureMap:
        """From the result of a classifier's features: cells, or cells and context."""
        return cls(*jax.tree.map(jnp.asarray, out if isinstance(out, tuple) else (out,)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Backbone:
    """A Flax NNX feature extractor with its weights laid open, so that they travel as arguments.

    Calling it maps images, float [B, H, W, 3] in [0, 1], to cells, float32 [B, n, n, C], or to
    cells and context where the module does, in inference mode. Normalisation by `mean` and `std`
    is part of it.

    Attributes:
        params: The trainable weights, an `nnx.State`.
        stats: Everything else the module holds (BatchNorm statistics), an `nnx.State`.
        mean: Per-channel mean of the training images, float32 [3], in units of [0, 1].
        std: Per-channel standard deviation, float32 [3].
        graphdef: The module's static structure.
    """

    params: nnx.State
    stats: nnx.State
    mean: Float[Array, "3"]
    std: Float[Array, "3"]
    graphdef: nnx.GraphDef = field(metadata=_STATIC)

    @classmethod
    def from_module(cls, module: nnx.Module, mean: Any, std: Any) -> Backbone:
        """Split `module`, whose call maps normalised images [B, H, W, 3] to cells (and context)."""
        graphdef, params, stats = nnx.split(module, nnx.Param, ...)
        return cls(params, stats, jnp.float32(mean), jnp.float32(std), graphdef)

    def module(self) -> nnx.Module:
        """The NNX module again, holding these weights."""
        return nnx.merge(self.graphdef, self.params, self.stats, copy=True)

    def __call__(self, images: Float[ArrayLike, "B H W 3"]) -> Any:
        """Cells (and context) in inference mode."""
        module = self.module()
        module.eval()
        return self._run(module, images)

    def train(self, images: Float[ArrayLike, "B H W 3"]) -> tuple[Any, Backbone]:
        """The same in training mode, and the backbone with its BatchNorm statistics moved on."""
        module = self.module()
        module.train()
        out = self._run(module, images)
        module.eval()
        _, params, stats = nnx.split(module, nnx.Param, ...)
        return out, replace(self, params=params, stats=stats)

    def astype(self, dtype: Any) -> Backbone:
        """The same backbone computing in `dtype` (float32 or bfloat16); cells stay float32."""

        def cast(leaf: Array) -> Array:
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return replace(
            self, params=jax.tree.map(cast, self.params), stats=jax.tree.map(cast, self.stats)
        )

    def _run(self, module: nnx.Module, images: Float[ArrayLike, "B H W 3"]) -> Any:
        dtype = jax.tree.leaves(self.params)[0].dtype
        normalised = ((jnp.asarray(images) - self.mean) / self.std).astype(dtype)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), module(normalised))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """Two functions and what a user needs to know of them; a pytree, so it can enter `jax.jit`.

    Attributes:
        features: Images, float32 [B, H, W, 3] in [0, 1], to cells, float32 [B, n, n, C], or to
            a pair of cells and context (see `FeatureMap`). It normalises the images itself.
        head: Cells [..., n, n, C], and the context where there is one, to logits [..., K]: a head
            of `fgvce_jax.heads`, or any function.
        num_classes: K.
        image_size: Height and width of the images it expects, in pixels.
        class_names: K names; "0", "1", ... when not given.
        resize_to: Length in pixels to which an image's short side is resized before the centre
            crop of `image_size`; None resizes to `image_size` directly.
        spec: How to build the same architecture again (`fgvce_jax.models.ModelSpec`); None for
            functions of the user's own, which cannot be saved as a checkpoint.

    A `features` or `head` that is a pytree (every one of this package, or a module of Equinox)
    passes its arrays into jitted functions as arguments. A plain function is taken as it is, and
    arrays it captures become constants of the compiled program; give such weights as a
    `jax.tree_util.Partial`.
    """

    features: Callable[[Any], Any]
    head: Callable[..., Any]
    num_classes: int = field(metadata=_STATIC)
    image_size: int = field(metadata=_STATIC)
    class_names: tuple[str, ...] = field(default=(), metadata=_STATIC)
    resize_to: int | None = field(default=None, metadata=_STATIC)
    spec: Any = field(default=None, metadata=_STATIC)

    def __post_init__(self):
        if not 1 <= self.num_classes <= MOST:
            raise InputError(f"num_classes {self.num_classes}: expected 1 to {MOST}")
        for name in ("features", "head"):
            function = getattr(self, name)
            if callable(function):
                object.__setattr__(self, name, fit_for_jit(name, function))
        names = tuple(self.class_names) or tuple(str(k) for k in range(self.num_classes))
        if len(names) != self.num_classes:
            raise InputError(f"class_names: expected {self.num_classes} names, got {len(names)}")
        object.__setattr__(self, "class_names", names)

    def __repr__(self) -> str:
        what = type(self.features).__name__ if self.spec is None else self.spec.arch
        more = ", ..." * (self.num_classes > 3)
        return (
            f"Classifier: {what}, {self.num_classes} classes ({', '.join(self.class_names[:3])}"
            f"{more}), images of {self.image_size} x {self.image_size} pixels"
        )

    def __call__(self, images: ArrayLike) -> Float[Array, "B K"]:
        """Logits of images, float32 [B, H, W, 3] in [0, 1]."""
        return self.logits(self.feature_map(images))

    def feature_map(self, images: ArrayLike) -> FeatureMap:
        """Images, float32 [B, H, W, 3] in [0, 1], at the cut."""
        return FeatureMap.of(self.features(images))

    def logits(self, feature_map: FeatureMap) -> Float[Array, "B K"]:
        """Logits of images at the cut."""
        cells, context = feature_map
        return self.head(cells) if context is None else self.head(cells, context)

    def astype(self, dtype: Any) -> Classifier:
        """The same classifier with its backbone computing in `dtype`; the head stays float32."""
        if not hasattr(self.features, "astype"):
            raise InputError(
                f"features of type {type(self.features).__name__} have no dtype to change"
            )
        return replace(self, features=self.features.astype(dtype))


def mean_colour(clf: Classifier) -> Float[Array, "3"]:
    """The colour that the classifier's normalisation turns to 0, in [0, 1].

    Black for features without a `mean` of their own, such as a user's functions.
    """
    return jnp.asarray(getattr(clf.features, "mean", jnp.zeros(3)), jnp.float32)


@jax.jit
def feature_map_of(clf: Classifier, images: Float[ArrayLike, "B H W 3"]) -> FeatureMap:
    """The images at the cut, checked.

    Raises:
        InputError: Cells that are not square, or a head that makes something else than
            `num_classes` logits of them.
    """
    out = clf.feature_map(images)
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), out)
    num_classes = check_cells(clf.head, *first)
    if num_classes != clf.num_classes:
        raise InputError(f"head: expected {clf.num_classes} classes' logits, got {num_classes}")
    return out


def head_of(clf: Classifier, feature_map: FeatureMap) -> SearchHead:
    """The head of one image at the cut (without the axis B), ready to be searched."""
    return searchable(clf.head).bind(feature_map.context, feature_map.cells)
