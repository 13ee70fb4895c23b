"""The measures of the key on 3 x 3 cells, computed by hand; controls score as they must."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import samples

from fgvce_jax.key.scores import MEASURES, OF_EDITS, OF_MAPS, chance, edit_scores, map_scores

N, SIDE = 3, 9
CHANGE = jnp.array([[0.0, 4.0, 3.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
"""Above half of 4: cells 1 and 2."""
PART = np.zeros((SIDE, SIDE), bool)
PART[0:3, 4] = True
"""Dilated by half a cell, 2 pixels (1.5 rounded to even): columns 2 to 6, rows 0 to 4. The middle
of the cells 0 ... 8 is at rows and columns 1, 4, 7: cells 1 and 4 are inside."""

SAMPLES = samples(part_masks=PART[None, None], part=PART[None], change=np.asarray(CHANGE)[None])


def edits(*cells):
    scores = edit_scores(jnp.array([*cells, *[-1] * (4 - len(cells))]), CHANGE, jnp.array(PART), N)
    return {name: float(score) for name, score in scores.items()}


def test_edits_in_the_true_change_and_in_the_part():
    # Order 2, 4, then the other seven tied: precision 1 for cell 2, 2 of 9 for cell 1.
    assert edits(2, 4) == pytest.approx(
        {
            "edit_changed": 1.0,
            "edit_in_part": 0.0,
            "edits_in_part": 0.5,
            "edit_precision": (1 + 2 / 9) / 2,
        }
    )
    # Cell 4 is in the part but not in the true change; cell 1 second: 1 / 2, cell 2 tied: 2 / 9.
    assert edits(4, 1) == pytest.approx(
        {
            "edit_changed": 0.0,
            "edit_in_part": 1.0,
            "edits_in_part": 1.0,
            "edit_precision": (1 / 2 + 2 / 9) / 2,
        }
    )


def test_without_an_edit_there_is_no_score():
    assert all(np.isnan(score) for score in edits().values())


def test_the_true_order_is_at_the_top():
    assert edits(1, 2)["edit_precision"] == edits(1, 2)["edit_changed"] == 1


def of_map(values, drops=(3.0, 1.0)):
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, :3, :3] = masks[1, 6:, 6:] = True
    scores = map_scores(
        jnp.asarray(values), CHANGE, jnp.array(PART), jnp.array(masks), jnp.array(drops), N
    )
    return {name: float(score) for name, score in scores.items()}


def test_a_map_in_the_true_change_and_in_the_part():
    values = np.zeros((N, N), np.float32)
    values[0, 1], values[2, 2], values[0, 0] = 2, 1, -1
    scores = of_map(values)
    assert scores["peak_changed"] == scores["peak_in_part"] == 1
    # Cell 1 first, cell 8 second, the others, with the negative one, tied at 0: 2 of 9 for cell 2.
    assert scores["precision"] == pytest.approx((1 + 2 / 9) / 2)
    # The map is negative in the first part, whose loss costs most, and positive in the second.
    assert scores["single_deletion"] == -1
    assert of_map(values, (1.0, 3.0))["single_deletion"] == 1


def test_the_energy_is_of_the_upsampled_map():
    """Bilinear weights of a cell's 9 pixels along an axis: 1/3, 2/3, 1, 2/3, 1/3, and at the border
    its outer pixels have 1. Of cell 1 (row 0, column 1) columns 2 to 6 have it all; rows 0 to 4
    have 1, 1, 2/3, 1/3, 0."""
    values = np.zeros((N, N), np.float32)
    values[0, 1] = 5
    assert of_map(values)["energy"] == pytest.approx(1)
    values[:] = 0
    values[2, 1] = 5  # rows 4 ... 8 have 0, 1/3, 2/3, 1, 1: nothing up to row 4
    assert of_map(values)["energy"] == pytest.approx(0)
    values[0, 1] = 5
    assert of_map(values)["energy"] == pytest.approx(0.5)


def test_a_map_that_is_no_map():
    values = np.zeros((N, N), np.float32)
    empty = of_map(values)
    assert empty["peak_changed"] == empty["peak_in_part"] == empty["energy"] == 0
    assert empty["precision"] == pytest.approx(2 / 9)  # all tied: the share
    values[1, 1] = np.nan
    assert all(np.isnan(score) for score in of_map(values).values())


def test_random_maps_score_at_chance():
    """All nine places of a single peak: hits are the shares, exactly."""
    maps = jnp.eye(9).reshape(9, 3, 3)
    masks, drops = jnp.array(PART)[None], jnp.zeros(1)
    scores = jax.vmap(lambda m: map_scores(m, CHANGE, jnp.array(PART), masks, drops, N))(maps)
    of_edits = jax.vmap(lambda c: edit_scores(c[None], CHANGE, jnp.array(PART), N))(jnp.arange(9))
    shares = {name: float(values[0]) for name, values in chance(SAMPLES).items()}
    assert float(scores["peak_changed"].mean()) == pytest.approx(2 / 9) == shares["peak_changed"]
    assert float(of_edits["edit_changed"].mean()) == pytest.approx(shares["edit_changed"])
    assert float(of_edits["edit_in_part"].mean()) == pytest.approx(2 / 9) == shares["edit_in_part"]
    assert shares["energy"] == pytest.approx(25 / 81) == shares["peak_in_part"]


def test_random_orders_have_the_precision_of_chance():
    """All orders of nine cells: the mean precision is that of the hypergeometric distribution,
    sum over ranks of (1 + (r - 1)(R - 1) / (M - 1)) / r / M, above the share of relevant cells."""
    orders = jnp.array(list(itertools.islice(itertools.permutations(range(9)), 0, None, 97)))
    precision = jax.vmap(lambda c: edit_scores(c, CHANGE, jnp.array(PART), N))(orders)
    expected = np.mean([(1 + (r - 1) * 1 / 8) / r for r in range(1, 10)])
    assert float(precision["edit_precision"].mean()) == pytest.approx(expected, abs=0.01)
    assert expected > 2 / 9


def test_every_measure_has_a_column():
    assert set(edits(1)) | {"distance", "edits", "flipped"} == set(OF_EDITS)
    assert set(of_map(np.ones((N, N), np.float32))) == set(OF_MAPS)
    assert set(MEASURES) == set(OF_EDITS) | set(OF_MAPS)
