"""The additive form of a head that norms what it pooled is its plain form, by whole passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.heads import Direct, PoolNormLinear


def head_and_cells(seed, n=4, channels=7, classes=5, count=9):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.float32(rng.normal(size=shape))

    head = PoolNormLinear(
        1 + 0.3 * draw(channels), draw(channels), draw(channels, classes), draw(classes)
    )
    return head, draw(n, n, channels), draw(count, channels)


def by_hand(head, cells):
    """In float64, a cell's norm written out."""
    pooled = np.float64(cells).mean((0, 1))
    normed = (pooled - pooled.mean()) / np.sqrt(pooled.var() + head.epsilon)
    return (normed * head.scale + head.shift) @ np.float64(head.kernel) + head.bias


def test_logits_are_those_of_the_definition():
    head, cells, _ = head_and_cells(0)
    np.testing.assert_allclose(head(cells), by_hand(head, cells), atol=1e-5)
    np.testing.assert_allclose(
        head(jnp.stack([cells, 2 * cells])[None]),
        [[by_hand(head, cells), by_hand(head, 2 * cells)]],
        atol=1e-5,
    )


def test_masked_and_replaced_cells_are_whole_passes():
    head, cells, candidates = head_and_cells(1)
    kernels = jnp.float32(np.random.default_rng(2).uniform(size=(16, 16)))
    rows = head.rows(cells)
    np.testing.assert_allclose(head.logits(rows), by_hand(head, cells), atol=1e-5)
    masked = head.masked(rows, kernels)
    for index, kernel in enumerate(kernels):
        expected = by_hand(head, cells * (1 - kernel).reshape(4, 4, 1))
        np.testing.assert_allclose(masked[index], expected, atol=1e-4)
    placed = head.place(candidates, head.prepare(candidates), jnp.int32(6))
    replaced = head.substituted(rows, jnp.int32(6), placed)
    for index, candidate in enumerate(candidates):
        changed = cells.at[1, 2].set(candidate)
        np.testing.assert_allclose(replaced[index], by_hand(head, changed), atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_the_edits_of_whole_passes(seed):
    head, cells, candidates = head_and_cells(10 + seed)
    target = int(np.argsort(np.asarray(head(cells)))[-2])
    search = jax.jit(fg.counterfactual)
    ours = search(head, cells, target, candidates)
    plain = search(
        Direct(jax.tree_util.Partial(head.__class__.__call__, head)), cells, target, candidates
    )
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)
