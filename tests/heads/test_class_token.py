"""The additive head of a class token, held to the definition by whole passes in float64."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.heads import ClassToken, Direct, Tokens
from fgvce_jax.methods import METHODS
from fgvce_jax.models import FeatureMap
from fgvce_jax.partition import gaussian_kernels

N, CHANNELS, HEADS, CLASSES, CANDIDATES = 3, 12, 3, 5, 9


def class_token(rng, read=1):
    """A last block whose attention and classes differ strongly from cell to cell."""

    def pair(*shape, scale=1.0):
        return (
            np.float32(rng.normal(size=shape) * scale / np.sqrt(shape[0])),
            np.float32(rng.normal(size=shape[-1]) * 0.1),
        )

    def norm():
        return np.float32(rng.uniform(0.5, 1.5, CHANNELS)), np.float32(rng.normal(size=CHANNELS))

    return ClassToken(
        norm1=norm(),
        qkv=pair(CHANNELS, 3 * CHANNELS, scale=1.5),
        projection=pair(CHANNELS, CHANNELS),
        scale1=np.float32(rng.uniform(0.5, 1.5, CHANNELS)),
        norm2=norm(),
        layers=(pair(CHANNELS, 20), pair(20, CHANNELS)),
        scale2=np.float32(rng.uniform(0.5, 1.5, CHANNELS)),
        norm=norm(),
        outputs=tuple(pair(CHANNELS, CLASSES, scale=2.0) for _ in range(read)),
        heads=HEADS,
    )


def plain(head, cells, context, mass):
    """Logits in float64, token by token; `mass` is the share of its attention each patch keeps."""

    def norm(x, scale_shift):
        scale, shift = map(np.float64, scale_shift)
        return (x - x.mean()) / np.sqrt(x.var() + head.epsilon) * scale + shift

    def linear(x, layer):
        return x @ np.float64(layer[0]) + np.float64(layer[1])

    width = CHANNELS // HEADS
    tokens = np.concatenate([context, cells.reshape(-1, CHANNELS)]).astype(np.float64)
    share = np.concatenate([np.ones(len(context)), np.reshape(mass, -1)])
    projected = [np.split(linear(norm(t, head.norm1), head.qkv), 3) for t in tokens]
    logits = []
    for r, output in enumerate(head.outputs):
        mixed = []
        for h in range(HEADS):
            part = slice(h * width, (h + 1) * width)
            scores = [projected[r][0][part] @ p[1][part] / np.sqrt(width) for p in projected]
            weight = np.exp(np.array(scores) - max(scores)) * share
            values = np.array([p[2][part] for p in projected])
            mixed.append(weight @ values / weight.sum())
        x = tokens[r] + np.float64(head.scale1) * linear(np.concatenate(mixed), head.projection)
        hidden = linear(norm(x, head.norm2), head.layers[0])
        erf = np.vectorize(math.erf)
        hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
        x = x + np.float64(head.scale2) * linear(hidden, head.layers[1])
        logits.append(linear(norm(x, head.norm), output))
    return np.mean(logits, 0)


@jax.jit
def gain(head, cells, context, target, candidates):
    """log p_target with each candidate in the place of the middle cell."""
    tried = jax.vmap(lambda candidate: head(cells.at[1, 1].set(candidate), context))(candidates)
    return jax.nn.log_softmax(tried)[:, target]


def problem(rng, read=1, special=1):
    """(head, cells, context, target, candidates); candidates suit the target, more or less."""
    head = jax.tree.map(jnp.asarray, class_token(rng, read))
    context = jnp.float32(rng.normal(size=(special, CHANNELS)) * 2)
    cells = jnp.float32(rng.normal(size=(N, N, CHANNELS)) * 2)
    pool = jnp.float32(rng.normal(size=(60, CHANNELS)) * 2)
    target = int(rng.integers(CLASSES))
    best = np.argsort(-np.asarray(gain(head, cells, context, target, pool)))
    return head, cells, context, target, pool[np.sort(best[:CANDIDATES])]


@pytest.mark.parametrize(("read", "special"), [(1, 1), (2, 2), (1, 5)])
def test_the_plain_call_is_the_definition(read, special):
    rng = np.random.default_rng(0)
    head, cells, context, *_ = problem(rng, read, special)
    mass = rng.uniform(0.01, 1, (N, N))
    expected = plain(head, cells, context, mass)
    np.testing.assert_allclose(head(cells, context, jnp.log(mass)), expected, atol=2e-5)
    np.testing.assert_allclose(
        head(cells[None], context[None])[0], plain(head, cells, context, np.ones(9)), atol=2e-5
    )


@pytest.mark.parametrize(("read", "special"), [(1, 1), (2, 2), (1, 5)])
@pytest.mark.parametrize("sigma", [0.8, 0])
def test_contributions_mask_the_attention_mass(read, special, sigma):
    rng = np.random.default_rng(1)
    head, cells, context, target, _ = problem(rng, read, special)
    got = fg.contributions(head.bind(context, cells), cells, target, sigma)

    def p(mass):
        z = plain(head, cells, context, mass)
        return np.exp(z - z.max())[target] / np.exp(z - z.max()).sum()

    kernels = np.asarray(gaussian_kernels(N, sigma), np.float64)
    expected = [p(np.ones(9)) - p(1 - kernel) for kernel in kernels]
    np.testing.assert_allclose(got.reshape(-1), expected, atol=1e-5)


def test_a_mask_before_the_norm_is_another_thing():
    """h (1 - G) is undone by the norm but where G is 1: the naive maps are not the definition's."""
    rng = np.random.default_rng(2)
    head, cells, context, target, _ = problem(rng)
    ours = np.asarray(fg.contributions(head.bind(context, cells), cells, target))
    naive = np.asarray(fg.contributions(Direct(head, context), cells, target))
    assert np.abs(ours - naive).max() > 0.1 * np.abs(ours).max()
    # The cell in the middle keeps the direction of every neighbour: nothing but itself is masked.
    shrunk = head(cells * 0.5, context)
    assert np.abs(shrunk - head(cells, context)).max() < 0.02 * np.abs(shrunk).max()


def test_the_additive_head_and_whole_passes_give_the_same_edits():
    """500 problems: the same edits, and probabilities within 1e-5."""
    rng = np.random.default_rng(3)
    config = fg.SearchConfig()

    def both(head, cells, context, target, candidates):
        fast = head.bind(context, cells, head.prepare(candidates))
        slow = Tokens(head, jax.tree_util.Partial(head.compared)).bind(context, cells)
        return [fg.counterfactual(h, cells, target, candidates, config) for h in (fast, slow)]

    both, edits, flipped = jax.jit(both), [], 0
    for _ in range(500):
        head, cells, context, target, candidates = problem(rng)
        fast, slow = both(head, cells, context, target, candidates)
        count = int(fast.num_edits)
        np.testing.assert_array_equal(fast.edit_cell, slow.edit_cell)
        np.testing.assert_array_equal(fast.edit_candidate, slow.edit_candidate)
        np.testing.assert_allclose(fast.p_target, slow.p_target, atol=1e-5)
        np.testing.assert_allclose(fast.edit_similarity, slow.edit_similarity, atol=1e-5)
        edits.append(count)
        flipped += bool(fast.flipped)
    assert np.mean(np.array(edits) > 1) > 0.3
    assert flipped > 100


def test_similarity_is_the_cosine_after_the_norm():
    rng = np.random.default_rng(4)
    head, cells, context, target, candidates = problem(rng)
    out = fg.counterfactual(head.bind(context, cells), cells, target, candidates)
    assert out.num_edits > 0
    scale, shift = head.norm1

    def norm(x):
        return (x - x.mean()) / np.sqrt(x.var() + head.epsilon) * scale + shift

    for k in range(int(out.num_edits)):
        a = norm(cells.reshape(-1, CHANNELS)[out.edit_cell[k]])
        b = norm(candidates[out.edit_candidate[k]])
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(out.edit_similarity[k], cosine, atol=1e-5)


def test_a_candidate_with_far_more_attention_than_the_image():
    """Its logits lie 70 above the image's own; nothing overflows, nothing vanishes."""
    rng = np.random.default_rng(5)
    head, cells, context, _, candidates = problem(rng)
    query = np.asarray(head.queries(context))
    keys = np.asarray(head.prepare(candidates).keys)
    own = np.asarray(head.prepare(jnp.concatenate([context, cells.reshape(-1, CHANNELS)])).keys)
    gap = np.einsum("rhd,thd->rht", query, keys).max(-1) - np.einsum(
        "rhd,thd->rht", query, own
    ).max(-1)
    kernel, bias = head.qkv
    factor = 70 / max(gap.max(), 1e-3)  # of the queries
    scaled = kernel.at[:, :CHANNELS].multiply(factor), bias.at[:CHANNELS].multiply(factor)
    sharp = replace(head, qkv=scaled)
    bound = sharp.bind(context, cells, sharp.prepare(candidates))
    rows = bound.rows(cells)
    np.testing.assert_allclose(bound.logits(rows), sharp(cells, context), atol=1e-4)
    placed = bound.place(candidates, sharp.prepare(candidates), jnp.array(2))
    for got, candidate in zip(
        bound.substituted(rows, jnp.array(2), placed), candidates, strict=True
    ):
        edited = cells.reshape(-1, CHANNELS).at[2].set(candidate)
        expected = sharp(edited.reshape(cells.shape), context)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_head_that_lacks_its_context_says_so():
    rng = np.random.default_rng(6)
    head, cells, _, target, candidates = problem(rng)
    for call in (
        lambda: fg.contributions(head, cells, target),
        lambda: fg.counterfactual(head, cells, target, candidates),
    ):
        with pytest.raises(fg.InputError, match=r"ClassToken needs the image's context.*bind"):
            call()


@pytest.mark.parametrize("kind", ["class_token", "plain function"])
def test_a_classifier_with_a_context_through_bank_explanation_and_methods(kind):
    """The batched pipeline against the search of each image with its own bound head."""
    rng = np.random.default_rng(7)
    head = jax.tree.map(jnp.asarray, class_token(rng))
    lift = np.float32(rng.normal(size=(3, CHANNELS)) * 9)
    reader = np.float32(rng.normal(size=(3, CHANNELS)) * 9)

    def features(images):
        return (images - 0.5) @ lift, (images[:, :1, 1] - 0.5) @ reader

    of_any = head if kind == "class_token" else (lambda cells, context: head(cells, context))
    clf = fg.Classifier(features, of_any, CLASSES, N)
    images = rng.random((40, N, N, 3)).astype(np.float32)
    predicted = np.asarray(clf(images).argmax(-1))
    assert len(set(predicted.tolist())) > 2
    bank = fg.build_bank(clf, images[:30], predicted[:30], fg.BankConfig(per_class=4, top_m=3))
    found = np.unique(predicted[:30])
    labels = found[rng.integers(len(found), size=10)].astype(np.int32)
    out = fg.explain(clf, bank, images[30:], labels)
    assert (np.asarray(out.num_edits) > 0).any()
    cells, context = clf.feature_map(images[30:])
    for b in range(10):
        bound = fg.heads.searchable(clf.head).bind(context[b], cells[b])
        served = bank.for_targets(labels[b : b + 1])
        own = served.serving(served.group[0])
        one = fg.counterfactual(bound, cells[b], labels[b], own.cells, valid=own.valid)
        np.testing.assert_array_equal(out.edit_cell[b], one.edit_cell)
        np.testing.assert_allclose(out.p_target[b], one.p_target, atol=1e-5)
        maps = fg.contrastive_maps(bound, cells[b], one.cells, predicted[30 + b], labels[b])
        np.testing.assert_allclose(out.invariant[b], maps[0], atol=1e-5)
        np.testing.assert_allclose(out.dominant[b], maps[1], atol=1e-5)
    invariant = METHODS["fgvce_invariant"](
        clf, images[30:], predicted[30:].astype(np.int32), labels, bank=bank
    )
    np.testing.assert_allclose(invariant, out.invariant, atol=1e-5)


def test_the_methods_on_cells_see_the_context():
    """GradCAM and CE of a head with a context, from finite differences of the plain pass."""
    rng = np.random.default_rng(8)
    head = jax.tree.map(jnp.asarray, class_token(rng))
    lift = np.float32(rng.normal(size=(3, CHANNELS)) * 3)
    clf = fg.Classifier(
        lambda images: FeatureMap(images @ lift, images[:, :1, 0] @ (lift * 0.5)), head, CLASSES, N
    )
    image = rng.random((1, N, N, 3)).astype(np.float32)
    cells, context = (np.asarray(leaf[0], np.float64) for leaf in clf.feature_map(image))
    step, slope = 1e-5, np.zeros((N * N, CHANNELS))
    loss = np.zeros((N * N, CHANNELS))

    def at(h):
        z = plain(head, h, context, np.ones(9))
        return z[2], np.log(np.exp(z - z.max()).sum()) + z.max() - z[3]

    for k in range(N * N):
        for c in range(CHANNELS):
            moved = [cells.copy().reshape(-1, CHANNELS) for _ in range(2)]
            moved[0][k, c] += step
            moved[1][k, c] -= step
            up, down = (at(m.reshape(cells.shape)) for m in moved)
            slope[k, c], loss[k, c] = ((u - d) / (2 * step) for u, d in zip(up, down, strict=True))
    classes, contrast = np.array([2], np.int32), np.array([3], np.int32)
    for name, gradient in (("gradcam", slope), ("ce", loss)):
        got = METHODS[name](clf, image, classes, contrast)[0]
        expected = np.maximum(cells @ gradient.mean(0), 0)
        np.testing.assert_allclose(got, expected, atol=2e-4 * np.abs(expected).max() + 1e-6)


def test_other_cuts_mask_the_attention_by_whole_passes():
    rng = np.random.default_rng(9)
    head, cells, context, target, _ = problem(rng)
    slow = Tokens(head, jax.tree_util.Partial(head.compared))
    np.testing.assert_allclose(slow(cells, context), head(cells, context), atol=1e-6)
    bound = slow.bind(context, cells)
    got = fg.contributions(bound, cells, target)
    expected = fg.contributions(head.bind(context, cells), cells, target)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.isfinite(np.asarray(fg.contributions(bound, cells, target, 0))).all()
