import numpy as np
import pytest

from fgvce_jax.metrics import localisation

N, SIZE = 4, 16  # cells of 4 x 4 pixels: masks grow by 2


def masks():
    """Part 0: a pixel at row 3, column 4. Part 1: the bottom row. Part 2: not visible."""
    out = np.zeros((3, SIZE, SIZE), bool)
    out[0, 3, 4] = True
    out[1, 15] = True
    return out


def at(row, column, height=1.0):
    values = np.zeros((SIZE, SIZE), np.float32)
    values[row, column] = height
    return values


@pytest.mark.parametrize(
    ("row", "column", "hit"), [(3, 4, 1), (5, 6, 1), (1, 2, 1), (6, 4, 0), (3, 7, 0), (15, 4, 0)]
)
def test_the_peak_hits_within_half_a_cell(row, column, hit):
    out = localisation(at(row, column), masks(), np.array([True, False, True]), N)
    assert out.hit == hit
    assert out.energy == hit
    np.testing.assert_allclose(out.area, 25 / 256)


def test_energy_is_the_share_inside():
    values = at(3, 4, 3.0) + at(10, 10, 4.0) + at(15, 0, 1.0) + at(8, 8, -5.0)
    both = localisation(values, masks(), np.array([True, True, False]), N)
    np.testing.assert_allclose(both.energy, 0.5)  # 3 + 1 of 8
    assert both.hit == 0  # the peak is the 4 outside
    np.testing.assert_allclose(both.area, (25 + 3 * 16) / 256)


def test_a_map_of_cells_is_upsampled():
    values = np.zeros((N, N), np.float32)
    values[3, 1] = 1
    out = localisation(values, masks(), np.array([False, True, False]), N)
    # Weights along the rows of cell 3: 1/8, 3/8, 5/8, 7/8, then 1 and 1; the mask has the last 3.
    u = np.array([1, 3, 5, 7, 8, 8])
    np.testing.assert_allclose(out.energy, u[3:].sum() / u.sum(), rtol=1e-6)
    assert out.hit == 1


def test_a_map_without_a_positive_value():
    out = localisation(-at(3, 4), masks(), np.array([True, True, False]), N)
    assert out.hit == 0
    assert out.energy == 0


def test_nothing_to_point_at():
    out = localisation(at(3, 4), masks(), np.array([False, False, True]), N)
    assert np.isnan(out.hit)
    assert np.isnan(out.energy)
    assert np.isnan(out.area)
