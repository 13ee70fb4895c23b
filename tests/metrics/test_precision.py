import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fgvce_jax.metrics import average_precision, edit_order


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[4, 3], [2, 1]], (1 / 1 + 2 / 3) / 2),  # relevant are the first and the third
        ([[1, 3], [2, 4]], (2 / 4 + 1 / 3) / 2),
        ([[-4, -6], [-5, -7]], (1 + 1) / 2),  # only the order counts
        ([[1, 1], [0, 0]], (1 / 2 + 2 / 4) / 2),  # each at the end of its pair
        ([[7, 7], [7, 7]], 2 / 4),  # a constant map: the share of the relevant
    ],
)
def test_precision_by_hand(scores, expected):
    relevant = jnp.array([[True, False], [True, False]])
    ours = average_precision(jnp.array(scores, jnp.float32), relevant)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_no_cell_is_relevant():
    assert np.isnan(average_precision(jnp.arange(4.0), jnp.zeros(4, bool)))


@pytest.mark.parametrize("levels", [3, 10, 10_000])
def test_precision_is_scikit_learns(levels):
    """With many ties, some, and hardly any."""
    rng = np.random.default_rng(levels)
    scores = rng.integers(-levels, levels, (20, 7, 7)).astype(np.float32)
    relevant = rng.random((20, 7, 7)) < np.linspace(0.1, 0.9, 20)[:, None, None]
    ours = jax.jit(jax.vmap(average_precision))(jnp.array(scores), jnp.array(relevant))
    expected = [
        average_precision_score(r.ravel(), s.ravel()) for r, s in zip(relevant, scores, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_edits_as_a_map():
    ours = edit_order(jnp.array([5, 0, 8, -1]), 3)
    np.testing.assert_array_equal(ours, [[3, 0, 0], [0, 0, 4], [0, 0, 2]])
    np.testing.assert_array_equal(edit_order(jnp.array([-1, -1]), 2), np.zeros((2, 2)))
    again = edit_order(jnp.array([1, 3, 1]), 2)  # the first time counts
    np.testing.assert_array_equal(again, [[0, 3], [0, 2]])


def test_precision_of_edits_by_hand():
    relevant = jnp.zeros((3, 3), bool).at[jnp.array([0, 2, 2]), jnp.array([0, 1, 2])].set(True)

    def of(*edits):
        return float(average_precision(edit_order(jnp.array(edits), 3), relevant))

    # Cells 0, 7 and 8 are relevant; those never edited come last, all nine cells at their end.
    assert of(7, 0, 8, -1, -1) == pytest.approx(1)
    assert of(4, 7, -1, -1, -1) == pytest.approx((1 / 2 + 3 / 9 + 3 / 9) / 3)
    assert of(8, 1, 0, 2, 7) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert of(-1, -1, -1, -1, -1) == pytest.approx(3 / 9)
    assert of(1, 2, 3, 4, 5) == pytest.approx(3 / 9)
