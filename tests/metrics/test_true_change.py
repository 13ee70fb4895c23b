import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.metrics import true_change, truly_changed


def test_change_is_the_distance_of_each_cell():
    cells = jnp.array([[[1.0, 1.0], [0.0, 2.0]], [[5.0, -1.0], [0.0, 0.0]]])
    twin = jnp.array([[[1.0, 1.0], [3.0, 6.0]], [[-1.0, 7.0], [0.0, -5.5]]])
    change = true_change(cells, twin)
    np.testing.assert_allclose(change, [[0, 5], [10, 5.5]], rtol=1e-6)
    # More than half of 10: the 5 is not.
    np.testing.assert_array_equal(truly_changed(change), [[False, False], [True, True]])


def test_many_channels_as_in_double_precision():
    cells, twin = np.random.default_rng(0).normal(size=(2, 5, 3, 3, 64)).astype(np.float32)
    expected = np.sqrt(((twin.astype(float) - cells.astype(float)) ** 2).sum(-1))
    change = jax.jit(jax.vmap(true_change))(jnp.array(cells), jnp.array(twin))
    np.testing.assert_allclose(change, expected, rtol=1e-6)


def test_nothing_changed():
    cells = jnp.ones((2, 2, 3))
    change = true_change(cells, cells)
    assert not change.any()
    assert not truly_changed(change).any()
