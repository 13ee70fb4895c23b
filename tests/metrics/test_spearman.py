import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from fgvce_jax.metrics import spearman
from fgvce_jax.metrics.spearman import ranks

ALL = jnp.ones(6, bool)


def test_ranks_by_hand():
    values = jnp.array([0.5, -1.0, 3.0, 0.5, 0.5, 9.0])
    np.testing.assert_array_equal(ranks(values, ALL), [3, 1, 5, 3, 3, 6])
    counted = jnp.array([True, True, True, True, False, True])
    np.testing.assert_array_equal(ranks(values, counted)[counted], [2.5, 1, 4, 2.5, 5])


def test_correlation_by_hand():
    x = jnp.array([10.0, 20.0, 30.0, 40.0])
    assert spearman(x, jnp.array([-5.0, 0.0, 0.1, 900.0])) == 1
    assert spearman(x, -x) == -1
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    np.testing.assert_allclose(spearman(x, jnp.array([2.0, 1.0, 4.0, 3.0])), 0.6, rtol=1e-6)


@pytest.mark.parametrize("levels", [3, 1000])
def test_correlation_is_scipys(levels):
    rng = np.random.default_rng(levels)
    x, y = rng.integers(0, levels, (2, 30, 6)).astype(np.float32)
    counted = rng.random((30, 6)) < 0.8
    ours = jax.jit(jax.vmap(spearman))(jnp.array(x), jnp.array(y), jnp.array(counted))
    checked = 0
    for value, a, b, c in zip(np.asarray(ours), x, y, counted, strict=True):
        if c.sum() < 2 or len(set(a[c])) == 1 or len(set(b[c])) == 1:
            assert np.isnan(value)
            continue
        np.testing.assert_allclose(value, spearmanr(a[c], b[c]).statistic, atol=1e-6)
        np.testing.assert_array_equal(
            np.asarray(ranks(jnp.array(a), jnp.array(c)))[c], rankdata(a[c])
        )
        checked += 1
    assert checked > 15


def test_no_correlation_without_two_different_entries():
    x = jnp.arange(6.0)
    assert np.isnan(spearman(x, jnp.full(6, 2.0)))
    assert np.isnan(spearman(jnp.full(6, 2.0), x))
    assert np.isnan(spearman(x, x, x == 4))
    assert np.isnan(spearman(x, x, x > 9))
