"""A maximum over shifted images is XLA's max-pool, ties and borders included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgvce_jax.models.pooling import max_pool


@pytest.mark.parametrize(("size", "padding"), [(3, 1), (2, 0), (3, 0), (2, 1)])
@pytest.mark.parametrize("shape", [(2, 8, 7, 3), (1, 5, 6, 2)])
def test_values_and_gradients(size, padding, shape):
    rng = np.random.default_rng(size + padding)
    x = jnp.float32(rng.integers(-2, 3, shape))  # many ties

    def theirs(x):
        return nnx.max_pool(x, (size, size), strides=(2, 2), padding=((padding, padding),) * 2)

    expected, pull = jax.vjp(theirs, x)
    result, our_pull = jax.vjp(lambda x: max_pool(x, size, padding), x)
    np.testing.assert_array_equal(result, expected)
    cotangent = rng.normal(size=expected.shape).astype(np.float32)
    np.testing.assert_allclose(our_pull(cotangent)[0], pull(cotangent)[0], atol=1e-6)


def test_not_a_number_is_passed_on_and_accelerators_keep_xlas(monkeypatch):
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 1] = x[0, 2, 2] = np.nan
    x = jnp.asarray(x)
    assert np.isnan(max_pool(x, 2, 0)[0, :, :, 0]).tolist() == [[True, False], [False, True]]
    assert "reduce_window_max" not in str(jax.make_jaxpr(lambda x: max_pool(x, 2, 0))(x))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "reduce_window_max" in str(jax.make_jaxpr(lambda x: max_pool(x, 2, 0))(x))
