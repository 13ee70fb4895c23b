"""FG-CAM: a class activation map carried back to finer layers (Qiu et al., "Empowering CAM-Based
Methods with Capability to Generate Fine-Grained and High-Faithfulness Explanations", 2024).

The terms w_c h_c of a map on the last layer are its *relevance*. Layer by layer it is handed to
the inputs, each getting its share of the positive contributions to an output (the z+ rule of
layer-wise relevance propagation), until a finer layer, or the image, is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from fgvce_jax.errors import InputError
from fgvce_jax.methods.cams import WEIGHTINGS, weighted_cells
from fgvce_jax.methods.scorecam import scored_cells
from fgvce_jax.methods.scores import pick
from fgvce_jax.models.classifier import Backbone, Classifier, FeatureMap
from fgvce_jax.models.layers import Activation, Chain, MaxPool
from fgvce_jax.models.resnet import BasicBlock, Bottleneck

RULED = BasicBlock | Bottleneck | nnx.Conv | nnx.BatchNorm | Activation | MaxPool
"""The layers that relevance can be carried through."""

Rule = Callable[[Float[Array, "B h w D"]], Float[Array, "B H W C"]]


def shares(
    plus: Callable[..., Any],
    inputs: tuple[Any, ...],
    relevance: Float[Array, "*shape"],
) -> tuple[Any, ...]:
    """Relevance of the inputs (not negative), in proportion to what each adds to the outputs.

    `plus` gives the positive part of a layer, homogeneous and increasing in each input; its
    derivative is what an input's unit adds. Relevance of an output to which nothing adds is lost.
    """
    outputs, pull = jax.vjp(plus, *inputs)
    gradients = pull(jnp.where(outputs > 0, relevance / jnp.where(outputs > 0, outputs, 1), 0))
    return tuple(x * gradient for x, gradient in zip(inputs, gradients, strict=True))


def positive(
    conv: nnx.Conv, norm: nnx.BatchNorm | None, sign: int = 1
) -> Callable[[Any], Float[Array, "B h w D"]]:
    """The convolution with the positive part of its kernel times `sign`, without its bias.

    The kernel includes the scale of the BatchNorm that follows, if any.
    """
    kernel = sign * conv.kernel[...]
    if norm is not None:
        scale = norm.scale[...]  # pyright: ignore[reportOptionalSubscript]  # never without
        kernel = kernel * scale * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
    kernel = jax.nn.relu(kernel)
    strides: Any = conv.strides  # wider types in flax than what `conv` of this package gives
    padding: Any = conv.padding
    dimensions = ("NHWC", "HWIO", "NHWC")
    groups = conv.feature_group_count
    return lambda x: jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, feature_group_count=groups
    )


def input_rule(conv: nnx.Conv, norm: nnx.BatchNorm | None, x: Float[Array, "B H W 3"]) -> Rule:
    """The rule for inputs of either sign, between the lowest and the highest value of each image.

    An input is held to add W+ (x - low) - W- (high - x), neither term negative.
    """
    above, below = positive(conv, norm), positive(conv, norm, -1)
    low, high = x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True)

    def rule(relevance):
        of_low, of_high = shares(lambda a, b: above(a) + below(b), (x - low, high - x), relevance)
        return of_low + of_high

    return rule


def block_rule(block: BasicBlock | Bottleneck, x: Float[Array, "B H W C"]) -> Rule:
    """The rule for a residual block: its last sum is one layer with two inputs."""
    layers = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block, Bottleneck):
        layers.append((block.conv3, block.bn3))
    inputs = [x]
    for conv, norm in layers[:-1]:
        inputs.append(block.activation(norm(conv(inputs[-1]))))
    branch = positive(*layers[-1])
    shortcut = positive(*block.downsample) if block.downsample else lambda x: x

    def rule(relevance):
        relevance, direct = shares(lambda y, x: branch(y) + shortcut(x), (inputs[-1], x), relevance)
        for layer, y in zip(layers[-2::-1], inputs[-2::-1], strict=True):
            (relevance,) = shares(positive(*layer), (y,), relevance)
        return relevance + direct

    return rule


def rules(
    chain: Chain, x: Float[Array, "B H W 3"]
) -> tuple[Float[Array, "B n n C"], dict[str, Rule]]:
    """The cells of normalised images, and for every unit how its relevance goes to its input."""
    back: dict[str, Rule] = {}
    followers = dict(pairwise(chain.order))
    for name in chain.order:
        unit = chain.units[name]
        if isinstance(unit, BasicBlock | Bottleneck):
            back[name] = block_rule(unit, x)
        elif isinstance(unit, nnx.Conv):
            follower = chain.units[followers[name]]
            norm = follower if isinstance(follower, nnx.BatchNorm) else None
            if name == chain.order[0]:
                back[name] = input_rule(unit, norm, x)
            else:
                plus = positive(unit, norm)
                back[name] = lambda r, plus=plus, x=x: shares(plus, (x,), r)[0]
        elif isinstance(unit, MaxPool):
            back[name] = lambda r, unit=unit, x=x: shares(unit, (x,), r)[0]
        else:  # an activation or a norm: the convolution before has taken it into account
            back[name] = lambda r: r
        x = unit(x)
    return x, back


def units_after(chain: Chain, stage: str | None) -> tuple[str, ...]:
    """Names of the units between `stage` and the cells, first to last."""
    if stage == "input":
        return chain.order
    if stage is None:
        pools = [name for name in chain.order if isinstance(chain.units[name], MaxPool)]
        stage = "layer1" if any(name.startswith("layer1.") for name in chain.order) else pools[1]
    inside = [i for i, name in enumerate(chain.order) if f"{name}.".startswith(f"{stage}.")]
    if not inside:
        expected = f"input, or a layer (or its beginning) of the features: {', '.join(chain.order)}"
        raise InputError(f"stage {stage!r}: expected {expected}")
    return chain.order[inside[-1] + 1 :]


def denoised(relevance: Float[Array, "n n C"]) -> Float[Array, "n n C"]:
    """The relevance made of the first tenth of its singular components.

    Each channel is a row over the cells, centred; the mean is not added again.
    """
    cells = relevance.reshape(-1, relevance.shape[-1])
    kept = int(min(cells.shape) * 0.1)
    left, values, right = jnp.linalg.svd(cells - cells.mean(0), full_matrices=False)
    return ((left[:, :kept] * values[:kept]) @ right[:kept]).reshape(relevance.shape)


@partial(jax.jit, static_argnames=("stage", "base", "chunk", "denoise"))
def fgcam(
    clf: Classifier,
    images: Float[Array, "B H W 3"],
    classes: Int[Array, "B"],
    *,
    stage: str | None = None,
    base: str = "gradcam",
    chunk: int = 64,
    denoise: bool = False,
) -> Float[Array, "B m m"]:
    """ReLU of the relevance summed over the channels of a layer finer than the cells.

    Args:
        stage: The layer after which to stop: "layer1", "layer2.0", "features.9", ..., or "input"
            for the image itself. By default a quarter of the image's resolution: "layer1" of a
            ResNet, the second max-pool of a VGG.
        base: The map whose terms are carried back: gradcam, gradcampp, layercam or scorecam.
        chunk: Masked images in one forward pass (scorecam).
        denoise: Keep only the largest singular components of the map's terms (the first tenth of
            them) before they are carried back: the authors' "FG-CAM with denoising".

    Raises:
        InputError: An unknown stage or base, too few cells or channels to denoise, or no ResNet
            or VGG of this package.
    """
    features = clf.features
    if isinstance(features, Backbone):
        features = features.astype(jnp.float32)  # shares of relevance are lost in bfloat16
    chain = features.module() if isinstance(features, Backbone) else None
    if not isinstance(chain, Chain) or not all(isinstance(u, RULED) for u in chain.units.values()):
        raise InputError("fgcam: needs the layers of a ResNet or VGG of this package")
    chain.eval()
    after = units_after(chain, stage)
    cells, back = rules(chain, (images - features.mean) / features.std)
    if base == "scorecam":
        relevance = scored_cells(clf, images, cells, classes, chunk)
    elif base in WEIGHTINGS:
        score = partial(pick, classes=classes)
        relevance = weighted_cells(WEIGHTINGS[base], clf, FeatureMap(cells), score)
    else:
        raise InputError(f"base {base!r}: expected one of {', '.join([*WEIGHTINGS, 'scorecam'])}")
    if denoise:
        if (rank := min(cells.shape[1] * cells.shape[2], cells.shape[3])) < 10:
            raise InputError(f"denoise: expected 10 or more cells and channels, got {rank}")
        with jax.default_matmul_precision("highest"):
            relevance = jax.vmap(denoised)(relevance)
    for name in reversed(after):
        relevance = back[name](relevance)
    return jax.nn.relu(relevance.sum(-1))
