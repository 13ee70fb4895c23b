import numpy as np
import pytest

from fgvce_jax.metrics import at_cells, at_pixels, unit


def test_cells_are_averages_of_their_pixels():
    pixels = np.arange(36, dtype=np.float32).reshape(6, 6)
    expected = [[pixels[:3, :3].mean(), pixels[:3, 3:].mean()]]
    expected += [[pixels[3:, :3].mean(), pixels[3:, 3:].mean()]]
    np.testing.assert_allclose(at_cells(pixels, 2), expected, rtol=1e-6)


def test_a_pixel_on_an_edge_is_shared():
    # Three pixels to two cells: the middle one belongs half to each.
    pixels = np.float32([[0, 3, 9], [0, 3, 9], [0, 3, 9]])
    np.testing.assert_allclose(at_cells(pixels, 2), [[1, 7], [1, 7]], rtol=1e-6)


def test_cells_stay_as_they_are():
    cells = np.float32([[0.1, np.nan], [2, 3]])
    np.testing.assert_array_equal(at_cells(cells, 2), cells)


def test_upsampling_is_bilinear_between_centres():
    row = np.float32([0, 0.25, 0.75, 1]) * 4
    np.testing.assert_allclose(at_pixels(np.float32([[0, 4], [0, 4]]), (4, 4)), [row] * 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([[-1, 2], [1, 4]], [[0, 0.5], [0.25, 1]]), ([[-1, 0], [-3, -2]], [[0, 0], [0, 0]])],
)
def test_unit_maps(values, expected):
    np.testing.assert_array_equal(unit(np.float32(values)), expected)
