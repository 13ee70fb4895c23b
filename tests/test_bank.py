"""The candidate bank, held to the float64 reference; what is read; what is kept."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import fgvce_jax as fg
from fgvce_jax.bank_file import load_bank, save_bank
from fgvce_jax.methods import METHODS

N, CHANNELS, CLASSES = 3, 4, 3


def cells_as_images(images):
    """A "backbone" whose cells can be read off its image: [B, 6, 6, 3] to [B, 3, 3, 4]."""
    blocks = images.reshape(-1, N, 2, N, 2, 3).mean((2, 4))
    return jnp.concatenate([blocks, blocks[..., :1] * blocks[..., 1:2]], -1)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    head = fg.PooledLinear(
        jnp.float32(rng.normal(size=(CHANNELS, CLASSES)) * 20), jnp.zeros(CLASSES)
    )
    clf = fg.Classifier(cells_as_images, head, CLASSES, 6)
    images = rng.random((60, 6, 6, 3), np.float32)
    predicted = np.asarray(clf(images).argmax(-1))
    clf = replace(clf, head=fg.PooledLinear(head.kernel, -jnp.asarray(clf(images).mean(0))))
    predicted = np.asarray(clf(images).argmax(-1))
    assert np.all(np.bincount(predicted, minlength=CLASSES) > 8)
    labels = np.where(rng.random(60) < 0.7, predicted, (predicted + 1) % CLASSES)
    return clf, images, labels


@pytest.mark.parametrize("top_m", [2, None])
def test_the_bank_agrees_with_the_reference(problem, top_m):
    clf, images, labels = problem
    bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4, top_m=top_m), batch_size=8)
    plain = reference.pooled_linear(clf.head.kernel, clf.head.bias)
    expected = reference.candidate_bank(
        plain, clf.features(images), labels, CLASSES, 4, top_m or N * N, 0.8
    )
    for c in range(CLASSES):
        assert bool(bank.valid[c].all())
        got = list(zip(bank.image[c].tolist(), bank.cell[c].tolist(), strict=True))
        assert got == [(image, cell) for image, cell, _ in expected[c]]
        vectors = np.array([vector for _, _, vector in expected[c]])
        np.testing.assert_allclose(bank.cells[c], vectors, atol=1e-6)
        np.testing.assert_allclose(bank.norms[c], np.linalg.norm(vectors, axis=-1), atol=1e-6)
        np.testing.assert_allclose(bank.prepared[c], vectors @ clf.head.kernel, atol=1e-5)


def test_a_class_is_read_only_until_it_has_its_references(problem):
    clf, images, labels = problem
    read = []

    def load(indices):
        read.extend(indices.tolist())
        for start in range(0, len(indices), 8):
            part = indices[start : start + 8]
            yield part, images[part]

    bank = fg.build_bank(clf, load, labels, fg.BankConfig(per_class=3, top_m=2), batch_size=8)
    for c in range(CLASSES):
        last = int(bank.image[c].max())
        of_class = [i for i in sorted(read) if labels[i] == c]
        assert of_class == [i for i in range(last + 1) if labels[i] == c]
    assert len(read) == len(set(read)) < len(images)


def test_fewer_references_are_used_as_they_are_and_none_is_said(problem):
    clf, images, labels = problem
    predicted = np.asarray(clf(images).argmax(-1))
    some = np.flatnonzero((predicted == 0) & (labels == 0))[:2]
    wrong = np.flatnonzero(predicted == 1)[:3]  # labelled 2: none is correct
    chosen = np.concatenate([some, wrong])
    given = np.array([0, 0, 2, 2, 2])
    bank = fg.build_bank(
        clf, images[chosen], given, fg.BankConfig(per_class=4, top_m=2), batch_size=8
    )
    assert bank.references.tolist() == [2, 0, 0]
    assert bank.group.tolist() == [0, -1, -1]
    assert bank.valid.sum(1).tolist() == [4]
    assert bank.provenance(1)[0].tolist() == [-1] * 4
    assert bank.missing() == [1, 2]

    out = fg.explain(clf, bank, images[wrong], given[2:])
    assert out.num_edits.tolist() == [0, 0, 0]
    assert not out.flipped.any()


def test_only_the_classes_asked_about_are_read_and_kept(problem):
    clf, images, labels = problem
    config, read = fg.BankConfig(per_class=4, top_m=2), []

    def load(indices):
        read.extend(labels[indices].tolist())
        yield indices, images[indices]

    every = fg.build_bank(clf, images, labels, config)
    bank = fg.build_bank(clf, load, labels, config, classes=[2, 0, 0])
    assert set(read) == {0, 2}
    assert bank.group.tolist() == [0, -1, 1]
    assert bank.references.tolist() == [4, 0, 4]
    np.testing.assert_array_equal(bank.cells, every.cells[[0, 2]])
    with pytest.raises(fg.InputError, match="explained, got others only"):
        fg.build_bank(clf, images[labels != 1], labels[labels != 1], config, classes=[1])


def test_references_of_all_classes(problem):
    clf, images, labels = problem
    each = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4, top_m=2), batch_size=8)
    every = fg.build_bank(
        clf,
        images,
        labels,
        fg.BankConfig(per_class=4, top_m=2, reference="all"),
        batch_size=8,
    )
    assert every.cells.shape == (1, CLASSES * 8, CHANNELS)
    np.testing.assert_array_equal(every.image[0], each.image.reshape(-1))
    np.testing.assert_array_equal(every.cells[0], each.cells.reshape(-1, CHANNELS))
    assert every.missing() == []


def test_a_batch_takes_the_groups_it_needs(problem):
    clf, images, labels = problem
    bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4, top_m=2), batch_size=8)
    targets = np.array([2, 2])
    part = bank.for_targets(targets)
    assert len(part.cells) == 2
    for b, target in enumerate(targets):
        np.testing.assert_array_equal(part.cells[part.group[b]], bank.cells[target])
        np.testing.assert_array_equal(part.prepared[part.group[b]], bank.prepared[target])
        own = part.serving(part.group[b])
        np.testing.assert_array_equal(own.cells, bank.cells[target])
        np.testing.assert_array_equal(own.valid, bank.valid[target])
    whole = bank.for_targets(np.array([0, 1, 2, 1]))
    assert whole.cells is bank.cells  # not copied
    assert whole.group.tolist() == [0, 1, 2, 1]
    assert bank.for_targets(np.array([2, 0, 1])).cells is bank.cells

    few = fg.explain(clf, bank, images[:2], (labels[:2] + 1) % CLASSES)
    many = fg.explain(clf, bank, images[:5], (labels[:5] + 1) % CLASSES)
    np.testing.assert_array_equal(few.edit_candidate, many.edit_candidate[:2])
    np.testing.assert_allclose(few.p_target, many.p_target[:2], atol=1e-6)


def test_a_bank_is_read_back_and_only_for_what_it_was_made_of(problem, tmp_path):
    clf, images, labels = problem
    bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4, top_m=2), batch_size=8)
    with open(tmp_path / "bank.npz", "wb") as file:
        save_bank(bank, file, {"classifier": "a", "top_m": 2}, [{"id": "x", "why": "torn"}])
    again, skipped = load_bank(tmp_path / "bank.npz", {"classifier": "a", "top_m": 2})
    assert skipped == [{"id": "x", "why": "torn"}]
    assert again.config == bank.config
    for name in ("cells", "norms", "prepared", "valid", "group", "image", "cell", "references"):
        np.testing.assert_array_equal(getattr(again, name), getattr(bank, name))
    with pytest.raises(fg.InputError, match="top_m 2, expected 5"):
        load_bank(tmp_path / "bank.npz", {"classifier": "a", "top_m": 5})
    (tmp_path / "bank.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(fg.InputError, match="cannot be read"):
        load_bank(tmp_path / "bank.npz", {"classifier": "a", "top_m": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 9])}, "label 9: expected 0 to 2"),
        ({"labels": np.array([0.0, 1.0])}, "expected integers"),
        ({"top_m": 10}, "top_m 10: expected 1 to 9"),
    ],
)
def test_what_cannot_be_used_is_named(problem, change, message):
    clf, images, _ = problem
    arguments = {"labels": np.array([0, 1]), "top_m": 2} | change
    config = fg.BankConfig(per_class=1, top_m=arguments.pop("top_m"))
    with pytest.raises(fg.InputError, match=message):
        fg.build_bank(clf, images[:2], config=config, **arguments)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 6, 6, 3), np.uint8), "expected float values"),
        (np.full((2, 6, 6, 3), 255.0), r"values in \[0, 1\], got 255 to 255"),
        (np.full((2, 6, 6, 3), -1.0), r"values in \[0, 1\], got -1 to -1"),
        (np.full((2, 6, 6, 3), np.nan), r"values in \[0, 1\], got nan to nan"),
        (np.zeros((2, 6, 6, 1)), r"expected \[B, 6, 6, 3\], got \[2, 6, 6, 1\]"),
        (np.zeros((2, 6, 6)), r"expected \[B, 6, 6, 3\], got \[2, 6, 6\]"),
        (np.zeros((1, 2, 6, 6, 3)), r"expected \[B, 6, 6, 3\], got \[1, 2, 6, 6, 3\]"),
        (np.zeros((2, 8, 8, 3)), r"expected \[B, 6, 6, 3\], got \[2, 8, 8, 3\]"),
    ],
)
def test_images_that_cannot_be_used_are_named(problem, images, message):
    clf, _, _ = problem
    for given in (images, lambda indices: iter([(indices, images)])):
        with pytest.raises(fg.InputError, match=message):
            fg.build_bank(clf, given, np.array([0, 1]), fg.BankConfig(per_class=1, top_m=2))


@pytest.mark.parametrize("count", [1, 3])
def test_labels_are_one_per_image(problem, count):
    clf, images, labels = problem
    with pytest.raises(fg.InputError, match=f"expected 2, one per image, got {count}"):
        fg.build_bank(clf, images[:2], labels[:count], fg.BankConfig(per_class=1, top_m=2))


def test_nan_logits_are_named_by_their_image(problem):
    clf, images, labels = problem
    images = images.copy()
    images[7] = 0
    broken = fg.Classifier(
        lambda images: jnp.log(cells_as_images(images)), clf.head, CLASSES, clf.image_size
    )
    with pytest.raises(fg.InputError, match=r"^reference image 7: the classifier's logits are NaN"):
        fg.build_bank(broken, images, labels, fg.BankConfig(per_class=30, top_m=2), batch_size=8)


def test_a_head_of_other_classes_than_the_classifier_says_is_named(problem):
    clf, images, labels = problem
    wrong = fg.Classifier(clf.features, clf.head, CLASSES + 1, clf.image_size)
    with pytest.raises(fg.InputError, match="expected 4 classes' logits, got 3"):
        fg.build_bank(wrong, images, labels)


def test_the_cells_of_all_classes_are_not_copied_for_each_image(problem):
    clf, images, labels = problem
    config = fg.BankConfig(per_class=4, top_m=2, reference="all")
    bank = fg.build_bank(clf, images, labels, config, batch_size=8)
    candidates = bank.for_targets(np.array([0, 1, 2, 1, 0]))
    assert candidates.cells is bank.cells
    assert candidates.group.tolist() == [0, 0, 0, 0, 0]
    text = str(jax.make_jaxpr(lambda c: jax.vmap(c.serving)(c.group).cells[0])(candidates))
    assert "gather" not in text


def test_a_bank_of_a_thousand_classes_holds_the_ten_that_occur(problem):
    """Groups follow the classes found, places the references found; nothing else is changed."""
    clf, images, labels = problem
    wide = fg.PooledLinear(
        jnp.pad(clf.head.kernel, ((0, 0), (0, 997))),
        jnp.pad(clf.head.bias, (0, 997), constant_values=-100),
    )
    many = fg.Classifier(clf.features, wide, 1000, 6)
    small = fg.build_bank(clf, images, labels, fg.BankConfig(10**9, top_m=2), batch_size=8)
    large = fg.build_bank(many, images, labels, fg.BankConfig(10**9, top_m=2), batch_size=8)
    np.testing.assert_array_equal(large.cells, small.cells)
    assert large.cells.shape == (3, 2 * small.references.max(), CHANNELS)
    assert large.group[:3].tolist() == [0, 1, 2]
    assert set(large.group[3:].tolist()) == {-1}
    for group in (large.for_targets(np.array([1, 500])), large.for_targets(np.arange(4, 16))):
        for g in group.group[group.group < 0]:
            assert not bool(group.serving(g).valid.any())


@pytest.mark.parametrize("batch", [1, 5])
def test_the_candidates_of_a_batch_give_a_method_the_maps_of_the_whole_bank(problem, batch):
    """Seen before: a bank narrowed to a batch was taken for the whole, and gave other maps."""
    clf, images, labels = problem
    bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4, top_m=2), batch_size=8)
    predicted = np.asarray(clf(images).argmax(-1))
    targets = np.int32((predicted + 1) % CLASSES)
    whole = METHODS["fgvce_dominant"](clf, images, predicted, targets, bank=bank)
    part = METHODS["fgvce_dominant"](
        clf, images[:batch], predicted[:batch], targets[:batch], bank=bank
    )
    np.testing.assert_allclose(part, whole[:batch], atol=1e-6)
    assert np.abs(whole).max() > 0


def test_a_bank_is_held_to_the_sigma_it_was_built_with(problem):
    clf, images, labels = problem
    bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=4, top_m=2), batch_size=8)
    assert bank.config.sigma == 0.8
    message = r"^bank: built with sigma 0.8, the search has 0; expected the same"
    with pytest.raises(fg.InputError, match=message):
        fg.explain(clf, bank, images[:2], labels[:2], fg.SearchConfig(sigma=0))
    with pytest.raises(fg.InputError, match=message):
        METHODS["fgvce_invariant"](
            clf, images[:2], labels[:2], labels[:2], bank=bank, config=fg.SearchConfig(sigma=0)
        )
    hard = fg.BankConfig(per_class=4, top_m=2, sigma=0)
    bank = fg.build_bank(clf, images, labels, hard, batch_size=8)
    out = fg.explain(clf, bank, images[:2], labels[:2], fg.SearchConfig(sigma=0))
    assert out.num_edits.shape == (2,)
