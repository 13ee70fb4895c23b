"""Matched evidence, held to float64 NumPy and to a case made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from problems import planted

import fgvce_jax as fg
from fgvce_jax.config import MATCHED, ExplainConfig
from fgvce_jax.matched import matched_evidence
from fgvce_jax.search import search_problem

search = jax.jit(fg.counterfactual, static_argnames="config")
MAKE_REFERENCE = {"pooled": reference.pooled_linear, "dense": reference.dense}


@jax.jit
def evidence(head, cells, predicted, target, rivals, candidates, valid=None, rivals_valid=None):
    problem = search_problem(head, cells, target, candidates, valid, rivals)
    if rivals_valid is not None:
        problem = problem._replace(rivals=problem.rivals._replace(valid=rivals_valid))
    with jax.default_matmul_precision("highest"):
        return matched_evidence(
            problem.head, cells, predicted, problem.target, problem.rivals, problem.candidates
        )


def case(rng, kind):
    """A planted problem and rivals: candidates of another class, a little moved."""
    head, arguments, cells, predicted, target, candidates = planted(rng, kind=kind)
    rivals = candidates[::-1] + np.float32(rng.normal(size=candidates.shape) * 0.3)
    return head, MAKE_REFERENCE[kind](*arguments), cells, predicted, target, candidates, rivals


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_the_evidence_agrees_with_the_reference(kind):
    rng = np.random.default_rng(3)
    for _ in range(3):
        head, plain, cells, predicted, target, candidates, rivals = case(rng, kind)
        expected = reference.matched_evidence(plain, cells, predicted, target, rivals, candidates)
        for form in (head, fg.Direct(head)):
            got = evidence(form, cells, predicted, target, rivals, candidates)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got, expected.reshape(-1), atol=2e-4 * scale)


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_the_search_agrees_with_the_reference(kind):
    rng, several = np.random.default_rng(4), 0
    options = {"lambda_sim": 0.0, "lambda_distance": MATCHED.lambda_distance}
    for _ in range(12):
        head, plain, cells, _, target, candidates, rivals = case(rng, kind)
        h, edits, flipped, p = reference.counterfactual(
            plain, cells, target, candidates, evidence="matched", rivals=rivals, **options
        )
        out = search(head, cells, target, candidates, MATCHED, rivals=rivals)
        made = zip(out.edit_cell.tolist(), out.edit_candidate.tolist(), strict=True)
        assert list(made)[: int(out.num_edits)] == edits
        assert bool(out.flipped) == flipped
        np.testing.assert_allclose(out.p_target[: len(p)], p, atol=1e-5)
        np.testing.assert_array_equal(out.cells, np.float32(h))
        several += len(edits) > 1
    assert several > 3


def by_hand():
    """Two places that look different (channels 2 and 3), of which one tells the classes apart.

    Channel 0 is evidence for P, channel 1 for Q. The background, cells 1 to 3, has more of P's
    evidence than the part, in both classes alike.
    """
    kernel = np.zeros((4, 2), np.float32)
    kernel[0, 0] = kernel[1, 1] = 4
    head = fg.PooledLinear(jnp.asarray(kernel), jnp.zeros(2))
    background, part = [2.0, 0, 0, 5], [1.0, 0, 5, 0]
    cells = np.float32([[part, background], [background, background]])
    of_p = np.float32([part, background])
    of_q = np.float32([[0, 1.0, 5, 0], background])
    return head, cells, of_p, of_q


def test_what_both_classes_show_is_no_evidence():
    """The margin's gradient is (1, -1, 0, 0). The part has 1 in P and -1 in Q, the rest 2 in both.

    (0.3 + 0.7) * 1 + 1 = 2 for the part.
    """
    head, cells, of_p, of_q = by_hand()
    got = evidence(head, cells, 0, 1, of_p, of_q)
    np.testing.assert_allclose(got, [2, 0, 0, 0], atol=1e-5)
    # What the paper's contributions and the margin's say: the background.
    margin = fg.contributions(head, cells, 0, 0.0, against=1).reshape(-1)
    assert int(jnp.argmax(margin)) == 1


def test_without_rivals_the_cells_stand_for_them():
    head, cells, of_p, of_q = by_hand()
    got = evidence(head, cells, 0, 1, of_p, of_q, np.ones(2, bool), np.zeros(2, bool))
    np.testing.assert_allclose(got, [2, 0, 0, 0], atol=1e-5)
    # And a place that is not valid counts for nothing.
    valid = np.array([True, False])
    got = evidence(head, cells, 0, 1, of_p, of_q, valid, np.ones(2, bool))
    np.testing.assert_allclose(got, [2, 3, 3, 3], atol=1e-5)


def test_cells_of_zeros_have_no_direction():
    head, cells, of_p, of_q = by_hand()
    got = evidence(head, 0 * cells, 0, 1, of_p, of_q)
    assert np.isfinite(got).all()
    flat = fg.PooledLinear(jnp.zeros((4, 2)), jnp.zeros(2))
    np.testing.assert_array_equal(evidence(flat, cells, 0, 1, of_p, of_q), np.zeros(4))


def test_what_it_needs_is_named():
    head, cells, of_p, of_q = by_hand()
    with pytest.raises(fg.InputError, match=r"^rivals: expected cells of the predicted class"):
        fg.counterfactual(head, cells, 1, of_q, MATCHED)
    with pytest.raises(fg.InputError, match=r"^rivals: expected \[N, 4\], N of 1 or more"):
        fg.counterfactual(head, cells, 1, of_q, MATCHED, rivals=of_p[:, :2])
    with pytest.raises(fg.InputError, match=r"^bank\.top_m: expected null with matched evidence"):
        ExplainConfig(search=MATCHED)
    bank = fg.BankConfig(top_m=None, reference="all")
    with pytest.raises(fg.InputError, match=r"^bank\.reference: expected class with matched"):
        ExplainConfig(search=MATCHED, bank=bank)
    with pytest.raises(fg.InputError, match="expected predicted or margin here"):
        fg.contrastive_maps(head, cells, cells, 0, 1, MATCHED)
