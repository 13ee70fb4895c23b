import jax
import jax.numpy as jnp
import numpy as np
import reference

from fgvce_jax.heads import PooledLinear
from fgvce_jax.metrics import compactness

N, CHANNELS, CLASSES = 4, 3, 3


def problem():
    rng = np.random.default_rng(3)
    weights = np.float32(3 * rng.normal(size=(CHANNELS, CLASSES))), np.zeros(CLASSES, np.float32)
    cells = rng.uniform(size=(2, N, N, CHANNELS)).astype(np.float32)
    return weights, cells, rng.normal(size=(2, N, N)).astype(np.float32)


def by_the_definition(weights, cells, values, class_index):
    head = reference.pooled_linear(*weights)
    fine = np.maximum(values, 0) / np.maximum(values, 0).max()
    s = reference.contributions(head, np.float64(cells), class_index, 0.8)
    whole = np.maximum(s * np.maximum(cells, 0).sum(-1), 0)
    whole /= whole.max()
    return fine.sum() / whole.sum() * values.size / (fine > 1e-6).sum()


def test_the_score_is_equation_12():
    weights, cells, maps = problem()
    classes = np.int32([0, 2])
    head = PooledLinear(*map(jnp.asarray, weights))
    ours = jax.vmap(compactness, (None, 0, 0, 0))(head, cells, maps, classes)
    expected = [
        by_the_definition(weights, *sample) for sample in zip(cells, maps, classes, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_one_cell_by_hand():
    """With one map cell, C is 1 / sum(g) and P_T / P_A is n^2."""
    weights, cells, _ = problem()
    one = np.zeros((N, N), np.float32)
    one[2, 1] = 0.3
    g = jax.vmap(compactness, (None, 0, None, None))(
        PooledLinear(*map(jnp.asarray, weights)), cells, one, 2
    )
    full = by_the_definition(weights, cells[0], np.ones((N, N)), 2)  # n^2 / sum(g)
    np.testing.assert_allclose(g[0], full, rtol=1e-4)


def test_a_pixel_map_is_scored_at_the_cells():
    weights, cells, maps = problem()
    head = PooledLinear(*map(jnp.asarray, weights))
    pixels = np.kron(maps[0], np.ones((3, 3), np.float32))
    np.testing.assert_allclose(
        compactness(head, cells[0], pixels, 2), compactness(head, cells[0], maps[0], 2), rtol=1e-4
    )


def test_a_cell_is_active_above_a_millionth_of_the_maximum():
    weights, cells, _ = problem()
    head = PooledLinear(*map(jnp.asarray, weights))
    values = np.zeros((N, N), np.float32)
    values[0, :2] = 1, 1e-6
    one_active = compactness(head, cells[0], values, 2)
    values[0, 1] = 1.1e-6
    np.testing.assert_allclose(compactness(head, cells[0], values, 2), one_active / 2, rtol=1e-5)


def test_a_map_without_a_positive_value_scores_0():
    weights, cells, maps = problem()
    head = PooledLinear(*map(jnp.asarray, weights))
    assert compactness(head, cells[0], -np.abs(maps[0]), 2) == 0


def test_a_class_that_nothing_speaks_for_has_no_score():
    weights, cells, maps = problem()
    head = PooledLinear(*map(jnp.asarray, weights))
    s = reference.contributions(reference.pooled_linear(*weights), np.float64(cells[0]), 1, 0.8)
    assert s.max() < 0
    assert np.isnan(compactness(head, cells[0], maps[0], 1))
