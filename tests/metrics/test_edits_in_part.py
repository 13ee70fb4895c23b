import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgvce_jax.metrics import edits_in_part, localisation

N, SIZE = 4, 16  # cells of 4 x 4 pixels: their middles are pixels 2, 6, 10 and 14


def part(*pixels):
    mask = np.zeros((SIZE, SIZE), bool)
    for row, column in pixels:
        mask[row, column] = True
    return jnp.array(mask)


@pytest.mark.parametrize(
    ("pixel", "inside"),
    [
        ((6, 10), [6]),  # the middle of row 1, column 2
        ((8, 8), [5, 6, 9, 10]),  # dilated by 2, it reaches four middles
        ((8, 7), [5, 9]),
        ((0, 15), [3]),
        ((4, 13), [3, 7]),
    ],
)
def test_cells_whose_middle_lies_in_the_part(pixel, inside):
    ours = edits_in_part(jnp.arange(16), part(pixel), N)
    np.testing.assert_array_equal(np.flatnonzero(ours), inside)
    assert set(ours.tolist()) == {0, 1}


def test_edits_in_their_order():
    ours = edits_in_part(jnp.array([9, 0, 6, -1]), part((6, 10), (10, 6)), N)
    np.testing.assert_array_equal(ours, [1, 0, 1, np.nan])


def test_nothing_to_hit():
    edits = jnp.array([[3, 7], [-1, -1]])
    parts = jnp.stack([part(), part((0, 15))])
    ours = jax.vmap(lambda cells, mask: edits_in_part(cells, mask, N))(edits, parts)
    assert np.isnan(ours).all()


def test_an_image_that_is_not_square():
    mask = jnp.zeros((8, 16), bool).at[5, 14].set(True)  # cells of 2 x 4 pixels, dilated by 1
    np.testing.assert_array_equal(edits_in_part(jnp.array([11, 15, 7]), mask, N), [1, 0, 0])


def test_it_is_the_pointing_hit_of_a_peak_in_the_middle():
    masks = np.random.default_rng(0).random((10, SIZE, SIZE)) < 0.02
    cells = jnp.arange(N * N)
    peaks = jnp.zeros((N * N, SIZE, SIZE))
    peaks = peaks.at[cells, 4 * (cells // N) + 2, 4 * (cells % N) + 2].set(1)
    for mask in jnp.array(masks):
        hits = jax.vmap(lambda peak, m=mask: localisation(peak, m[None], jnp.array([True]), N).hit)
        np.testing.assert_array_equal(edits_in_part(cells, mask, N), hits(peaks))
