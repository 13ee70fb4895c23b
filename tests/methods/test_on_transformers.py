"""Every method on a tiny ViT and Swin, LeGrad and rollout against float64 NumPy."""

import jax
import numpy as np
import numpy_transformers as plain
import pytest
from networks import resnet, some_images
from tiny_transformers import DESIGNS, balanced, network, tiny_transformers

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.models import named, recut

OPTIONS = {
    "ig": {"steps": 2},
    "rise": {"num_masks": 4, "chunk": 4},
    "ep": {"iterations": 2, "step": 9, "sigma": 9.0},
}
CELLS = ["gradcam", "gradcampp", "layercam", "scorecam", "finercam", "contributions", "ce", "scout"]
CELLS += ["cce", "cve", "cve_semantic", "fgvce_invariant", "fgvce_dominant"]
CELLS += ["fgvce_matched_invariant", "fgvce_matched_dominant"]
PIXELS = ["ig", "rise", "ep"]
ATTENTION = ["legrad", "rollout"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_transformers(monkeypatch)


def test_every_method_is_here():
    elsewhere = {"gbp", "fgcam", "calm"}  # refused on these networks
    assert set(CELLS + PIXELS + ATTENTION) == set(METHODS) - elsewhere


def shown(arch, size):
    """A network, images, and the classes that it finds most and second most probable in each."""
    images = np.random.default_rng(0).uniform(size=(20, size, size, 3)).astype(np.float32)
    clf = balanced(network(arch, size), images)
    order = np.argsort(-np.asarray(jax.jit(lambda clf, x: clf(x))(clf, images)), -1)
    return clf, images, *order.astype(np.int32).T[:2]


def check(name, maps, side):
    maps = np.asarray(maps)
    assert maps.shape == (2, side, side), name
    assert np.isfinite(maps).all(), name
    assert np.abs(maps).max() > 0, name


@pytest.mark.parametrize(("arch", "size"), [("vit_s_16", 32), ("swin_t", 64)])
def test_each_method_of_images_alone_gives_a_map(arch, size):
    """In one program, which is compiled faster than many."""
    clf, images, classes, contrast = shown(arch, size)
    names = [name for name in CELLS + PIXELS if not METHODS[name].needs - {"contrast"}]

    @jax.jit
    def together(*arguments):
        return [METHODS[name](*arguments, **OPTIONS.get(name, {})) for name in names]

    for name, maps in zip(names, together(clf, images[:2], classes[:2], contrast[:2]), strict=True):
        check(name, maps, size if name in PIXELS else 4)


def test_each_method_of_a_bank_gives_a_map():
    clf, images, classes, contrast = shown("vit_s_16", 32)
    best, every = (
        fg.build_bank(clf, images, classes, fg.BankConfig(per_class=2, top_m=top_m))
        for top_m in (3, None)
    )
    served = [k for k in range(20) if contrast[k] in classes][:2]
    assert len(served) == 2
    for name in CELLS:
        if METHODS[name].needs - {"contrast"}:
            bank = every if "all_cells" in METHODS[name].needs else best
            chosen = images[served], classes[served], contrast[served]
            check(name, METHODS[name](clf, *chosen, bank=bank), 4)


@pytest.mark.parametrize(
    ("name", "arch", "message"),
    [
        ("gbp", "vit_s_16", "gbp: needs a network of ReLUs, vit_s_16 has none"),
        ("gbp", "swin_t", "gbp: needs a network of ReLUs, swin_t has none"),
        ("fgcam", "vit_s_16", "fgcam: "),
        ("fgcam", "swin_t", "fgcam: "),
        ("calm", "vit_s_16", "calm: the classifier's head is a ClassToken, expected a CalmHead"),
        ("calm", "swin_t", "calm: the classifier's head is a PooledLinear, expected a CalmHead"),
        ("legrad", "swin_t", "legrad: needs a vision transformer's attention"),
        (
            "rollout",
            "swin_t",
            "rollout: needs a vision transformer's attention",
        ),
        ("legrad", "small_resnet", "legrad: needs .*, small_resnet has none"),
        ("rollout", "small_resnet", "rollout: needs .*, small_resnet has none"),
    ],
)
def test_what_cannot_apply_says_so(name, arch, message):
    clf = resnet() if arch == "small_resnet" else network(arch, 64 if arch == "swin_t" else 32)
    images, classes = some_images(1, clf.image_size)
    with pytest.raises(fg.InputError, match=f"^{message}") as caught:
        METHODS[name](clf, images, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ATTENTION)
def test_functions_of_the_users_own_are_refused(name):
    clf = fg.Classifier(lambda x: x, lambda cells: cells.mean((-3, -2)), 3, 4)
    with pytest.raises(fg.InputError, match="made of functions of the user's own"):
        METHODS[name](clf, np.zeros((1, 4, 4, 3), np.float32), np.zeros(1, np.int32))


# --- LeGrad and rollout, from their definitions --------------------------------------------------


def attention(w, block, tokens, heads):
    """Softmax attention [heads, T, T] and values [heads, T, d] of one image's tokens."""
    x = plain.norm(w, f"{block}.norm1", tokens, 1e-6)
    query, key, value = np.split(plain.linear(w, f"{block}.attn.qkv", x), 3, axis=1)
    query, key, value = (np.stack(np.split(a, heads, axis=1)) for a in (query, key, value))
    scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
    mass = np.exp(scores - scores.max(-1, keepdims=True))
    return mass / mass.sum(-1, keepdims=True), value


def behind(w, block, tokens, weights, value):
    taken = np.moveaxis(weights @ value, -3, -2)
    y = plain.linear(w, f"{block}.attn.proj", taken.reshape(*taken.shape[:-2], -1))
    tokens = tokens + plain.scaled(w, f"{block}.ls1", y)
    y = plain.norm(w, f"{block}.norm2", tokens, 1e-6)
    y = plain.perceptron(w, f"{block}.mlp.fc1", f"{block}.mlp.fc2", y)
    return tokens + plain.scaled(w, f"{block}.ls2", y)


def embedded(w, design, image, clf):
    """Tokens before the first block."""
    side = 32 // design.patch
    image = (np.float64(image) - np.asarray(clf.features.mean)) / np.asarray(clf.features.std)
    patches = image.reshape(side, design.patch, side, design.patch, 3).swapaxes(1, 2)
    kernel = w["patch_embed.proj.kernel"].reshape(-1, design.width)
    patches = patches.reshape(side * side, -1) @ kernel + w["patch_embed.proj.bias"]
    special = [w["patch_embed.cls_token"][0]]
    special += [w["patch_embed.dist_token"][0]] if design.distilled else []
    tokens = np.concatenate([*special, patches]) + w["patch_embed.pos_embed"][0]
    if design.registers:
        count = len(special)
        tokens = np.concatenate([tokens[:count], w["patch_embed.reg_token"][0], tokens[count:]])
    return tokens, len(tokens) - side * side


def score(w, design, tokens, special, k):
    """s_l of tokens [..., T, C]."""
    if not design.read:
        normed = plain.norm(w, "norm", tokens, 1e-6)
        pooled = np.concatenate([normed[..., 0, :], normed[..., special:, :].mean(-2)], -1)
        return plain.linear(w, "head", pooled)[..., k]
    pooled = plain.norm(w, "norm", tokens.mean(-2), 1e-6)
    names = ("head", "head_dist")[: design.read]
    return np.mean([plain.linear(w, name, pooled)[..., k] for name in names], 0)


@pytest.mark.parametrize("arch", ["vit_s_16", "deit_s_16_distilled", "dinov2_s_14_reg"])
def test_legrad_and_rollout_are_their_definitions(arch):
    clf, design = network(arch, 32), DESIGNS[arch]
    image = np.random.default_rng(5).uniform(size=(32, 32, 3)).astype(np.float32)
    w, k, step = plain.weights_of(named(clf)), 3, 1e-5
    tokens, special = embedded(w, design, image, clf)
    count, relevance = len(tokens), np.zeros(len(tokens))
    flow = np.eye(count)
    for index in range(design.blocks):
        block = f"blocks.{index}"
        weights, value = attention(w, block, tokens, design.heads)
        for head in range(design.heads):
            for query in range(count):
                moved = np.stack([weights] * 2 * count).reshape(2, count, *weights.shape)
                moved[0, range(count), head, query, range(count)] += step
                moved[1, range(count), head, query, range(count)] -= step
                up, down = score(w, design, behind(w, block, tokens, moved, value), special, k)
                relevance += np.maximum((up - down) / (2 * step), 0)
        flow = (weights.mean(0) + np.eye(count)) / 2 @ flow
        tokens = behind(w, block, tokens, weights, value)
    relevance = relevance / (design.blocks * design.heads * count)
    classes = np.array([k], np.int32)
    got = METHODS["legrad"](clf, image[None], classes)[0]
    expected = relevance[special:].reshape(got.shape)
    np.testing.assert_allclose(got, expected, atol=1e-3 * expected.max())
    got = METHODS["rollout"](clf, image[None], classes)[0]
    expected = flow[: max(design.read, 1)].mean(0)[special:].reshape(got.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_attention_maps_do_not_depend_on_the_cut():
    clf = network("vit_s_16", 32)
    images, classes = some_images(2, 32)
    for name in ATTENTION:
        whole = METHODS[name](clf, images, classes)
        np.testing.assert_allclose(
            METHODS[name](recut(clf, "blocks.0"), images, classes), whole, rtol=1e-4
        )
