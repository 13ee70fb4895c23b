"""The exhaustive searches, held to loops that try one pair after another in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from problems import planted
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS, cve
from fgvce_jax.search import search_problem


@partial(jax.jit, static_argnames="chunk")
def edits(head, cells, target, candidates, valid=None, chunk=128):
    return cve.cve_edits(search_problem(head, cells, target, candidates, valid), chunk=chunk)


@partial(jax.jit, static_argnames="chunk")
def semantic_edits(head, cells, target, candidates, *auxiliary, chunk=128):
    problem = search_problem(head, cells, target, candidates)
    return cve.cve_semantic_edits(problem, *auxiliary, chunk=chunk)


PLAIN = {"pooled": reference.pooled_linear, "dense": reference.dense}


def one_pair_at_a_time(head, cells, target, candidates, allowed, bonus, max_iterations=100):
    """Returns ([(cell, candidate)], [p_target], edited cells)."""
    h, n = np.float64(cells).copy(), len(cells)
    pairs = [tuple(pair) for pair in np.argwhere(allowed)]
    made, p = [], [reference.softmax(head(h))[target]]
    while np.argmax(head(h)) != target and pairs and len(made) < max_iterations:
        best, best_value = None, -np.inf
        for cell, candidate in pairs:
            trial = h.copy()
            trial[divmod(cell, n)] = candidates[candidate]
            value = np.log(reference.softmax(head(trial))[target]) + bonus[cell, candidate]
            if value > best_value + 1e-9:
                best, best_value = (cell, candidate), value
        h[divmod(best[0], n)] = candidates[best[1]]
        made.append((int(best[0]), int(best[1])))
        p.append(reference.softmax(head(h))[target])
        pairs = [pair for pair in pairs if pair[0] != best[0] and pair[1] != best[1]]
    return made, p, h


def semantic(cells, candidates, weight, temperature, share):
    """(allowed, bonus), a pair at a time."""
    cells = np.float64(cells).reshape(-1, cells.shape[-1])
    alike = np.array([[reference.cosine(u, v) for v in np.float64(candidates)] for u in cells])
    bonus = np.array([np.log(reference.softmax(row / temperature)) for row in alike])
    order = np.argsort(-alike, axis=None, kind="stable")
    allowed = np.zeros(alike.size, bool)
    allowed[order[: int(share * alike.size)]] = True
    return allowed.reshape(alike.shape), weight * bonus


def check(out, expected):
    made, p, h = expected
    count = int(out.num_edits)
    got = np.stack([out.edit_cell[:count], out.edit_candidate[:count]], axis=-1)
    assert [tuple(edit) for edit in got.tolist()] == made
    assert np.all(np.asarray(out.edit_cell)[count:] == -1)
    np.testing.assert_allclose(out.p_target[: count + 1], p, atol=1e-5)
    np.testing.assert_array_equal(out.cells, np.float32(h))
    return count


@pytest.mark.parametrize(("kind", "trials"), [("pooled", 30), ("dense", 5)])
def test_cve_makes_the_edits_of_trying_each_pair_in_turn(kind, trials):
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(trials):
        head, arguments, cells, _, target, candidates = planted(rng, n=4, kind=kind)
        allowed, bonus = np.ones((16, len(candidates)), bool), np.zeros((16, len(candidates)))
        plain = PLAIN[kind](*arguments)
        out = edits(head, cells, target, candidates, chunk=4)
        expected = one_pair_at_a_time(plain, cells, target, candidates, allowed, bonus)
        counts.append(check(out, expected))
        assert bool(out.flipped) == (np.argmax(plain(expected[2])) == target)
    assert max(counts) > 1


@pytest.mark.parametrize(("kind", "trials"), [("pooled", 30), ("dense", 5)])
def test_cve_semantic_makes_the_edits_of_its_definition(kind, trials):
    rng = np.random.default_rng(1)
    for _ in range(trials):
        head, arguments, cells, _, target, candidates = planted(rng, n=4, kind=kind)
        terms = semantic(cells, candidates, 0.4, 0.1, 0.2)
        out = semantic_edits(head, cells, target, candidates, chunk=4)
        check(out, one_pair_at_a_time(PLAIN[kind](*arguments), cells, target, candidates, *terms))


def test_the_kept_share_is_rounded_down_in_double_precision():
    """int(0.29 * 100) is 28, and 0.2 of 144 pairs 28 as well, where the nearest are 29."""
    kept = []
    for cells, valid, share in ((10, 10, 0.29), (16, 9, 0.2), (16, 3, 0.5)):
        kept.append(int(cve.kept_pairs(share, cells, 12)[valid]))
        assert kept[-1] == int(cells * valid * share)
    assert kept == [28, 28, 24]


def test_other_auxiliary_features_decide_which_pairs_are_alike():
    rng = np.random.default_rng(2)
    head, arguments, cells, _, target, candidates = planted(rng, n=4)
    of_cells = rng.normal(size=(4, 4, 3)).astype(np.float32)
    of_candidates = rng.normal(size=(len(candidates), 3)).astype(np.float32)
    out = semantic_edits(
        head,
        cells,
        target,
        candidates,
        of_cells,
        of_candidates,
    )
    plain = reference.pooled_linear(*arguments)
    terms = semantic(of_cells, of_candidates, 0.4, 0.1, 0.2)
    check(out, one_pair_at_a_time(plain, cells, target, candidates, *terms))


def test_the_matrix_product_equals_whole_passes():
    """Also where the logits are far apart, and for a head that is not additive."""
    rng = np.random.default_rng(3)
    for scale in (1.0, 20.0):
        head, _, cells, _, target, candidates = planted(rng, n=4)
        head = fg.PooledLinear(head.kernel * scale, head.bias)
        scores = {}
        for kind in (head, fg.Direct(head)):
            problem = search_problem(kind, cells, target, candidates)
            score = cve.pair_scores(problem, 7)
            scores[type(kind)] = np.asarray(score(problem.rows))
        np.testing.assert_allclose(scores[fg.PooledLinear], scores[fg.Direct], atol=1e-5 * scale)
        out, direct = (edits(kind, cells, target, candidates) for kind in (head, fg.Direct(head)))
        np.testing.assert_array_equal(out.edit_cell, direct.edit_cell)
        np.testing.assert_array_equal(out.edit_candidate, direct.edit_candidate)


def test_ties_go_to_the_lowest_cell_and_then_the_lowest_candidate():
    head = fg.PooledLinear(jnp.float32([[3, 0], [0, 3]]), jnp.float32([0.5, 0]))
    cells = jnp.tile(jnp.float32([1, 0]), (3, 3, 1))
    candidates = jnp.tile(jnp.float32([0, 1]), (20, 1))
    out = edits(head, cells, 1, candidates)
    count = int(out.num_edits)
    assert count == 6
    assert out.edit_cell[:count].tolist() == list(range(count))
    assert out.edit_candidate[:count].tolist() == list(range(count))


def test_running_out_of_candidates_is_a_result():
    rng = np.random.default_rng(4)
    head, _, cells, _, target, candidates = planted(rng, n=4)
    stubborn = fg.PooledLinear(head.kernel, head.bias.at[target].add(-50.0))
    three = np.arange(len(candidates)) < 3
    out = edits(stubborn, cells, target, candidates, valid=three)
    assert int(out.num_edits) == 3  # every candidate once
    assert not bool(out.flipped)
    none = edits(head, cells, target, candidates, valid=np.zeros(len(candidates), bool))
    assert int(none.num_edits) == 0


@pytest.fixture(scope="module")
def small():
    model = tiny()
    images, predicted, _ = problems(model, count=60)
    bank = fg.build_bank(
        model.clf, images[10:], predicted[10:], fg.BankConfig(per_class=2, top_m=None)
    )
    targets = np.array([k for k in range(5) if k not in bank.missing()], np.int32)
    contrast = np.array([targets[targets != p][0] for p in predicted[:10]], np.int32)
    return model, images, predicted, contrast, bank


def test_the_map_is_what_each_edit_added(small):
    model, images, predicted, contrast, bank = small
    maps = METHODS["cve"](model.clf, images[:10], predicted[:10], contrast, bank=bank)
    steps = []
    for image, q, ours in zip(images[:10], contrast, maps, strict=True):
        valid = np.asarray(bank.valid[bank.group[q]])
        allowed = np.broadcast_to(valid, (16, len(valid)))
        made, p, _ = one_pair_at_a_time(
            model.head,
            model.features(image),
            q,
            np.asarray(bank.cells[bank.group[q]]),
            allowed,
            0.0 * allowed,
        )
        expected = np.zeros(16)
        for (cell, _), gain in zip(made, np.diff(p), strict=True):
            expected[cell] = gain
        np.testing.assert_allclose(ours.reshape(-1), expected, atol=1e-5)
        steps.append(len(made))
    assert max(steps) > 1


def test_auxiliary_features_of_the_bank_are_those_of_its_cells(small):
    model, images, predicted, contrast, bank = small
    of_bank = cve.auxiliary_bank(model.clf.features, bank, images[10:], batch_size=4)
    np.testing.assert_allclose(of_bank, bank.cells, atol=1e-6)
    plain = METHODS["cve_semantic"](model.clf, images[:10], predicted[:10], contrast, bank=bank)
    same = METHODS["cve_semantic"](
        model.clf,
        images[:10],
        predicted[:10],
        contrast,
        bank=bank,
        auxiliary=model.clf.features,
        auxiliary_candidates=of_bank,
    )
    np.testing.assert_allclose(same, plain, atol=1e-6)
    exhaustive = METHODS["cve"](model.clf, images[:10], predicted[:10], contrast, bank=bank)
    assert np.abs(exhaustive - plain).max() > 1e-3
