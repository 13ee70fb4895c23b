"""Every form of a convolution is XLA's convolution, in value and in derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from fgvce_jax.models import convolution
from fgvce_jax.models.convolution import CHANNELS_LAST, convolve
from fgvce_jax.models.layers import conv, gelu

# kernel, inputs, outputs, groups, stride, padding, the form it is to take
PROBLEMS = [
    (1, 6, 5, 1, 1, 0, "matmul"),
    (1, 6, 5, 1, 2, 0, "matmul"),
    (1, 3, 4, 1, 3, 1, "matmul"),
    (4, 3, 6, 1, 4, 0, "_patches"),
    (2, 5, 3, 1, 2, 1, "_patches"),
    (3, 7, 7, 7, 1, 1, "_depthwise"),
    (3, 4, 8, 4, 2, 1, "_depthwise"),
    (5, 6, 6, 6, 2, (1, 2), "_depthwise"),
    (7, 5, 5, 5, 1, 3, "_depthwise"),
    (3, 64, 64, 16, 1, 1, "_grouped"),
    (3, 24, 48, 6, 2, 1, "_grouped"),
    (1, 20, 10, 10, 1, 0, "_grouped"),
    (3, 128, 129, 1, 1, 1, "_minimal"),
    (3, 130, 128, 1, 1, 0, "_minimal"),
    (3, 128, 128, 1, 1, (0, 2), "_minimal"),
    (3, 8, 9, 1, 1, 1, "_dense"),
    (3, 128, 128, 1, 2, 1, "_dense"),
    (2, 6, 4, 1, 1, "SAME", "_dense"),
    (3, 64, 64, 2, 1, 1, "_xla"),
]


def xla(x, kernel, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=CHANNELS_LAST,
        feature_group_count=groups,
        precision="highest",
    )


def dimension_numbers(x, kernel):
    return lax.conv_dimension_numbers(x.shape, kernel.shape, CHANNELS_LAST)


def forms_called(monkeypatch):
    """The names of the forms that are traced from here on."""
    called = []
    for name in ("_patches", "_depthwise", "_grouped", "_minimal", "_dense", "_xla"):
        form = getattr(convolution, name)

        def record(*args, name=name, form=form, **options):
            called.append(name)
            return form(*args, **options)

        monkeypatch.setattr(convolution, name, record)
    return called


@pytest.mark.parametrize(
    ("size", "inputs", "outputs", "groups", "stride", "padding", "form"), PROBLEMS
)
def test_values_and_derivatives(monkeypatch, size, inputs, outputs, groups, stride, padding, form):
    monkeypatch.setattr(convolution, "MAPPED_CELLS", 60)  # some of the problems are mapped
    called = forms_called(monkeypatch)
    rng = np.random.default_rng(size * inputs + stride)
    x = jnp.float32(rng.normal(size=(3, 9, 8, inputs)))
    kernel = rng.normal(size=(size, size, inputs // groups, outputs))
    kernel = jnp.float32(kernel / np.sqrt(size * size * inputs / groups))
    if not isinstance(padding, str):
        padding = [padding if isinstance(padding, tuple) else (padding, padding)] * 2
    strides = (stride, stride)

    def ours(x, kernel):
        return convolve(
            x,
            kernel,
            strides,
            padding,
            dimension_numbers=dimension_numbers(x, kernel),
            feature_group_count=groups,
        )

    def theirs(x, kernel):
        return xla(x, kernel, strides, padding, groups)

    expected, pull = jax.vjp(theirs, x, kernel)
    result, our_pull = jax.vjp(ours, x, kernel)
    assert (called[:1] or ["matmul"]) == [form]
    close = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(result, expected, **close)
    np.testing.assert_allclose(ours(x, kernel), expected, **close)
    cotangent = rng.normal(size=expected.shape).astype(np.float32)
    for mine, other in zip(our_pull(cotangent), pull(cotangent), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5 * np.abs(other).max())
    direction = jnp.float32(rng.normal(size=x.shape))
    _, along = jax.jvp(lambda x: ours(x, kernel), (x,), (direction,))
    np.testing.assert_allclose(along, theirs(direction, kernel), **close)
    np.testing.assert_allclose(jax.vmap(ours, (0, None))(x[None], kernel)[0], expected, **close)


def test_a_minimal_filter_rounds_like_the_plain_sum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 12, 10, 160)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 160, 128)).astype(np.float32)
    exact = np.zeros((2, 10, 8, 128))
    for i in range(3):
        for j in range(3):
            exact += x[:, i : i + 10, j : j + 8].astype(np.float64) @ kernel[i, j]
    result = convolution._minimal(jnp.array(x), jnp.array(kernel), ((0, 0), (0, 0)), None)
    assert np.abs(result - exact).max() < 2e-6 * np.abs(exact).max()


def test_accelerators_and_unusual_convolutions_are_left_to_xla(monkeypatch):
    called = forms_called(monkeypatch)
    x, kernel = jnp.ones((1, 6, 6, 4)), jnp.ones((1, 1, 4, 4))

    def primitives(**options):
        options = {"dimension_numbers": dimension_numbers(x, kernel)} | options
        jaxpr = jax.make_jaxpr(lambda x, k: convolve(x, k, (1, 1), ((0, 0),) * 2, **options))(
            x, kernel
        )
        return [equation.primitive.name for equation in jaxpr.eqns]

    assert "conv_general_dilated" not in primitives()
    assert primitives(lhs_dilation=(2, 2)) == ["conv_general_dilated"]
    assert primitives(preferred_element_type=jnp.float32) == ["conv_general_dilated"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert primitives() == ["conv_general_dilated"]
    assert called == []


def test_layers_are_convolved_by_it():
    layer = conv(4, 6, 1, 2, rngs=nnx.Rngs(0))
    jaxpr = str(jax.make_jaxpr(layer)(jnp.ones((1, 8, 8, 4))))
    assert "dot_general" in jaxpr
    assert "conv_general_dilated" not in jaxpr


def test_gelu_is_jaxs():
    x = jnp.linspace(-9, 9, 2001)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
    slope = jax.vmap(jax.grad(gelu))(x)
    expected = jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x)
    np.testing.assert_allclose(slope, expected, atol=2e-6)
