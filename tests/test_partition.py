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


def test_a_cell_that_speaks_against_the_class_contributes_negatively():
    head = fg.PooledLinear(np.float32([[0.0, 4.0]]), np.float32([0.0, 0.0]))
    got = np.asarray(fg.contributions(head, np.ones((2, 2, 1), np.float32), 0, sigma=0))
    assert np.all(got < -0.01)
