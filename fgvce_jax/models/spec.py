"""Which architecture, and where it is cut: enough to build a classifier again."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from fgvce_jax.config import LARGEST_SIDE
from fgvce_jax.errors import InputError
from fgvce_jax.heads import CalmHead
from fgvce_jax.models.architecture import IMAGENET_MEAN, IMAGENET_STD, Architecture
from fgvce_jax.models.classifier import Backbone, Classifier
from fgvce_jax.models.convnext import CONVNEXTS
from fgvce_jax.models.efficientnet import EFFICIENTNETS
from fgvce_jax.models.layers import Chain
from fgvce_jax.models.resnet import RESNETS, small_resnet
from fgvce_jax.models.swin import SWINS
from fgvce_jax.models.vgg import VGGS
from fgvce_jax.models.vit import VITS, small_vit

NETWORKS = RESNETS | VGGS | EFFICIENTNETS | CONVNEXTS | VITS | SWINS
SMALL = {"small_resnet": small_resnet, "small_vit": small_vit}
ARCHITECTURES = (*SMALL, *NETWORKS)
_MOST_STAGES, _WIDEST, _MOST_BLOCKS = 8, 65_536, 200


@dataclass(frozen=True)
class ModelSpec:
    """An architecture; its fields are JSON values.

    Attributes:
        arch: One of `ARCHITECTURES`.
        cut: Where features end and the head begins. None is after the last stage (a pooled head),
            a VGG's last max-pool (a dense head) or a transformer's final norm, or before the last
            block of a transformer whose class token is read. Earlier, the head is the rest of the
            network: after the block or stage of that name, as "layer4.0" or "layer3" of a ResNet,
            "blocks.9" of a ViT; "conv" before a VGG's last max-pool ("pool" is the same as None).
            `cuts` lists them.
        widths: Channels of each stage of small_resnet or small_vit.
        blocks: Blocks of each stage; the last stage's are a transformer's in small_vit.
        stem_stride: Stride before the first of these stages: 1, 2 or 4. Each later stage doubles
            it, so the defaults turn 112 pixels into 7 cells.
        head: "own", the architecture's, or "calm" (`fgvce_jax.heads.CalmHead`) in its place.
        epsilon: Added to the variance in a transformer's norms; None leaves the architecture's.

    Raises:
        InputError: An unknown architecture or cut, or stages that cannot be built.
    """

    arch: str = "small_resnet"
    cut: str | None = None
    widths: tuple[int, ...] = (48, 96, 192)
    blocks: tuple[int, ...] = (1, 1, 1)
    stem_stride: int = 4
    head: str = "own"
    epsilon: float | None = None

    def __post_init__(self):
        if self.arch not in ARCHITECTURES:
            near = difflib.get_close_matches(self.arch, ARCHITECTURES, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            known = ", ".join(ARCHITECTURES)
            raise InputError(f"arch {self.arch!r}: expected one of {known}{hint}")
        _check_stages(self.widths, self.blocks)
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if self.stem_stride not in (1, 2, 4):
            raise InputError(f"stem_stride {self.stem_stride}: expected 1, 2 or 4")
        if self.head not in ("own", "calm"):
            raise InputError(f"head {self.head!r}: expected own or calm")
        known = self.architecture
        if self.head == "calm" and known.positions is not None:
            raise InputError(f"head 'calm': {self.arch} has none, expected a convolutional network")
        if self.epsilon is not None:
            _check_epsilon(self.epsilon, self.arch, known)
        if self.cut is not None and self.cut not in self.cuts:
            raise InputError(
                f"cut {self.cut!r}: expected one of {', '.join(self.cuts)} for {self.arch}"
            )

    @property
    def architecture(self) -> Architecture:
        """The network's description."""
        if self.arch in SMALL:
            known = SMALL[self.arch](self.widths, self.blocks, self.stem_stride)
        else:
            known = NETWORKS[self.arch]
        if self.epsilon is not None and known.with_epsilon is not None:
            return known.with_epsilon(self.epsilon)
        return known

    @property
    def cuts(self) -> tuple[str, ...]:
        """The values `cut` may take, first to last."""
        return tuple(self.architecture.cuts)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value is not None or name == "cut"
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_dict`."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"model description: unknown fields {', '.join(unknown)}")
        return cls(**values)

    def first_of_head(self, names: Sequence[str]) -> int:
        """How many of the units called `names` belong to the features."""
        if self.cut is None:
            return len(names)
        after = self.architecture.cuts[self.cut]
        last = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{after}.")][-1]
        return last + 1


def _check_epsilon(epsilon: Any, arch: str, known: Architecture) -> None:
    if known.with_epsilon is None:
        raise InputError(f"epsilon {epsilon!r}: expected none for {arch}")
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise InputError(f"epsilon {epsilon!r}: expected a number between 0 and 1")


def _check_stages(widths: Any, blocks: Any) -> None:
    """Raise InputError for stages that nobody builds: their number alone would take minutes."""
    where = f"widths {widths!r}, blocks {blocks!r}"
    for values in (widths, blocks):
        whole = isinstance(values, list | tuple) and all(type(value) is int for value in values)
        if not whole:
            raise InputError(f"{where}: expected whole numbers, one a stage")
    if len(widths) != len(blocks) or min((*widths, *blocks), default=0) < 1:
        raise InputError(f"{where}: expected as many, all at least 1")
    if len(widths) > _MOST_STAGES or max(widths) > _WIDEST or sum(blocks) > _MOST_BLOCKS:
        raise InputError(
            f"{where}: expected at most {_MOST_STAGES} stages, {_WIDEST} channels a stage and "
            f"{_MOST_BLOCKS} blocks in all"
        )


def build(
    spec: ModelSpec,
    num_classes: int,
    image_size: int,
    key: Key[Array, ""],
    *,
    class_names: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize_to: int | None = None,
    activation: Callable[[Any], Any] = jax.nn.relu,
) -> Classifier:
    """A classifier with fresh weights (He fan-out; the cut does not change them).

    Args:
        spec: The architecture.
        num_classes: K.
        image_size: Height and width of its images, in pixels.
        key: A PRNG key.
        class_names: K names, or none.
        mean: Per-channel mean of the images, in units of [0, 1]; the architecture's by default.
        std: Per-channel standard deviation; likewise.
        resize_to: Short side before the centre crop; None resizes to `image_size` directly.
        activation: The function in the place of every ReLU, the head's included.

    Raises:
        InputError: Images too small to leave one cell.
    """
    features, head = _initialise(spec, num_classes, image_size, activation, key)
    known = spec.architecture
    features = replace(
        features,
        mean=jnp.float32(known.mean if mean is None else mean),
        std=jnp.float32(known.std if std is None else std),
    )
    return Classifier(features, head, num_classes, image_size, tuple(class_names), resize_to, spec)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _initialise(
    spec: ModelSpec,
    num_classes: int,
    image_size: int,
    activation: Callable[[Any], Any],
    key: Key[Array, ""],
) -> tuple[Backbone, Any]:
    if not 1 <= image_size <= LARGEST_SIDE:
        raise InputError(
            f"image_size {image_size}: expected at least 1 pixel, at most {LARGEST_SIDE}"
        )
    # XLA's own generator: with the default one, ResNet-50 takes twice as long to compile.
    fast = jax.random.wrap_key_data(jax.random.bits(key, (4,), jnp.uint32), impl="rbg")
    rngs = _keys(fast)
    known = spec.architecture
    if image_size % known.multiple:
        raise InputError(
            f"image_size {image_size}: expected a multiple of {known.multiple} for {spec.arch}"
        )
    units = known.units(activation, rngs, image_size)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    # JAX would print the modules of a chain that it is given as the function, for its messages.
    out = jax.eval_shape(lambda images: Chain(units)(images), images)
    cells = jax.tree.leaves(out)[0].shape[1:]
    if 0 in cells:
        raise InputError(f"image_size {image_size}: too small for {spec.arch}")
    if spec.head == "calm":
        head = CalmHead.create(rngs.params(), cells[-1], num_classes)
    else:
        head = known.head(cells, num_classes, activation, rngs)
    names = tuple(units)
    first = spec.first_of_head(names)
    if first < len(names):
        head = known.rest(Chain({name: units[name] for name in names[first:]}), head)
    features = Chain({name: units[name] for name in names[:first]})
    return Backbone.from_module(features, IMAGENET_MEAN, IMAGENET_STD), head


def _keys(key: Key[Array, ""]) -> nnx.Rngs:
    """`nnx.Rngs(params=key)`, whose keys are numbered outside of the trace.

    Its own counter is a variable, and each of its updates takes a trace of the backbone a few
    milliseconds.
    """
    count, out = itertools.count(), nnx.Rngs()
    setattr(out, "params", lambda: jax.random.fold_in(key, next(count)))  # noqa: B010
    return out


def template(
    spec: ModelSpec,
    num_classes: int,
    image_size: int,
    activation: Callable[[Any], Any] = jax.nn.relu,
) -> Classifier:
    """The result of `build`, with shapes and dtypes in the place of arrays."""
    return jax.eval_shape(
        lambda key: build(spec, num_classes, image_size, key, activation=activation),
        jax.random.key(0),
    )


def require_spec(clf: Classifier) -> ModelSpec:
    """How the classifier is built; an `InputError` if it is not one of this package."""
    if clf.spec is None:
        raise InputError("classifier: made of functions of the user's own, expected one of ours")
    return clf.spec


def with_activation(clf: Classifier, activation: Callable[[Any], Any]) -> Classifier:
    """The same classifier and weights with every ReLU replaced, in the features and in the head.

    Args:
        clf: A classifier of this package.
        activation: An elementwise function, e.g. a ReLU with another gradient.

    Raises:
        InputError: The classifier is made of the user's own functions.
    """
    other = template(require_spec(clf), clf.num_classes, clf.image_size, activation)
    rebuilt = jax.tree.unflatten(jax.tree.structure(other), jax.tree.leaves(clf))
    return replace(rebuilt, class_names=clf.class_names, resize_to=clf.resize_to)
