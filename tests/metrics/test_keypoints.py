import numpy as np
import pytest

from fgvce_jax.metrics import keypoint_agreement, merged_sides, summarise_agreement
from fgvce_jax.metrics.keypoints import chance_agreement, parts_in_cell

N, SIZE = 4, 40  # cells of 10 x 10 pixels


def centre(row, column, visible=1):
    return [column * 10 + 5.0, row * 10 + 5.0, visible]


def test_which_cell_a_keypoint_lies_in():
    points = np.float32([[19.9, 0, 1], [20, 0, 1], [25, 9.9, 0], [29.9, 9.9, 1], [25, 10, 1]])
    found = parts_in_cell(points, 2, N, SIZE)  # row 0, column 2: x in [20, 30), y in [0, 10)
    np.testing.assert_array_equal(found, [False, True, False, True, False])


def test_agreement_by_hand():
    # Part 0 in cell (0, 0) = 0, part 1 in cell (1, 2) = 6, part 2 hidden in cell (3, 3) = 15.
    query = np.float32([centre(0, 0), centre(1, 2), centre(3, 3, 0)])
    # In the candidates' image: part 0 in cell 5, part 1 in cell 5 as well, part 2 in cell 2.
    candidate = np.float32([centre(1, 1), centre(1, 1), centre(0, 2)])
    edits = [  # replaced, its replacement, Near-KP, Same-KP
        (0, 5, 1, 1),  # part 0 for parts 0 and 1
        (6, 2, 1, 0),  # part 1 for part 2
        (6, 9, 0.5, 0),  # part 1 for background
        (15, 5, 0.5, 0),  # what is hidden does not count
        (1, 9, 0, 0),
        (-1, 5, np.nan, np.nan),
    ]
    old, new, near, same = map(np.array, zip(*edits, strict=True))
    candidates = np.repeat(candidate[None], len(edits), 0)
    ours = keypoint_agreement(query, candidates, old, new, N, SIZE)
    np.testing.assert_array_equal(ours[0], near)
    np.testing.assert_array_equal(ours[1], same)


CUB = (
    *("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing"),
    *("nape", "right eye", "right leg", "right wing", "tail", "throat"),
)


def test_cub_has_twelve_parts_once_its_sides_are_merged():
    parts = merged_sides(CUB)
    assert len(set(parts)) == 12
    assert parts == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 6, 7, 8, 10, 11)


def test_the_other_side_is_the_same_part_where_sides_are_merged():
    """As the authors' code has it: maps of parts over cells, left and right in one map."""
    rng = np.random.default_rng(0)
    parts = merged_sides(CUB)
    edits = 40
    query, *candidates = (
        np.float32([centre(*rng.integers(0, N, 2), rng.integers(0, 2)) for _ in CUB])
        for _ in range(1 + edits)
    )
    old, new = rng.integers(0, N * N, (2, edits))
    merged = keypoint_agreement(query, np.stack(candidates), old, new, N, SIZE, parts)
    apart = keypoint_agreement(query, np.stack(candidates), old, new, N, SIZE)

    def maps(points):
        held = np.zeros((12, N * N), bool)
        for part, (x, y, visible) in zip(parts, points, strict=True):
            held[part, int(y // 10) * N + int(x // 10)] |= visible > 0
        return held

    mine = maps(query)
    for t, points in enumerate(candidates):
        theirs = maps(points)
        same = (mine[:, old[t]] & theirs[:, new[t]]).any()
        near = (int(mine[:, old[t]].any()) + int(theirs[:, new[t]].any())) / 2
        assert merged[0][t] == near
        assert merged[1][t] == same
    assert merged[1].sum() > apart[1].sum() > 0
    np.testing.assert_array_equal(merged[0], apart[0])


def test_means_over_first_and_all_edits():
    nan = np.nan
    near = np.array([[1, 0.5, nan], [0, nan, nan], [nan, nan, nan], [0.5, 0.5, 0.5]])
    same = np.array([[1, 0, nan], [0, nan, nan], [nan, nan, nan], [0, 0, 1]])
    assert summarise_agreement(near, same) == {
        "first_edits": 3,
        "near_kp_first": 50.0,
        "same_kp_first": pytest.approx(100 / 3),
        "all_edits": 6,
        "near_kp_all": 50.0,
        "same_kp_all": pytest.approx(100 / 3),
    }


def test_no_edits_no_means():
    nothing = np.full((2, 3), np.nan)
    assert summarise_agreement(nothing, nothing)["near_kp_all"] is None


def test_chance_is_the_mean_over_all_pairs_of_cells():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(0, 12, (3, 6, 2)), rng.random((3, 6, 1)) < 0.8], -1)
    points, parts = np.float32(points), (0, 1, 1, 2, 0, 3)
    near, same = chance_agreement(points[0], points[1:], 3, 12, parts)
    old, new = (np.ravel(x) for x in np.meshgrid(np.arange(9), np.arange(9)))
    for k, candidate in enumerate(points[1:]):
        repeated = np.broadcast_to(candidate, (81, 6, 3))
        every = keypoint_agreement(points[0], repeated, old, new, 3, 12, parts)
        assert near[k] == pytest.approx(float(np.mean(every[0])))
        assert same[k] == pytest.approx(float(np.mean(every[1])))
        assert 0 < same[k] < near[k] < 1
