"""Candidates followed as far as they reach, held to whole passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fgvce_jax as fg
from fgvce_jax.heads import Dense, Direct, PooledLinear
from fgvce_jax.models.chain_head import ChainHead
from fgvce_jax.models.layers import Chain, MaxPool
from fgvce_jax.models.local import local_form
from fgvce_jax.models.resnet import BasicBlock, Bottleneck
from fgvce_jax.partition import gaussian_kernels, with_no_mask
from fgvce_jax.search import counterfactual

CHANNELS, CLASSES = 16, 5
PROBLEMS = 200


def blocks(*kinds, **options):
    """Residual blocks of stride 1 on 16 channels."""
    width = {BasicBlock: CHANNELS, Bottleneck: CHANNELS // 4}
    rngs = nnx.Rngs(0)
    units = {
        str(i): kind(CHANNELS, width[kind], 1, jax.nn.relu, rngs, **options)
        for i, kind in enumerate(kinds)
    }
    return Chain(units)


def projecting():
    """A block whose shortcut has layers of its own."""
    return Chain({"0": Bottleneck(CHANNELS, 8, 1, jax.nn.relu, nnx.Rngs(0))})


# The layers behind the cut, the cells per side, and whether the changes are followed.
CASES = {
    "one bottleneck": (lambda: blocks(Bottleneck), 4, True),
    "two bottlenecks": (lambda: blocks(Bottleneck, Bottleneck), 6, True),
    "window as large as the map": (lambda: blocks(Bottleneck, Bottleneck), 5, True),
    "window too large": (lambda: blocks(*[Bottleneck] * 3), 6, False),
    "grouped": (lambda: blocks(Bottleneck, groups=2), 4, True),
    "wide": (lambda: blocks(Bottleneck, widening=2), 4, True),
    "basic": (lambda: blocks(BasicBlock), 6, True),
    "projection": (projecting, 4, True),
    "pool": (lambda: Chain({"0": MaxPool(2)}), 6, True),
    "pool of an odd number": (lambda: Chain({"0": MaxPool(2)}), 5, False),
}


def behind(chain, n, rng):
    """The layers with random statistics and a head that can be convinced, and its whole passes."""
    outputs = jax.eval_shape(chain, jax.ShapeDtypeStruct((1, n, n, CHANNELS), "float32")).shape

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        if "var" in name or "scale" in name:
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(0, 0.3, leaf.shape)

    if isinstance(next(iter(chain.units.values())), MaxPool):
        head = Dense(
            jnp.float32(rng.normal(0, 0.2, (*outputs[1:], 12))),
            jnp.float32(rng.normal(0, 0.2, 12)),
            ((jnp.float32(rng.normal(0, 1, (12, CLASSES))), jnp.zeros(CLASSES)),),
        )
    else:
        kernel = jnp.float32(rng.normal(0, 2, (outputs[-1], CLASSES)))
        head = PooledLinear(kernel, jnp.zeros(CLASSES))
    head = ChainHead.from_chain(chain, head)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.float32(fill(path, leaf)) if "'head'" not in str(path) else leaf,
        head,
    )


@pytest.mark.parametrize("case", CASES)
def test_a_change_reaches_what_whole_passes_reach(case):
    make, n, followed = CASES[case]
    rng = np.random.default_rng(0)
    head = behind(make(), n, rng)
    chain = head.module()
    layers = [chain.units[name] for name in chain.order]
    assert (local_form(layers, head.head, n) is not None) == followed

    @jax.jit
    def both(rows, kernels, cells, placed):
        """Probabilities of every candidate and under every mask, after each of some edits."""
        out = []
        for form in (head, Direct(head)):
            edited, masks = rows, form.under_masks(rows, kernels)
            found = [masks.logits]
            for cell in cells:
                found.append(form.substituted(edited, cell, placed))
                masks = form.under_masks_after(masks, edited, kernels, cell, placed[0])
                edited = edited.at[cell].set(placed[0])
                found.append(masks.logits)
            out.append(jax.nn.softmax(jnp.concatenate(found)))
        return out

    kernels = with_no_mask(gaussian_kernels(n, 0.8))
    for index in range(PROBLEMS):
        rows = np.maximum(rng.normal(size=(n * n, CHANNELS)), 0) * rng.uniform(0.5, 2)
        placed = np.maximum(rng.normal(size=(7, CHANNELS)), 0) * rng.uniform(0.5, 4)
        cells = jnp.array([index, 3 * index + 1]) % (n * n)
        with jax.default_matmul_precision("highest"):
            ours, whole = both(jnp.float32(rows), kernels, cells, jnp.float32(placed))
        np.testing.assert_allclose(ours, whole, atol=1e-5)


@pytest.mark.parametrize("case", ["two bottlenecks", "pool"])
def test_the_search_makes_the_same_edits(case):
    make, n, _ = CASES[case]
    rng = np.random.default_rng(1)
    head = behind(make(), n, rng)

    def searching(form):
        return jax.jit(
            lambda cells, target, candidates: counterfactual(
                form, cells, target, candidates, fg.SearchConfig(max_iterations=6)
            )
        )

    local_search, whole_search = searching(head), searching(Direct(head))
    edits = 0
    for _ in range(20):
        cells = jnp.float32(np.maximum(rng.normal(size=(n, n, CHANNELS)), 0))
        candidates = jnp.float32(np.maximum(rng.normal(size=(9, CHANNELS)), 0) * 3)
        target = jnp.array(rng.integers(CLASSES))
        ours, whole = (form(cells, target, candidates) for form in (local_search, whole_search))
        np.testing.assert_array_equal(ours.edit_cell, whole.edit_cell)
        np.testing.assert_array_equal(ours.edit_candidate, whole.edit_candidate)
        np.testing.assert_allclose(ours.p_target, whole.p_target, atol=1e-5)
        edits += int(ours.num_edits)
    assert edits > 20
