"""The search, held to the float64 reference and the factored heads to the direct one."""

import jax
import numpy as np
import pytest
import reference
from problems import planted

import fgvce_jax as fg

search = jax.jit(fg.counterfactual, static_argnames="config")
maps = jax.jit(fg.contrastive_maps, static_argnames="config")
MAKE_REFERENCE = {"pooled": reference.pooled_linear, "dense": reference.dense}


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_the_search_agrees_with_the_reference_on_planted_problems(kind):
    rng = np.random.default_rng(0)
    edits_seen = []
    for _ in range(100):
        head, arguments, cells, _, target, candidates = planted(rng, kind=kind)
        plain = MAKE_REFERENCE[kind](*arguments)
        h, edits, flipped, p = reference.counterfactual(plain, cells, target, candidates)
        out = search(head, cells, target, candidates)

        count = int(out.num_edits)
        got = list(
            zip(out.edit_cell[:count].tolist(), out.edit_candidate[:count].tolist(), strict=True)
        )
        assert got == edits
        assert bool(out.flipped) == flipped
        assert np.all(np.asarray(out.edit_cell[count:]) == -1)
        assert np.all(np.asarray(out.edit_candidate[count:]) == -1)
        np.testing.assert_allclose(out.p_target[: count + 1], p, atol=1e-5)
        np.testing.assert_array_equal(out.p_target[count:], out.p_target[count])
        np.testing.assert_array_equal(out.cells, np.float32(h))

        before = int(np.argmax(plain(np.float64(cells))))
        edited, of_first = np.float64(cells), []
        for cell, candidate in [(None, None), *edits]:
            if cell is not None:
                edited[divmod(cell, len(edited))] = candidates[candidate]
            of_first.append(reference.softmax(plain(edited))[before])
        np.testing.assert_allclose(out.p_predicted[: count + 1], of_first, atol=1e-5)
        np.testing.assert_array_equal(out.p_predicted[count:], out.p_predicted[count])
        expected = reference.contrastive_maps(plain, np.float64(cells), h, before, target, 0.8)
        for ours, theirs in zip(
            maps(head, cells, out.cells, before, target), expected, strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        edits_seen.append(count)
    assert np.mean(np.array(edits_seen) > 1) > 0.5  # real searches, not one edit each


OPTIONS = [{"evidence": "margin"}, {"shortlist": 4}, {"evidence": "margin", "shortlist": 4}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_the_options_of_the_search_agree_with_the_reference(kind, options):
    rng = np.random.default_rng(9)
    config, others = fg.SearchConfig(**options), 0
    for _ in range(30):
        head, arguments, cells, _, target, candidates = planted(rng, kind=kind)
        plain = MAKE_REFERENCE[kind](*arguments)
        h, edits, flipped, p = reference.counterfactual(plain, cells, target, candidates, **options)
        for form in (head, fg.Direct(head)):
            out = search(form, cells, target, candidates, config)
            made = zip(out.edit_cell.tolist(), out.edit_candidate.tolist(), strict=True)
            assert list(made)[: int(out.num_edits)] == edits
            assert bool(out.flipped) == flipped
            np.testing.assert_allclose(out.p_target[: len(p)], p, atol=1e-5)
        others += edits != reference.counterfactual(plain, cells, target, candidates)[1]

        before, evidence = int(np.argmax(plain(np.float64(cells)))), config.evidence
        expected = reference.contrastive_maps(
            plain, np.float64(cells), h, before, target, 0.8, evidence
        )
        ours = maps(head, cells, out.cells, before, target, config)
        for got, want in zip(ours, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)
    assert others > 5  # the options make a difference


def test_a_shortlist_of_all_candidates_changes_nothing():
    head, _, cells, _, target, candidates = planted(np.random.default_rng(10))
    everyone = search(head, cells, target, candidates)
    for count in (len(candidates), 10**6):
        out = search(head, cells, target, candidates, fg.SearchConfig(shortlist=count))
        np.testing.assert_array_equal(out.edit_candidate, everyone.edit_candidate)


def test_a_shortlist_holds_none_that_is_not_valid():
    head, _, cells, _, target, candidates = planted(np.random.default_rng(7))
    config = fg.SearchConfig(shortlist=5)
    valid = np.arange(len(candidates)) >= len(candidates) - 3  # fewer than the shortlist
    out = search(head, cells, target, candidates, config, valid=valid)
    used = np.asarray(out.edit_candidate[: int(out.num_edits)])
    assert used.size
    assert valid[used].all()


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_the_factored_search_equals_the_direct_one(kind):
    rng = np.random.default_rng(1)
    for _ in range(20):
        head, _, cells, predicted, target, candidates = planted(rng, kind=kind)
        fast = search(head, cells, target, candidates)
        direct = search(fg.Direct(head), cells, target, candidates)
        np.testing.assert_array_equal(fast.edit_cell, direct.edit_cell)
        np.testing.assert_array_equal(fast.edit_candidate, direct.edit_candidate)
        np.testing.assert_allclose(fast.p_target, direct.p_target, atol=1e-5)
        np.testing.assert_allclose(
            fg.contributions(head, cells, predicted),
            fg.contributions(fg.Direct(head), cells, predicted),
            atol=1e-5,
        )


def test_a_plain_function_is_a_head():
    rng = np.random.default_rng(2)
    head, _, cells, _, target, candidates = planted(rng)
    out = fg.counterfactual(lambda cells: head(cells), cells, target, candidates)
    expected = search(head, cells, target, candidates)
    np.testing.assert_array_equal(out.edit_cell, expected.edit_cell)
    np.testing.assert_array_equal(out.edit_candidate, expected.edit_candidate)


def test_an_image_already_of_the_target_gets_no_edits():
    head, _, cells, predicted, _, candidates = planted(np.random.default_rng(3))
    predicted = int(np.argmax(head(cells)))
    out = search(head, cells, predicted, candidates)
    assert int(out.num_edits) == 0
    assert bool(out.flipped)
    np.testing.assert_array_equal(out.cells, cells)


def test_a_limit_is_a_result():
    rng = np.random.default_rng(4)
    head, _, cells, _, target, candidates = planted(rng)
    assert int(search(head, cells, target, candidates).num_edits) > 1
    out = search(head, cells, target, candidates, fg.SearchConfig(max_iterations=1))
    assert int(out.num_edits) == 1
    assert not bool(out.flipped)
    assert out.edit_cell.shape == (1,)


def test_every_cell_is_replaced_at_most_once():
    head, _, cells, _, target, _ = planted(np.random.default_rng(5), n=3)
    useless = np.float32(np.abs(np.random.default_rng(6).normal(size=(4, cells.shape[-1])))) * 1e-3
    stubborn = fg.PooledLinear(head.kernel, head.bias.at[target].add(-50.0))
    out = search(stubborn, cells, target, useless)
    assert sorted(np.asarray(out.edit_cell)) == list(range(9))
    assert not bool(out.flipped)


def test_ties_go_to_the_lowest_index():
    """Two equal candidates and a uniform image: every choice is a tie."""
    head = fg.PooledLinear(np.float32([[1, 0], [0, 1]]), np.float32([0, 0]))
    cells = np.tile(np.float32([1, 0]), (3, 3, 1))
    candidates = np.float32([[0, 3], [0, 3]])
    out = search(head, cells, 1, candidates, fg.SearchConfig(sigma=0))
    count = int(out.num_edits)
    assert out.edit_cell[:count].tolist() == list(range(count))
    assert out.edit_candidate[:count].tolist() == [0] * count


def test_the_cosine_with_an_all_zero_cell_is_zero():
    head = fg.PooledLinear(np.float32([[1, 0], [0, 1]]), np.float32([0.5, 0]))
    cells = np.zeros((2, 2, 2), np.float32)
    out = search(head, cells, 1, np.float32([[0, 0], [0, 5]]))
    assert int(out.num_edits) >= 1
    assert out.edit_similarity[0] == 0
    assert out.edit_candidate[0] == 1  # decided by the class alone


def test_candidates_that_are_not_valid_are_never_used():
    head, _, cells, _, target, candidates = planted(np.random.default_rng(7))
    chosen = search(head, cells, target, candidates).edit_candidate[0]
    valid = np.ones(len(candidates), bool)
    valid[chosen] = False
    out = search(head, cells, target, candidates, valid=valid)
    assert int(chosen) not in out.edit_candidate.tolist()
    none = search(head, cells, target, candidates, valid=np.zeros_like(valid))
    assert int(none.num_edits) == 0
    assert not bool(none.flipped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 6}, "class 6: expected 0 to 5"),
        ({"target": -1}, "class -1: expected 0 to 5"),
        ({"cells": np.zeros((5, 5, 3))}, r"cells \[5, 5, 3\]: expected what the head takes"),
        ({"candidates": np.zeros((4, 3))}, r"expected \[N, 12\], N of 1 or more, got \[4, 3\]"),
        ({"candidates": np.zeros((0, 12))}, r"expected \[N, 12\], N of 1 or more, got \[0, 12\]"),
        ({"candidates": np.zeros(12)}, r"expected \[N, 12\], N of 1 or more, got \[12\]"),
    ],
)
def test_what_cannot_be_searched_is_named(change, message):
    head, _, cells, _, target, candidates = planted(np.random.default_rng(8))
    arguments = {"cells": cells, "target": target, "candidates": candidates} | change
    with pytest.raises(fg.InputError, match=message):
        fg.counterfactual(head, **arguments)
