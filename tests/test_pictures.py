import base64
import io

import numpy as np
import pytest
from PIL import Image

from fgvce_jax.pictures import PALETTES, Window, data_uri, intensity, overlay, patch, window


def cell_image(n: int, scale: int) -> np.ndarray:
    """An image [n * scale, n * scale, 3] whose cell (i, j) has the colour (20 i, 20 j, 100)."""
    i, j = np.mgrid[:n, :n]
    cells = np.stack([20 * i, 20 * j, np.full((n, n), 100)], axis=-1).astype(np.uint8)
    return cells.repeat(scale, axis=0).repeat(scale, axis=1)


def test_windows():
    assert window(2 * 7 + 4, 7) == Window(x=3, y=1, side=3, column=4, row=2)
    assert window(0, 7) == Window(x=0, y=0, side=3, column=0, row=0)
    assert window(48, 7) == Window(x=4, y=4, side=3, column=6, row=6)
    assert window(6, 7) == Window(x=4, y=0, side=3, column=6, row=0)
    assert window(7 * 14 + 3, 14) == Window(x=0.5, y=4.5, side=6, column=3, row=7)
    assert window(3, 2) == Window(x=0, y=0, side=2, column=1, row=1)
    assert window(5, 4) == Window(x=0, y=0, side=3, column=1, row=1)


@pytest.mark.parametrize("cell", [0, 9, 24, 34, 48])
def test_a_patch_shows_the_cell_and_its_neighbours(cell):
    image = cell_image(7, 16)
    shown = window(cell, 7)
    got = np.asarray(patch(image, cell, 7))
    assert got.shape == (48, 48, 3)
    y, x = int(shown.y), int(shown.x)
    np.testing.assert_array_equal(got, image[y * 16 : (y + 3) * 16, x * 16 : (x + 3) * 16])
    centre = got[int((shown.row - y + 0.5) * 16), int((shown.column - x + 0.5) * 16)]
    assert centre.tolist() == [20 * (cell // 7), 20 * (cell % 7), 100]


def test_a_patch_between_cells():
    """14 x 14 cells: the window starts half a cell in, and the cell is in its middle."""
    image = cell_image(14, 8)
    got = np.asarray(patch(image, 7 * 14 + 3, 14))
    assert got.shape == (48, 48, 3)
    assert got[24, 24].tolist() == [140, 60, 100]
    np.testing.assert_array_equal(got[6:42, 6:42], image[42:78, 10:46])


def bilinear(values: np.ndarray, size: int) -> np.ndarray:
    """Upsampling written out: sample centres at half integers, borders repeated."""
    n = len(values)
    out = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            for axis in range(4):
                v, u = (y + 0.5) * n / size - 0.5, (x + 0.5) * n / size - 0.5
                i, j = int(np.floor(v)) + axis // 2, int(np.floor(u)) + axis % 2
                weight = (1 - abs(v - i)) * (1 - abs(u - j))
                out[y, x] += weight * values[np.clip(i, 0, n - 1), np.clip(j, 0, n - 1)]
    return out


def test_intensity_is_clipped_upsampled_and_scaled():
    values = np.random.default_rng(0).normal(size=(5, 5))
    wanted = bilinear(np.maximum(values, 0), 20)
    np.testing.assert_allclose(intensity(values, 20), wanted / wanted.max(), atol=1e-6)
    assert not intensity(-np.ones((5, 5)), 20).any()


@pytest.mark.parametrize("colors", PALETTES)
def test_overlay_peaks_where_the_map_does(colors):
    values = np.full((7, 7), -1.0)
    values[2, 5] = 3
    values[6, 0] = 1.5
    rgba = np.asarray(overlay(values, colors, 70).convert("RGBA")).astype(int)
    alpha = rgba[..., 3]
    peaks = np.argwhere(alpha == alpha.max())
    assert (peaks // 10 == [2, 5]).all()
    assert alpha.max() == round(0.9 * 255)
    # pixel centres lie 1/20 of a cell beside the cells' own; beyond the border a cell is repeated
    ratio = 1.5 * 0.95 / (3 * 0.95**2)
    assert alpha[65, 5] == pytest.approx(0.9 * ratio**0.8 * 255, abs=2)
    assert alpha[20:50, 5:30].max() == 0
    highest = list(bytes.fromhex(PALETTES[colors][-1][1:]))
    np.testing.assert_allclose(rgba[tuple(peaks[0])][:3], highest, atol=1)


def test_a_map_of_zeros_is_transparent():
    assert not np.asarray(overlay(np.zeros((7, 7)), "invariant").convert("RGBA"))[..., 3].any()


def decode(uri: str) -> Image.Image:
    head, data = uri.split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower()};base64"
    return image


def test_data_uris_hold_the_picture():
    image = cell_image(8, 4)
    np.testing.assert_array_equal(np.asarray(decode(data_uri(Image.fromarray(image)))), image)
    large = cell_image(7, 32)
    got = np.asarray(decode(data_uri(Image.fromarray(large)))).astype(int)
    assert np.abs(got - large).mean() < 3
    shown = overlay(np.eye(7), "dominant")
    got = decode(data_uri(shown)).convert("RGBA")
    np.testing.assert_array_equal(np.asarray(got), np.asarray(shown.convert("RGBA")))
