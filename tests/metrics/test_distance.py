import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.metrics import counterfactual_distance

CELLS = jnp.zeros((2, 2, 2))
TWIN = CELLS.at[0, 1].set(jnp.array([3.0, 4.0]))


def test_distance_by_hand():
    def of(edited):
        return float(counterfactual_distance(CELLS, edited, TWIN))

    assert of(CELLS) == 1
    assert of(TWIN) == 0
    assert of(CELLS.at[0, 1, 0].set(3.0)) == np.float32(0.8)  # 4 of 5 are left
    # The right cell, and 12 too much in another one: 13 instead of 5 without the first.
    assert of(CELLS.at[1, 1, 0].set(12.0)) == np.float32(2.6)
    assert of(TWIN.at[1, 1, 0].set(12.0)) == np.float32(2.4)


def test_distance_in_double_precision():
    cells, edited, twin = np.random.default_rng(0).normal(size=(3, 4, 7, 7, 32))
    axes = (1, 2, 3)
    expected = np.sqrt(((edited - twin) ** 2).sum(axes) / ((cells - twin) ** 2).sum(axes))
    batch = (jnp.array(x, jnp.float32) for x in (cells, edited, twin))
    ours = jax.jit(jax.vmap(counterfactual_distance))(*batch)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_no_distance_where_nothing_differs():
    assert np.isnan(counterfactual_distance(CELLS, TWIN, CELLS))
