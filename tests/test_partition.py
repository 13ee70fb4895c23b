"""Contributions, held to the float64 reference and to hand computation."""

import jax
import numpy as np
import pytest
import reference
from problems import planted

import fgvce_jax as fg
from fgvce_jax.partition import gaussian_kernels

contributions = jax.jit(fg.contributions, static_argnames="sigma")


@pytest.mark.parametrize("sigma", [0.0, 0.8, 2.5])
@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_contributions_agree_with_the_reference(kind, sigma):
    make = {"pooled": reference.pooled_linear, "dense": reference.dense}[kind]
    rng = np.random.default_rng(0)
    for _ in range(5):
        head, arguments, cells, predicted, _, _ = planted(rng, kind=kind)
        expected = reference.contributions(make(*arguments), np.float64(cells), predicted, sigma)
        for form in (head, fg.Direct(head)):
            got = contributions(form, cells, predicted, sigma)
            np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_contributions_to_a_margin_agree_with_the_reference(kind):
    make = {"pooled": reference.pooled_linear, "dense": reference.dense}[kind]
    rng = np.random.default_rng(1)
    for _ in range(5):
        head, arguments, cells, predicted, target, _ = planted(rng, kind=kind)
        expected = reference.contributions(
            make(*arguments), np.float64(cells), predicted, 0.8, target
        )
        for form in (head, fg.Direct(head)):
            got = contributions(form, cells, predicted, against=target)
            np.testing.assert_allclose(got, expected, atol=1e-4)
        back = contributions(head, cells, target, against=predicted)
        np.testing.assert_allclose(back, -expected, atol=1e-4)
        assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_contributions_are_exact_however_sure_the_classifier_is(kind):
    """Logit gaps of 0 to 40: the map within 1e-3 of its maximum, its first cell the same.

    As a difference of two float32 probabilities the map is 0 from a gap of 20 on.
    """
    make = {"pooled": reference.pooled_linear, "dense": reference.dense}[kind]
    rng = np.random.default_rng(2)
    for gap in np.linspace(0, 40, 41):
        head, arguments, cells, predicted, _, _ = planted(rng, kind=kind)
        logits = make(*arguments)(np.float64(cells))
        others = np.delete(logits, predicted).max()
        lift = np.zeros_like(logits)
        lift[predicted] = others + gap - logits[predicted]
        if kind == "pooled":
            head = fg.PooledLinear(head.kernel, head.bias + np.float32(lift))
            plain = reference.pooled_linear(head.kernel, head.bias)
        else:
            (kernel, bias), *_ = head.layers
            head = fg.Dense(head.kernel, head.bias, ((kernel, bias + np.float32(lift)),))
            plain = reference.dense(head.kernel, head.bias, head.layers)
        expected = reference.contributions(plain, np.float64(cells), predicted, 0.8)
        got = np.asarray(contributions(head, cells, predicted))
        assert np.abs(expected).max() > 0
        assert np.abs(got - expected).max() <= 1e-3 * np.abs(expected).max(), gap
        assert got.argmax() == expected.argmax(), gap


def test_kernels_are_the_gaussians_of_equation_2():
    kernels = np.asarray(gaussian_kernels(4, 0.8)).reshape(4, 4, 4, 4)
    for i in range(4):
        for j in range(4):
            np.testing.assert_allclose(kernels[i, j], reference.gaussian(4, i, j, 0.8), atol=1e-6)


def test_the_hard_mask_removes_one_cell():
    """Two cells, two classes, by hand: masking the only evidence leaves the bias."""
    head = fg.PooledLinear(np.float32([[4.0, 0.0]]), np.float32([0.0, 0.0]))
    cells = np.float32([[[1.0], [0.0]], [[0.0], [0.0]]])
    got = fg.contributions(head, cells, 0, sigma=0)
    whole = 1 / (1 + np.exp(-1.0))  # logits (4 / 4, 0)
    np.testing.assert_allclose(got, [[whole - 0.5, 0], [0, 0]], atol=1e-6)


def test_a_cell_with_evidence_against_the_class_contributes_negatively():
    head = fg.PooledLinear(np.float32([[0.0, 4.0]]), np.float32([0.0, 0.0]))
    got = np.asarray(fg.contributions(head, np.ones((2, 2, 1), np.float32), 0, sigma=0))
    assert np.all(got < -0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_index": 6}, "class 6: expected 0 to 5"),
        ({"class_index": -1}, "class -1: expected 0 to 5"),
        ({"against": 6}, "class 6: expected 0 to 5"),
        ({"class_index": 1.0}, "class: expected an integer"),
        ({"class_index": np.array([1, 2])}, r"class: expected an integer, got int32 \[2\]"),
        ({"sigma": -1.0}, "sigma: expected 0 or more, got -1"),
        ({"sigma": float("nan")}, "sigma: expected 0 or more, got nan"),
        ({"cells": np.zeros((2, 5, 5, 12))}, r"cells: expected \[n, n, C\], got \[2, 5, 5, 12\]"),
        ({"cells": np.zeros((5, 4, 12))}, r"cells: expected \[n, n, C\], got \[5, 4, 12\]"),
        ({"cells": np.zeros((5, 5, 3))}, r"cells \[5, 5, 3\]: expected what the head takes"),
    ],
)
@pytest.mark.parametrize("kind", ["pooled", "dense"])
def test_what_cannot_be_asked_is_named(kind, change, message):
    head, _, cells, predicted, _, _ = planted(np.random.default_rng(0), kind=kind)
    arguments = {"cells": cells, "class_index": predicted} | change
    for form in (head, fg.Direct(head)):
        with pytest.raises(fg.InputError, match=message) as caught:
            fg.contributions(form, **arguments)
        assert "\n" not in str(caught.value)


def test_a_head_that_gives_no_logits_is_named():
    with pytest.raises(fg.InputError, match=r"expected logits \[K\] .* got \[4, 4, 3\]"):
        fg.contributions(lambda cells: cells, np.zeros((4, 4, 3)), 0)


def test_a_traced_class_is_taken_as_it_is():
    head, _, cells, _, _, _ = planted(np.random.default_rng(0))
    every = jax.jit(jax.vmap(fg.contributions, (None, None, 0)))(head, cells, np.arange(6))
    for c in range(6):
        np.testing.assert_allclose(every[c], fg.contributions(head, cells, c), atol=1e-6)
    known = jax.jit(lambda cells: fg.contributions(head, cells, np.int32(3)))(cells)
    np.testing.assert_allclose(known, every[3], atol=1e-6)
