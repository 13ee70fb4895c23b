"""The batched pipeline: against one sample at a time, on many devices, compiled once."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from problems import planted

import fgvce_jax as fg
from fgvce_jax.bank import Candidates
from fgvce_jax.config import SearchConfig
from fgvce_jax.explain import explain_cells
from fgvce_jax.models import FeatureMap, ModelSpec, build

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def problem():
    """A small untrained classifier, its images, a bank, and labels it does not agree with."""
    spec = ModelSpec("small_resnet", widths=(8, 16), blocks=(1, 1), stem_stride=2)
    clf = build(spec, 4, 24, jax.random.key(0))
    images = np.asarray(jax.random.uniform(jax.random.key(1), (48, 24, 24, 3)))
    logits = clf(images)
    head = fg.PooledLinear(clf.head.kernel * 20, -20 * (logits - clf.head.bias).mean(0))
    clf = fg.Classifier(clf.features, head, 4, 24)
    predicted = np.asarray(clf(images).argmax(-1))
    bank = fg.build_bank(clf, images, predicted, fg.BankConfig(per_class=5, top_m=3), batch_size=16)
    assert bank.missing() == []
    return clf, bank, images[:10], (predicted[:10] + 1) % 4


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_the_batch_agrees_with_the_reference_sample_by_sample(problem, chunk):
    clf, bank, images, labels = problem
    out = fg.explain(clf, bank, images, labels, SearchConfig(chunk=chunk))
    plain = reference.pooled_linear(clf.head.kernel, clf.head.bias)
    cells = np.float64(clf.features(images))
    for b in range(len(images)):
        target = int(labels[b])
        predicted = int(np.argmax(plain(cells[b])))
        h, edits, flipped, p = reference.counterfactual(
            plain, cells[b], target, np.float64(bank.cells[target])
        )
        count = int(out.num_edits[b])
        assert int(out.predicted[b]) == predicted
        got = zip(
            out.edit_cell[b, :count].tolist(), out.edit_candidate[b, :count].tolist(), strict=True
        )
        assert list(got) == edits
        assert bool(out.flipped[b]) == flipped
        np.testing.assert_allclose(out.p_target[b, : count + 1], p, atol=1e-5)
        maps = reference.contrastive_maps(plain, cells[b], h, predicted, target, 0.8)
        np.testing.assert_allclose(out.invariant[b], maps[0], atol=1e-4)
        np.testing.assert_allclose(out.dominant[b], maps[1], atol=1e-4)
        before = reference.contributions(plain, cells[b], predicted, 0.8)
        np.testing.assert_allclose(out.contributions_before[b], before, atol=1e-5)


def test_an_image_that_is_classified_correctly_gets_nothing(problem):
    clf, bank, images, _ = problem
    predicted = np.asarray(clf(images).argmax(-1))
    out = fg.explain(clf, bank, images, predicted)
    assert not out.num_edits.any()
    assert out.flipped.all()
    assert not out.invariant.any()
    assert not out.dominant.any()


def test_a_dense_head_in_the_pipeline_equals_the_plain_search():
    rng = np.random.default_rng(0)
    head, _, cells, _, target, candidates = planted(rng, kind="dense")
    classes = head.bias.shape[0] // 2
    groups = Candidates(
        cells=jnp.tile(candidates, (classes, 1, 1)),
        norms=jnp.tile(jnp.linalg.norm(candidates, axis=-1), (classes, 1)),
        prepared=None,
        valid=jnp.ones((classes, len(candidates)), bool),
        group=jnp.array([target]),
    )
    out = explain_cells(
        head,
        groups,
        FeatureMap(cells[None]),
        jnp.array([target]),
        config=SearchConfig(),
        devices=tuple(jax.local_devices()[:1]),
    )
    plain = fg.counterfactual(head, cells, target, candidates)
    np.testing.assert_array_equal(out.edit_cell[0], plain.edit_cell)
    np.testing.assert_array_equal(out.edit_candidate[0], plain.edit_candidate)
    np.testing.assert_allclose(out.p_target[0], plain.p_target, atol=1e-6)
    np.testing.assert_allclose(out.p_predicted[0], plain.p_predicted, atol=1e-6)


def test_a_model_that_is_not_ours_can_be_explained():
    """Flax Linen: its functions go in as they are, its weights as arguments."""
    from flax import linen

    class Features(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.relu(linen.Conv(6, (3, 3), strides=(4, 4))(x))

    class Head(linen.Module):
        @linen.compact
        def __call__(self, cells):
            hidden = linen.tanh(linen.Dense(8)(cells.mean((-3, -2))))
            return linen.Dense(3)(hidden)

    images = np.random.default_rng(0).random((30, 16, 16, 3), np.float32)
    keys = jax.random.split(jax.random.key(0))
    features, head = Features(), Head()
    weights = features.init(keys[0], images)
    head_weights = head.init(keys[1], features.apply(weights, images))
    head_weights = jax.tree.map(lambda leaf: leaf * 4, head_weights)
    clf = fg.Classifier(
        features=jax.tree_util.Partial(features.apply, weights),
        head=lambda cells: head.apply(head_weights, cells),
        num_classes=3,
        image_size=16,
    )
    centre = clf(images).mean(0)
    clf = fg.Classifier(clf.features, lambda cells: head.apply(head_weights, cells) - centre, 3, 16)
    predicted = np.asarray(clf(images).argmax(-1))
    bank = fg.build_bank(clf, images, predicted, fg.BankConfig(per_class=4, top_m=4), batch_size=30)
    out = fg.explain(clf, bank, images[:6], (predicted[:6] + 1) % 3)

    cells = np.float64(clf.features(images[:6]))
    w = jax.tree.map(np.float64, head_weights)["params"]

    def plain(h):
        hidden = np.tanh(h.mean((0, 1)) @ w["Dense_0"]["kernel"] + w["Dense_0"]["bias"])
        return hidden @ w["Dense_1"]["kernel"] + w["Dense_1"]["bias"] - np.float64(centre)

    for b in range(6):
        target = (int(predicted[b]) + 1) % 3
        _, edits, flipped, _ = reference.counterfactual(
            plain, cells[b], target, np.float64(bank.cells[target])[np.asarray(bank.valid[target])]
        )
        count = int(out.num_edits[b])
        got = zip(
            out.edit_cell[b, :count].tolist(), out.edit_candidate[b, :count].tolist(), strict=True
        )
        assert list(got) == edits
        assert bool(out.flipped[b]) == flipped


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 24, 24), np.float32), [0, 1], r"\[B, 24, 24, 3\], got \[2, 24, 24\]"),
        (np.zeros((2, 16, 16, 3), np.float32), [0, 1], r"\[B, 24, 24, 3\], got \[2, 16, 16, 3\]"),
        (np.zeros((2, 24, 12, 3), np.float32), [0, 1], r"\[B, 24, 24, 3\], got \[2, 24, 12, 3\]"),
        (np.full((2, 24, 24, 3), 255.0), [0, 1], r"values in \[0, 1\], got 255 to 255"),
        (np.full((2, 24, 24, 3), np.nan), [0, 1], r"values in \[0, 1\], got nan to nan"),
        (np.zeros((2, 24, 24, 3), np.uint8), [0, 1], "expected float values"),
        (np.zeros((2, 24, 24, 3), np.float32), [0, 4], "label 4: expected 0 to 3"),
        (np.zeros((2, 24, 24, 3), np.float32), [0], "expected 2, one per image, got 1"),
    ],
)
def test_what_cannot_be_explained_is_named(problem, images, labels, message):
    clf, bank, _, _ = problem
    with pytest.raises(fg.InputError, match=message):
        fg.explain(clf, bank, images, np.array(labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bank: {"cells": bank.cells[..., :3]}, "3 channels, the classifier has 16"),
        (lambda bank: {"references": bank.references[:3]}, "3 classes, the classifier has 4"),
        (lambda bank: {"prepared": None}, "another kind of head"),
        (lambda bank: {"prepared": bank.prepared[..., :3]}, "another kind of head"),
    ],
)
def test_a_bank_of_another_classifier_is_named(problem, change, message):
    clf, bank, images, labels = problem
    with pytest.raises(fg.InputError, match=message):
        fg.explain(clf, replace(bank, **change(bank)), images, labels)


def test_a_head_of_other_classes_than_the_classifier_says_is_named(problem):
    clf, bank, images, labels = problem
    wrong = fg.Classifier(clf.features, clf.head, 3, 24)
    with pytest.raises(fg.InputError, match="expected 3 classes' logits, got 4"):
        fg.explain(wrong, replace(bank, references=bank.references[:3]), images, labels % 3)


def test_nan_logits_are_named_by_their_image(problem):
    clf, bank, images, labels = problem

    def features(images):
        return clf.features(images) / images.any((1, 2, 3), keepdims=True)

    broken = fg.Classifier(features, clf.head, 4, 24)
    fg.explain(broken, bank, images, labels)
    images = images.copy()
    images[7] = 0
    with pytest.raises(fg.InputError, match=r"^image 7: the classifier's logits are NaN"):
        fg.explain(broken, bank, images, labels)


def test_many_devices_agree_with_one_and_never_talk():
    """8 virtual devices, 5 samples: the same explanations, and no collective in the program."""
    program = """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
        import sys
        sys.path[:0] = [{tests!r}, {root!r}]
        import jax, jax.numpy as jnp, numpy as np
        import fgvce_jax as fg
        from fgvce_jax.bank import Candidates
        from fgvce_jax.config import SearchConfig
        from fgvce_jax.explain import explain_cells
        from fgvce_jax.models import FeatureMap
        from problems import planted

        assert len(jax.devices()) == 8
        rng = np.random.default_rng(0)
        head, _, cells, _, _, _ = planted(rng)
        channels, classes = head.kernel.shape
        strength = rng.uniform(0.2, 1, size=(classes, 15, 1))
        candidates = np.float32(np.maximum(
            strength * np.asarray(head.kernel.T)[:, None]
            + 0.3 * rng.normal(size=(classes, 15, channels)), 0
        ))
        maps = np.stack([cells * s for s in np.linspace(0.6, 1.6, 8)]).astype(np.float32)
        maps = FeatureMap(maps)
        labels = (np.arange(8) % classes).astype(np.int32)
        groups = Candidates(
            cells=jnp.asarray(candidates),
            norms=jnp.linalg.norm(candidates, axis=-1),
            prepared=candidates @ head.kernel,
            valid=jnp.ones((classes, 15), bool),
            group=labels,
        )

        def run(devices):
            return explain_cells(
                head, groups, maps, labels, config=SearchConfig(), devices=tuple(devices)
            )

        many, one = run(jax.devices()), run(jax.devices()[:1])
        assert len(set(many.num_edits.tolist())) > 1, many.num_edits
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one)):
            np.testing.assert_allclose(a, b, atol=1e-6)
        text = explain_cells.lower(
            head, groups, maps, labels, config=SearchConfig(), devices=tuple(jax.devices())
        ).compile().as_text()
        found = [w for w in ("all-reduce", "all-gather", "all-to-all", "collective-permute",
                             "reduce-scatter", "collective-broadcast") if w in text]
        assert "while" in text and not found, found

        # More devices than samples, from images on.
        images = rng.random((30, 6, 6, 3), np.float32)
        head = fg.PooledLinear(jnp.float32(rng.normal(size=(3, 4)) * 20), jnp.zeros(4))
        clf = fg.Classifier(lambda x: x, fg.PooledLinear(head.kernel, -head(images).mean(0)), 4, 6)
        said = np.asarray(clf(images).argmax(-1))
        bank = fg.build_bank(clf, images, said, fg.BankConfig(per_class=3, top_m=4), batch_size=10)
        arguments = clf, bank, images[:3], (said[:3] + 1) % 4
        many, one = fg.explain(*arguments), fg.explain(*arguments, devices=jax.devices()[:1])
        assert many.num_edits.shape == (3,) and many.num_edits.min() > 0
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one)):
            np.testing.assert_allclose(a, b, atol=1e-6)
        print("agreed")
    """
    program = textwrap.dedent(program.format(tests=str(ROOT / "tests"), root=str(ROOT)))
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.stdout.strip() == "agreed", out.stderr[-2000:]


def test_more_devices_than_samples_and_ragged_batches_need_no_new_program(problem):
    clf, bank, images, labels = problem
    config = SearchConfig()
    devices = tuple(jax.local_devices()[:1])
    head = clf.head
    cells = np.asarray(clf.feature_map(images).cells)
    before = explain_cells._cache_size()
    for count in (8, 5, 1):
        padded = fg.bank.pad_batch(cells[:count], 8)
        targets = fg.bank.pad_batch(labels[:count], 8)
        candidates = bank.for_targets(targets)
        out = explain_cells(
            head, candidates, FeatureMap(padded), targets, config=config, devices=devices
        )
        assert out.num_edits.shape == (8,)
    assert explain_cells._cache_size() - before == 1


def test_importing_the_package_needs_jax_flax_and_numpy_only():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fgvce_jax;"
        "print([m for m in ('PIL', 'matplotlib', 'pyarrow', 'grain', 'tensorflow_datasets',"
        "'sklearn', 'jsonargparse', 'dm_pix', 'jinja2', 'torch', 'safetensors')"
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stdout + out.stderr
