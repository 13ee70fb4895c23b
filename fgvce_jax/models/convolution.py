"""Convolutions in the form that is fastest where they run.

XLA's convolution is the fastest on accelerators. On a CPU it unrolls every window before one large
matrix product, which a 1 x 1 window has no need of, computes grouped convolutions outside any
matrix product, and takes 3 x 3 windows as they come. `convolve` writes these three as products of
other shapes; the results differ from XLA's by rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
TURNED = ("NHWC", "HWOI", "NHWC")
MERGED_CHANNELS = 32  # channels that one dense convolution takes of several groups
MIN_CHANNELS = 128  # below, the filters' additions cost more than the products they save
MAPPED_CELLS = 28 * 28  # from here on one image's intermediates fill the cache


def convolve(
    inputs: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Pads,
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **options: Any,
) -> Array:
    """`jax.lax.conv_general_dilated`, for `flax.nnx.Conv`'s `conv_general_dilated`.

    The form is chosen by JAX's default backend when the caller is traced.

    Args:
        inputs: [B, H, W, C]; other layouts and dimensions are left to XLA.
        kernel: [h, w, C / groups, D].
        strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
            precision, options: As of `jax.lax.conv_general_dilated`.
    """
    plain = (
        inputs.ndim == 4
        and dimension_numbers == lax.conv_dimension_numbers((0,) * 4, (0,) * 4, CHANNELS_LAST)
        and all(step == 1 for step in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and not any(value is not None for value in options.values())
    )
    if jax.default_backend() == "cpu" and plain:
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(inputs.shape[1:3], kernel.shape[:2], strides, padding)
        pads = tuple((low, high) for low, high in padding)
        return _on_cpu(inputs, kernel, tuple(strides), pads, feature_group_count, precision)
    return lax.conv_general_dilated(
        inputs,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
        **options,
    )


def _on_cpu(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "a b I D"],
    strides: tuple[int, ...],
    pads: Pads,
    groups: int,
    precision: Any,
) -> Float[Array, "B h w D"]:
    window, (inputs, outputs) = kernel.shape[:2], kernel.shape[2:]
    if groups > 1 and inputs == 1:
        return _depthwise(x, kernel, strides, pads)
    if groups > 1 and inputs < MERGED_CHANNELS:
        return _grouped(x, kernel, strides, pads, groups, precision)
    if groups == 1 and window == (1, 1):
        sampled = _padded(x, pads)[:, :: strides[0], :: strides[1]]
        return jnp.matmul(sampled, kernel[0, 0], precision=precision)
    if groups == 1 and window == strides:
        return _patches(_padded(x, pads), kernel, precision)
    three = window == (3, 3) and strides == (1, 1) and x.dtype == jnp.float32
    if groups == 1 and three and min(inputs, outputs) >= MIN_CHANNELS:
        return _three(x, kernel, pads, precision)
    if groups == 1:
        return _dense(x, kernel, strides, pads, precision)
    return _xla(x, kernel, strides, pads, precision, groups=groups)


def _xla(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "a b I D"],
    strides: Sequence[int],
    pads: Pads,
    precision: Any,
    *,
    groups: int = 1,
    turned: bool = False,
) -> Float[Array, "B h w D"]:
    """XLA's convolution; `turned` is how to write one that is going to be transposed.

    The transpose of a convolution swaps the kernel's channels, and a loop's body (integrated
    gradients are one) runs a kernel of swapped channels seven times slower.
    """
    return lax.conv_general_dilated(
        x,
        jnp.swapaxes(kernel, 2, 3) if turned else kernel,
        strides,
        pads,
        dimension_numbers=TURNED if turned else CHANNELS_LAST,
        feature_group_count=groups,
        precision=precision,
    )


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _dense(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "a b C D"],
    strides: tuple[int, ...],
    pads: Pads,
    precision: Any,
) -> Float[Array, "B h w D"]:
    """One group, in XLA's own form."""
    return _xla(x, kernel, strides, pads, precision)


def _dense_jvp(
    strides: tuple[int, ...], pads: Pads, precision: Any, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    x, kernel = primals

    def along(x: Array, kernel: Array, turned: bool) -> Array:
        return _xla(x, kernel, strides, pads, precision, turned=turned)

    return _dense(x, kernel, strides, pads, precision), _product_rule(along, primals, tangents)


_dense.defjvp(_dense_jvp, symbolic_zeros=True)


def _product_rule(
    along: Callable[[Array, Array, bool], Array], primals: Any, tangents: Any
) -> Array:
    """The derivative of a product of `primals`, without the term of a constant."""
    x, kernel = primals
    dx, dkernel = tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(along(dx, kernel, True))
    if not isinstance(dkernel, SymbolicZero):
        terms.append(along(x, dkernel, False))
    return sum(terms[1:], terms[0])


def _padded(x: Float[Array, "B H W C"], pads: Pads) -> Float[Array, "B P Q C"]:
    if not any(map(any, pads)):
        return x
    # A negative width crops, which jnp.pad refuses.
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])


def _patches(
    x: Float[Array, "B H W C"], kernel: Float[Array, "a b C D"], precision: Any
) -> Float[Array, "B h w D"]:
    """Windows side by side: each is a row of one matrix product."""
    rows, columns, inputs, outputs = kernel.shape
    height, width = x.shape[1] // rows, x.shape[2] // columns
    x = x[:, : height * rows, : width * columns]
    x = x.reshape(len(x), height, rows, width, columns, inputs).swapaxes(2, 3)
    x = x.reshape(len(x), height, width, rows * columns * inputs)
    return jnp.matmul(x, kernel.reshape(-1, outputs), precision=precision)


def _depthwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "a b 1 D"], strides: Sequence[int], pads: Pads
) -> Float[Array, "B h w D"]:
    """One channel a group: the sum over the window of shifted images times a weight a channel."""
    rows, columns, _, outputs = kernel.shape
    # XLA would otherwise pad anew for every shift.
    x = lax.optimization_barrier(_padded(x, pads))
    multiplier = outputs // x.shape[-1]
    if multiplier > 1:
        x = jnp.repeat(x, multiplier, axis=-1)
    height = 1 + (x.shape[1] - rows) // strides[0]
    width = 1 + (x.shape[2] - columns) // strides[1]
    shape, parts = (len(x), height, width, outputs), []
    # In `lax`'s own words, as jnp's take most of the time to trace such a network.
    for i in range(rows):
        for j in range(columns):
            last = i + (height - 1) * strides[0] + 1, j + (width - 1) * strides[1] + 1
            shifted = lax.slice(x, (0, i, j, 0), (len(x), *last, outputs), (1, *strides, 1))
            weight = lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, 1, outputs))
            parts.append(lax.mul(shifted, lax.broadcast_in_dim(weight, shape, (0, 1, 2, 3))))
    return reduce(lax.add, parts)


def _grouped(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "a b I D"],
    strides: Sequence[int],
    pads: Pads,
    groups: int,
    precision: Any,
) -> Float[Array, "B h w D"]:
    """Groups taken several at a time by dense convolutions with a block-diagonal kernel."""
    rows, columns, inputs, outputs = kernel.shape
    merged = math.gcd(groups, max(1, MERGED_CHANNELS // inputs))
    blocks = kernel.reshape(rows, columns, inputs, groups // merged, merged, outputs // groups)
    dense = jnp.einsum("abigmo,em->abeigmo", blocks, jnp.eye(merged, dtype=kernel.dtype))
    dense = dense.reshape(rows, columns, merged * inputs, groups // merged, -1)
    parts = [
        _dense(part, dense[:, :, :, index], strides, pads, precision)
        for index, part in enumerate(jnp.split(x, groups // merged, axis=-1))
    ]
    return jnp.concatenate(parts, axis=-1)


def _minimal(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "3 3 C D"],
    pads: Pads,
    precision: Any,
    *,
    turned: bool = False,
) -> Float[Array, "B h w D"]:
    """3 x 3 by minimal filtering along the height: two rows of outputs from four products, not six.

    F(2, 3) of Winograd, "Arithmetic Complexity of Computations", 1980, as Lavin & Gray (CVPR 2016)
    use it. Along one axis its additions are few and its rounding is that of the plain sum.
    """
    (top, bottom), sides = pads
    height = x.shape[1] + top + bottom - 2
    pairs = -(-height // 2)
    x = _padded(x, ((top, bottom + 2 * pairs - height), (0, 0)))
    first, second, third, fourth = (
        lax.slice_in_dim(x, i, i + 2 * pairs - 1, 2, axis=1) for i in range(4)
    )
    above, here, below = kernel[:1], kernel[1:2], kernel[2:]
    products = [
        _xla(part, weights, (1, 1), ((0, 0), sides), precision, turned=turned)
        for part, weights in (
            (first - third, above),
            (second + third, (above + here + below) / 2),
            (third - second, (above - here + below) / 2),
            (second - fourth, below),
        )
    ]
    even = products[0] + products[1] + products[2]
    odd = products[1] - products[2] - products[3]
    both = jnp.stack([even, odd], axis=2)
    return both.reshape(len(x), 2 * pairs, *both.shape[3:])[:, :height]


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _three(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"], pads: Pads, precision: Any
) -> Float[Array, "B h w D"]:
    """`_minimal`, image by image where an image is large enough to fill the cache by itself."""
    if len(x) == 1 or math.prod(x.shape[1:3]) < MAPPED_CELLS:
        return _minimal(x, kernel, pads, precision)
    return lax.map(lambda image: _minimal(image[None], kernel, pads, precision)[0], x)


def _three_jvp(pads: Pads, precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The derivative takes the batch as a whole: a transposed loop of convolutions is slow."""
    x, kernel = primals

    def along(x: Array, kernel: Array, turned: bool) -> Array:
        return _minimal(x, kernel, pads, precision, turned=turned)

    return _three(x, kernel, pads, precision), _product_rule(along, primals, tangents)


_three.defjvp(_three_jvp, symbolic_zeros=True)
