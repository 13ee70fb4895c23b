"""Contrastive maps by hand; the search's tests hold them to the reference as well."""

import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.contrast import difference_share, weighted_difference


def test_the_share_is_of_the_positive_difference_over_channels():
    before = np.float32([[[3, 0], [1, 1]], [[0, 0], [2, 5]]])
    after = np.float32([[[1, 4], [1, 1]], [[0, 0], [0, 4]]])
    # Positive differences, summed over channels: 2, 0, 0, 2 + 1.
    np.testing.assert_allclose(difference_share(before, after), [[0.4, 0], [0, 0.6]], atol=1e-6)
    np.testing.assert_allclose(difference_share(after, before), [[1, 0], [0, 0]], atol=1e-6)


def test_a_map_without_any_difference_stays_zero():
    cells = np.ones((3, 3, 2), np.float32)
    head = fg.PooledLinear(np.float32([[1, 0], [0, 1]]), np.float32([0, 0]))
    invariant, dominant = fg.contrastive_maps(head, cells, cells, 0, 1)
    np.testing.assert_array_equal(invariant, np.zeros((3, 3)))
    np.testing.assert_array_equal(dominant, np.zeros((3, 3)))


def test_another_attribution_may_be_the_weight():
    before, after = np.float32([[[2], [0]]]), np.float32([[[0], [3]]])
    invariant, dominant = weighted_difference(
        before, after, np.float32([[0.5, 9]]), np.float32([[9, -0.25]])
    )
    np.testing.assert_allclose(invariant, [[0.5, 0]])
    np.testing.assert_allclose(dominant, [[0, -0.25]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": 2}, "class 2: expected 0 to 1"),
        ({"target": -1}, "class -1: expected 0 to 1"),
        ({"after": np.ones((2, 2, 2))}, r"after: expected \[3, 3, 2\] as before, got \[2, 2, 2\]"),
    ],
)
def test_what_cannot_be_contrasted_is_named(change, message):
    cells = np.ones((3, 3, 2), np.float32)
    head = fg.PooledLinear(np.float32([[1, 0], [0, 1]]), np.float32([0, 0]))
    arguments = {"before": cells, "after": cells, "predicted": 0, "target": 1} | change
    with pytest.raises(fg.InputError, match=message):
        fg.contrastive_maps(head, **arguments)
