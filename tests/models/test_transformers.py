"""Vision transformers, their cuts and masks, against float64 NumPy a token at a time."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import numpy_transformers as plain
import pytest
from flax import nnx
from tiny_transformers import DESIGNS, SWIN, network, tiny_transformers

import fgvce_jax as fg
from fgvce_jax.models import ModelSpec, build, load_classifier, named, recut, save_classifier
from fgvce_jax.models.classifier import feature_map_of
from fgvce_jax.models.initial import fresh_head
from fgvce_jax.models.positions import Positions
from fgvce_jax.models.spec import NETWORKS
from fgvce_jax.partition import gaussian_kernels

forward = jax.jit(lambda clf, images: clf(images))


@partial(jax.jit, static_argnames="sigma")
def contributions(head, context, cells, index, sigma):
    head = fg.heads.searchable(head).bind(context, cells)
    return fg.contributions(head, cells, index, sigma)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_transformers(monkeypatch)


@pytest.mark.parametrize(
    ("arch", "cut", "later"),
    [
        ("vit_s_16", None, (2,)),
        ("deit_s_16_distilled", "blocks.0", (1, 2)),
        ("dinov2_s_14_reg", "blocks.1", (2,)),
        ("dinov2_s_14_reg", None, None),
    ],
)
def test_contributions_take_attention_from_the_patches(arch, cut, later):
    clf, design = recut(network(arch), cut), DESIGNS[arch]
    images = np.random.default_rng(1).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    (cells,), (context,) = feature_map_of(clf, images)
    w = plain.weights_of(named(clf))

    def p(mass):
        if later is None:  # behind the final norm
            pooled = np.concatenate([context[0], (cells * mass[..., None]).mean((0, 1))])
            z = plain.linear(w, "head", pooled)
        else:
            z = plain.vit_logits(w, later, cells, context, design.heads, mass, design.read)
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    whole = p(np.ones((4, 4)))
    np.testing.assert_allclose(jax.nn.softmax(forward(clf, images))[0], whole, atol=2e-6)
    predicted = int(whole.argmax())
    for sigma in (0.8, 0):
        got = contributions(clf.head, context, cells, predicted, sigma=sigma)
        kernels = np.asarray(gaussian_kernels(4, sigma), np.float64).reshape(-1, 4, 4)
        expected = [whole[predicted] - p(1 - kernel)[predicted] for kernel in kernels]
        np.testing.assert_allclose(np.reshape(got, -1), expected, atol=5e-6)
    assert np.abs(expected).max() > 2e-4


@pytest.mark.parametrize("cut", [None, "features.1.0", "features.3.0"])
def test_contributions_of_a_swin(cut):
    clf = recut(network("swin_t"), cut)
    images = np.random.default_rng(1).uniform(size=(1, 64, 64, 3)).astype(np.float32)
    (cells,), _ = feature_map_of(clf, images)
    w, n = plain.weights_of(named(clf)), len(cells)
    units = list(clf.spec.architecture.units(jax.nn.relu, nnx.Rngs(0), 64))
    later = units[clf.spec.first_of_head(units) :]

    def p(mass):
        if not later:
            z = plain.linear(w, "head", (cells * mass[..., None]).mean((0, 1)))
        else:
            z = plain.swin_logits(w, later, cells, SWIN["heads"], SWIN["window"], mass)
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    whole = p(np.ones((n, n)))
    np.testing.assert_allclose(jax.nn.softmax(forward(clf, images))[0], whole, atol=2e-6)
    predicted = int(whole.argmax())
    got = contributions(clf.head, None, cells, predicted, sigma=0.8)
    kernels = np.asarray(gaussian_kernels(n, 0.8), np.float64).reshape(-1, n, n)
    expected = [whole[predicted] - p(1 - kernel)[predicted] for kernel in kernels]
    np.testing.assert_allclose(np.reshape(got, -1), expected, atol=5e-6)
    assert np.abs(expected).max() > 2e-4


@pytest.mark.parametrize("arch", ["vit_s_16", "dinov2_s_14_reg", "swin_t"])
def test_a_checkpoint_comes_back_and_at_another_size(tmp_path, arch):
    clf = network(arch)
    save_classifier(clf, tmp_path / "c")
    for ours, expected in zip(
        jax.tree.leaves(load_classifier(tmp_path / "c")), jax.tree.leaves(clf), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
    larger = load_classifier(tmp_path / "c", image_size=2 * clf.image_size)
    shape = (1, larger.image_size, larger.image_size, 3)
    images = np.random.default_rng(2).uniform(size=shape).astype(np.float32)
    assert np.isfinite(np.asarray(forward(larger, images))).all()
    if arch != "swin_t":
        held = named(clf)["patch_embed.pos_embed"]
        grown = named(larger)["patch_embed.pos_embed"]
        special = held.shape[1] - 16
        assert grown.shape == (1, special + 64, held.shape[-1])
        np.testing.assert_array_equal(grown[:, :special], held[:, :special])
        np.testing.assert_allclose(grown[:, special:].mean(), held[:, special:].mean(), atol=0.1)


@pytest.mark.parametrize(("tokens", "side"), [(17, 4), (16, 4), (1370, 37), (2, 1)])
def test_the_square_that_tokens_form(tokens, side):
    assert Positions(16, 1).side(tokens) == side


def test_positions_of_the_trained_size_are_left_and_missing_ones_are_zero():
    rng = np.random.default_rng(0)
    held = rng.normal(size=(1, 18, 3)).astype(np.float32)
    np.testing.assert_array_equal(Positions(8, 2).fitted(held, 32), held)
    patches = Positions(8, 2).fitted(held[:, 2:], 32)
    np.testing.assert_array_equal(patches, np.concatenate([np.zeros((1, 2, 3)), held[:, 2:]], 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Positions(16, 1).side(199), "pos_embed: expected 1 and a square number of tokens"),
        (lambda: build(ModelSpec("vit_s_16"), 3, 36, jax.random.key(0)), "36: expected a multiple"),
        (lambda: ModelSpec("vit_s_16", cut="blocks.2"), "expected one of blocks.0, blocks.1"),
        (lambda: ModelSpec("vit_s_16", head="calm"), "head 'calm': vit_s_16 has none"),
        (lambda: ModelSpec("resnet50", epsilon=1e-6), "epsilon 1e-06: expected none for resnet50"),
        (lambda: ModelSpec("vit_s_16", epsilon=2.0), "epsilon 2.0: expected a number between"),
    ],
)
def test_what_a_transformer_cannot_be(call, message):
    with pytest.raises(fg.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@partial(jax.jit, static_argnames="target")
def searched(clf, feature_map, target, candidates):
    head = clf.head.bind(feature_map.context[0], feature_map.cells[0])
    found = fg.counterfactual(head, feature_map.cells[0], target, candidates)
    return found, clf.logits(feature_map._replace(cells=found.cells[None]))[0]


def test_the_search_behind_other_cuts_is_by_whole_passes():
    """What it says of the edited tokens is what a plain pass says of them."""
    clf = recut(network("vit_s_16"), "blocks.0")
    images = np.random.default_rng(3).uniform(size=(4, 32, 32, 3)).astype(np.float32)
    out = feature_map_of(clf, images)
    first = jax.tree.map(lambda leaf: leaf[:1], out)
    target = int(np.argsort(forward(clf, images)[0])[-2])
    candidates = out.cells[1:].reshape(-1, out.cells.shape[-1])
    found, logits = searched(clf, first, target, candidates)
    assert found.num_edits > 0
    assert abs(found.p_target[found.num_edits] - found.p_target[0]) > 0.01
    expected = jax.nn.softmax(logits)[target]
    np.testing.assert_allclose(found.p_target[found.num_edits], expected, atol=1e-5)


@pytest.mark.parametrize("arch", ["deit_s_16_distilled", "dinov2_s_14"])
def test_fine_tuning_starts_the_last_layers_anew(arch):
    clf = network(arch)
    fresh = fresh_head(clf.head, 7, jax.random.key(1))
    new = replace(clf, head=fresh, num_classes=7, class_names=())
    changed = {name for name, leaf in named(new).items() if leaf is not named(clf)[name]}
    heads = {"head", "head_dist"} if "distilled" in arch else {"head"}
    assert changed == {f"{head}.{kind}" for head in heads for kind in ("kernel", "bias")}
    assert jax.eval_shape(new, np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 7)


def test_every_transformer_has_a_description_of_its_names():
    for arch in NETWORKS:
        if arch.startswith(("vit", "deit", "dino", "swin")):
            *_, last = NETWORKS[arch].head_names.values()
            assert last == "head.bias"
