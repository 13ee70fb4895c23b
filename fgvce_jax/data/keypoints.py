"""Keypoints under the geometric steps of the input pipeline.

A keypoint is (x, y, visible), x and y in pixels from the top left corner, so that they scale as
lengths do and the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def move(
    keypoints: Float[np.ndarray, "P 3"],
    scale: tuple[float, float],
    shift: tuple[float | int, float | int],
    size: tuple[int, int],
) -> Float[np.ndarray, "P 3"]:
    """Keypoints of an image that was resized, then cropped.

    `scale` is new over old width and height, `shift` the pixels cut off at the left and at the top,
    `size` the result's width and height; a point outside it is no longer visible.
    """
    points = np.asarray(keypoints[:, :2], np.float64) * scale - shift
    inside = ((points >= 0) & (points < size)).all(axis=1)
    visible = (keypoints[:, 2] > 0) & inside
    return np.column_stack([points, visible]).astype(np.float32)


def turn_upright(
    keypoints: Float[np.ndarray, "P 3"], orientation: int, width: int, height: int
) -> Float[np.ndarray, "P 3"]:
    """Keypoints of an image as it was stored, moved to where the pixels are once it is upright.

    `orientation` is the stored image's EXIF orientation, 1 to 8 (others count as 1), `width` and
    `height` are those of the upright image.
    """
    x, y, visible = np.asarray(keypoints, np.float32).T
    if orientation in (5, 6, 7, 8):  # stored lying on a side
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return np.column_stack([x, y, visible])
