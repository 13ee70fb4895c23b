"""Vision transformers, their cuts and masks, against float64 NumPy a token at a time."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpy_transformers as plain
import pytest
from flax import nnx
from networks import filled
from tiny_transformers import DESIGNS, SWIN, tiny_transformers

import fgvce_jax as fg
from fgvce_jax.models import ModelSpec, build, load_classifier, named, recut, save_classifier
from fgvce_jax.models.initial import fresh_head
from fgvce_jax.models.named import with_named
from fgvce_jax.models.positions import Positions
from fgvce_jax.models.spec import NETWORKS
from fgvce_jax.partition import gaussian_kernels

CLASSES, SIZE = 5, {"swin_t": 64}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_transformers(monkeypatch)


def network(arch, seed=0, cut=None):
    clf = build(ModelSpec(arch), CLASSES, SIZE.get(arch, 32), jax.random.key(0))
    clf = filled(clf, np.random.default_rng(seed))
    weights = named(clf)
    sure = {name: 8 * leaf for name, leaf in weights.items() if re.match(r"head.*kernel", name)}
    clf = with_named(clf, weights | sure)
    return clf if cut is None else recut(clf, cut)


@pytest.mark.parametrize(
    ("arch", "cut", "later"),
    [
        ("vit_s_16", None, (2,)),
        ("vit_s_16", "blocks.0", (1, 2)),
        ("deit_s_16_distilled", "blocks.0", (1, 2)),
        ("dinov2_s_14", "blocks.0", (1, 2)),
        ("dinov2_s_14_reg", "blocks.2", ()),
        ("dinov2_s_14_reg", None, None),
    ],
)
@pytest.mark.parametrize("sigma", [0.8, 0])
def test_contributions_take_attention_from_the_patches(arch, cut, later, sigma):
    clf, design = network(arch, cut=cut), DESIGNS[arch]
    images = np.random.default_rng(1).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    (cells,), (context,) = clf.feature_map(images)
    w = plain.weights_of(named(clf))

    def p(mass):
        if later is None:  # behind the final norm
            pooled = np.concatenate([context[0], (cells * mass[..., None]).mean((0, 1))])
            z = plain.linear(w, "head", pooled)
        else:
            z = plain.vit_logits(w, later, cells, context, design.heads, mass, design.read)
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    whole = p(np.ones((4, 4)))
    np.testing.assert_allclose(jax.nn.softmax(clf(images))[0], whole, atol=2e-6)
    predicted = int(whole.argmax())
    got = fg.contributions(clf.head.bind(context, cells), cells, predicted, sigma)
    kernels = np.asarray(gaussian_kernels(4, sigma), np.float64).reshape(-1, 4, 4)
    expected = [whole[predicted] - p(1 - kernel)[predicted] for kernel in kernels]
    np.testing.assert_allclose(np.reshape(got, -1), expected, atol=5e-6)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("cut", [None, "features.3.0", "features.1.0", "features.1"])
def test_contributions_of_a_swin(cut):
    clf = network("swin_t", cut=cut)
    images = np.random.default_rng(1).uniform(size=(1, 64, 64, 3)).astype(np.float32)
    (cells,), _ = clf.feature_map(images)
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
    np.testing.assert_allclose(jax.nn.softmax(clf(images))[0], whole, atol=2e-6)
    predicted = int(whole.argmax())
    head = fg.heads.searchable(clf.head).bind(None, cells)
    got = fg.contributions(head, cells, predicted)
    kernels = np.asarray(gaussian_kernels(n, 0.8), np.float64).reshape(-1, n, n)
    expected = [whole[predicted] - p(1 - kernel)[predicted] for kernel in kernels]
    np.testing.assert_allclose(np.reshape(got, -1), expected, atol=5e-6)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("arch", ["vit_s_16", "dinov2_s_14_reg", "swin_t"])
def test_a_checkpoint_comes_back_and_at_another_size(tmp_path, arch):
    clf = replace(network(arch), spec=ModelSpec(arch))
    save_classifier(clf, tmp_path / "c")
    for ours, expected in zip(
        jax.tree.leaves(load_classifier(tmp_path / "c")), jax.tree.leaves(clf), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
    larger = load_classifier(tmp_path / "c", image_size=2 * clf.image_size)
    shape = (1, larger.image_size, larger.image_size, 3)
    images = np.random.default_rng(2).uniform(size=shape).astype(np.float32)
    assert np.isfinite(np.asarray(larger(images))).all()
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


def test_the_search_behind_other_cuts_is_by_whole_passes():
    """Edits of a ViT cut early lead to logits that the same edits give in a plain pass."""
    clf = network("vit_s_16", cut="blocks.0")
    rng = np.random.default_rng(3)
    images = rng.uniform(size=(30, 32, 32, 3)).astype(np.float32)
    predicted = np.asarray(clf(images).argmax(-1)).astype(np.int32)
    bank = fg.build_bank(clf, images[:24], predicted[:24], fg.BankConfig(per_class=4, top_m=3))
    target = np.full(6, np.bincount(predicted[:24]).argmax(), np.int32)
    out = fg.explain(clf, bank, images[24:], target)
    assert (np.asarray(out.num_edits) > 0).any()
    after = clf.logits(
        type(clf.feature_map(images[:1]))(out.cells, clf.feature_map(images[24:]).context)
    )
    last = np.take_along_axis(np.asarray(out.p_target), np.asarray(out.num_edits)[:, None], 1)[:, 0]
    got = jax.nn.softmax(after)[jnp.arange(6), target]
    np.testing.assert_allclose(got, last, atol=1e-5)


@pytest.mark.parametrize("arch", ["deit_s_16_distilled", "dinov2_s_14"])
def test_fine_tuning_starts_the_last_layers_anew(arch):
    clf = network(arch)
    fresh = fresh_head(clf.head, 7, jax.random.key(1))
    new = replace(clf, head=fresh, num_classes=7, class_names=())
    changed = {name for name, leaf in named(new).items() if leaf is not named(clf)[name]}
    heads = {"head", "head_dist"} if "distilled" in arch else {"head"}
    assert changed == {f"{head}.{kind}" for head in heads for kind in ("kernel", "bias")}
    assert new(np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 7)


def test_every_transformer_has_a_description_of_its_names():
    for arch in NETWORKS:
        if arch.startswith(("vit", "deit", "dino", "swin")):
            *_, last = NETWORKS[arch].head_names.values()
            assert last == "head.bias"
