"""The classifier that a training starts from: fresh, or with weights and the last layer anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from fgvce_jax.config import ModelConfig
from fgvce_jax.errors import InputError
from fgvce_jax.heads import (
    CalmHead,
    ClassToken,
    Dense,
    PooledLinear,
    PooledTokens,
    PoolNormLinear,
)
from fgvce_jax.models.chain_head import ChainHead
from fgvce_jax.models.checkpoint import open_classifier
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.models.spec import ModelSpec, build, require_spec


def initial_classifier(
    config: ModelConfig,
    class_names: Sequence[str],
    key: Key[Array, ""],
    head: Literal["own", "calm"] = "own",
) -> Classifier:
    """The classifier of `config` for these classes, before the first step.

    Fresh from an architecture alone; otherwise with its weights, as `for_classes` fits them.
    InputError for neither an architecture nor a checkpoint, a cut, or weights that do not fit.
    """
    if config.cut is not None:
        raise InputError(
            f"model.cut {config.cut!r}: expected none in training; cut when explaining"
        )
    if config.arch is None and config.checkpoint is None and config.factory is None:
        raise InputError("model: expected arch, checkpoint or factory, got none")
    if config.arch is None or config.checkpoint is not None or config.weights is not None:
        return for_classes(open_classifier(config), class_names, key, head)
    shape = {"widths": config.widths, "blocks": config.blocks, "stem_stride": config.stem_stride}
    spec = ModelSpec(config.arch, **shape, head=head)
    size = config.image_size or spec.architecture.evaluated[0]
    return build(
        spec, len(class_names), size, key, class_names=class_names, resize_to=config.resize_to
    )


def for_classes(
    clf: Classifier, class_names: Sequence[str], key: Key[Array, ""], head: Literal["own", "calm"]
) -> Classifier:
    """`clf` for these classes: its backbone, and its head where that has their number and kind.

    Otherwise the architecture's own head starts with a fresh last layer, CALM's all anew.
    InputError for the user's own functions, or a cut by which the head is more than last layers.
    """
    spec, count = require_spec(clf), len(class_names)
    if spec.head == head and clf.num_classes == count:
        return replace(clf, class_names=tuple(class_names))
    if head == "own":
        new = fresh_head(clf.head, count, key)
    elif isinstance(clf.head, ChainHead):
        raise _cut(clf.head, count)
    else:
        image = jax.ShapeDtypeStruct((1, clf.image_size, clf.image_size, 3), jnp.float32)
        new = CalmHead.create(key, jax.eval_shape(clf.features, image).shape[-1], count)
    return replace(
        clf,
        head=new,
        spec=replace(spec, head=head),
        num_classes=count,
        class_names=tuple(class_names),
    )


def fresh_head(head: Any, num_classes: int, key: Key[Array, ""]) -> Any:
    """`head` with its last layer drawn anew (normal, deviation 0.01) for `num_classes` classes."""

    def layer(inputs: int) -> tuple[Array, Array]:
        return 0.01 * jax.random.normal(key, (inputs, num_classes)), jnp.zeros(num_classes)

    if isinstance(head, PooledLinear):
        return PooledLinear(*layer(len(head.kernel)))
    if isinstance(head, PooledTokens):
        return PooledTokens(*layer(len(head.kernel)))
    if isinstance(head, ClassToken):
        # The same for each token that is read: what they read differs.
        return replace(head, outputs=tuple(layer(len(kernel)) for kernel, _ in head.outputs))
    if isinstance(head, PoolNormLinear):
        kernel, bias = layer(len(head.kernel))
        return replace(head, kernel=kernel, bias=bias)
    if isinstance(head, Dense):
        return replace(head, layers=(*head.layers[:-1], layer(len(head.layers[-1][0]))))
    raise _cut(head, num_classes)


def _cut(head: Any, num_classes: int) -> InputError:
    return InputError(
        f"head {type(head).__name__}: expected an uncut model's to train on {num_classes} classes"
    )
