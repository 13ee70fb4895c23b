import numpy as np
import pytest

from fgvce_jax.metrics import extent

# A 2 x 2 map over 4 x 4 pixels. Along an axis the upsampled weights of the right (lower) cell are
# 0, 1/4, 3/4, 1, so the upsampled map [[0, 0], [0, 8]] is 8 * u_i * u_j.
VALUES = np.float32([[0, -3], [0, 8]])
U = np.array([0, 0.25, 0.75, 1])


def test_region_keypoints_and_contribution_by_hand():
    upsampled = 8 * np.outer(U, U)
    region = upsampled > 4  # of the four pixels at the bottom right: 8, 6, 6 and 4.5
    assert region.sum() == 4
    keypoints = np.float32(
        [
            [2.5, 2.5, 1],  # inside: pixel (2, 2)
            [3.9, 2.0, 1],  # inside: pixel (3, 2)
            [3.5, 3.5, 0],  # inside, but not visible
            [1.9, 3.5, 1],  # a pixel to the left
            [4.2, 3.0, 1],  # outside the image
        ]
    )
    contributions = np.float32([[0, 0], [0, 1]])
    out = extent(VALUES, contributions, keypoints, (4, 4))
    assert out.pixels == 4
    assert out.keypoints == 2
    np.testing.assert_allclose(out.contribution, np.outer(U, U)[region].mean(), rtol=1e-6)


def test_a_map_without_a_positive_value_has_no_region():
    out = extent(-np.abs(VALUES), VALUES, np.zeros((1, 3), np.float32), (4, 4))
    assert out.pixels == 0
    assert out.keypoints == 0
    assert np.isnan(out.contribution)


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (0, 2, True),
        (2, 0, True),
        (-0.01, 2, False),
        (2, -0.01, False),
        (5.99, 2, True),
        (2, 3.99, True),
        (6, 2, False),
        (2, 4, False),
    ],
)
def test_a_keypoint_counts_from_the_first_pixel_to_the_last(x, y, inside):
    """The region is the whole image, 4 high and 6 wide, so that only the borders decide."""
    everywhere = np.ones((2, 2), np.float32)
    out = extent(everywhere, everywhere, np.float32([[x, y, 1]]), (4, 6))
    assert out.pixels == 24
    assert out.keypoints == inside


def test_a_keypoint_is_looked_up_by_row_and_column():
    """The region is the right half of an image of 4 x 6 pixels."""
    right = np.float32([[0, 1], [0, 1]])
    right_top, left_bottom = np.float32([[[5, 0, 1]], [[0, 3, 1]]])
    assert extent(right, right, right_top, (4, 6)).keypoints == 1
    assert extent(right, right, left_bottom, (4, 6)).keypoints == 0
