"""Twins and ablations of the birds: one change, known to the pixel, and nothing else."""

from functools import partial

import jax
import numpy as np
import pytest

from fgvce_jax.data.birds import (
    CLASS_NAMES,
    CLASSES,
    DIFFERING,
    KEYPOINT_NAMES,
    PART_NAMES,
    Birds,
    differing_parts,
    render,
    renderer,
    sibling_parts,
    siblings,
)
from fgvce_jax.errors import InputError

SIZE = 112
OF_EACH_PART = 30


@pytest.fixture(scope="module")
def birds():
    return Birds("test", size=SIZE)


@pytest.fixture(scope="module")
def cases():
    """(indices, siblings, parts in which they differ): as many of each part."""
    out = []
    labels = Birds("test").labels.tolist()
    for part in PART_NAMES:
        having = [
            (i, q, part)
            for i in range(len(labels))
            for q, differs in sibling_parts(labels[i]).items()
            if differs == part
        ]
        order = np.random.default_rng(0).permutation(len(having))
        out += [having[i] for i in order[:OF_EACH_PART]]
    return tuple(np.array(column) for column in zip(*out, strict=True))


@pytest.fixture(scope="module")
def images(birds, cases):
    return birds.render_batch(cases[0])


@pytest.fixture(scope="module")
def twins(birds, cases):
    return birds.twins(*cases[:2])


@pytest.fixture(scope="module")
def ablations(birds, cases):
    return birds.withouts(cases[0], [[part] for part in cases[2]])


@pytest.fixture(scope="module")
def outlines(cases):
    """The part of each image and of its twin with nothing in front of it: bool [2, B, S, S]."""
    indices, others, parts = cases
    root = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 1)
    keys = jax.vmap(partial(jax.random.fold_in, root))(indices)
    numbers = np.array([PART_NAMES.index(part) for part in parts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "LEAF_CHANCE", 0.0)
        patch.setattr(renderer, "TWIG_CHANCE", 0.0)

        @jax.jit
        @jax.vmap
        def outline(key, label, part):
            alone = np.arange(len(PART_NAMES)) == part
            return render(key, label, SIZE, shown=alone).part_masks.any(0)

        labels = Birds("test").labels[indices]
        return np.stack([outline(keys, of, numbers) for of in (labels, others)])


def dilate(mask, by):
    """Grows masks [..., H, W] by `by` pixels in every direction."""
    padded = np.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(by, by)] * 2)
    h, w = mask.shape[-2:]
    shifts = [(i, j) for i in range(2 * by + 1) for j in range(2 * by + 1)]
    return np.any([padded[..., i : i + h, j : j + w] for i, j in shifts], axis=0)


def change(a, b):
    """Largest change of a channel at every pixel."""
    return np.abs(a["image"].astype(int) - b["image"]).max(-1)


def of_part(batch, cases):
    """The mask of each image's differing part, [B, S, S]."""
    numbers = [PART_NAMES.index(part) for part in cases[2]]
    return batch["part_masks"][np.arange(len(numbers)), numbers]


def relabelled(indices, classes):
    """The same draws as another split of the same name, in which these birds have other classes."""
    other = Birds("test", size=SIZE)
    other.labels = other.labels.copy()
    other.labels[indices] = classes
    return other


def assert_same(a, b, fields=("image", "part_masks", "keypoints")):
    for field in fields:
        np.testing.assert_array_equal(a[field], b[field], err_msg=field)


def test_each_part_is_among_the_cases(cases):
    assert all(np.sum(cases[2] == part) == OF_EACH_PART for part in PART_NAMES)


@pytest.mark.parametrize("other", ["twins", "ablations"])
def test_nothing_changes_but_the_part(other, cases, images, outlines, request):
    other = request.getfixturevalue(other)
    changed = change(images, other)
    # Not a single pixel outside the part, wherever that would be seen if nothing hid it.
    assert not changed[~dilate(outlines.any(0), 2)].any()
    # Where it is seen. A trace shines through the soft edge of a leaf in front of it.
    seen = dilate(of_part(images, cases) | of_part(other, cases), 2)
    stray = (changed * ~seen).reshape(len(seen), -1)
    assert np.mean((stray > 0).sum(1) == 0) > 0.8
    assert (stray > 0).sum(1).max() <= 12
    assert stray.max() < 64


def test_the_part_does_change(cases, images, twins, ablations):
    """Of what is seen of a part, its ablation changes nearly all."""
    part = of_part(images, cases)
    gone = change(images, ablations) > 0
    shown = part.sum((1, 2)) > 20
    assert np.mean(shown) > 0.7
    assert np.mean(gone[shown][part[shown]]) > 0.97
    either = part | of_part(twins, cases)
    altered = (change(images, twins) > 16) & either
    assert np.mean(altered[either.sum((1, 2)) > 20].sum((1, 2)) > 10) > 0.9


def test_of_its_own_class_a_bird_is_its_own_twin(birds, cases, images):
    indices = cases[0]
    assert_same(birds.twins(indices, birds.labels[indices]), images)


def test_the_twin_of_the_twin_is_the_original(birds, cases, images, twins):
    indices, others, _ = cases
    once = np.unique(indices, return_index=True)[1]
    swapped = relabelled(indices[once], others[once])
    assert_same(swapped.render_batch(indices[once]), {k: v[once] for k, v in twins.items()})
    back = swapped.twins(indices[once], birds.labels[indices[once]])
    assert_same(back, {k: v[once] for k, v in images.items()})


def test_without_the_differing_part_siblings_are_one_picture(cases, ablations):
    indices, others, parts = cases
    once = np.unique(indices, return_index=True)[1]
    swapped = relabelled(indices[once], others[once])
    bare = swapped.withouts(indices[once], [[part] for part in parts[once]])
    expected = {k: v[once] for k, v in ablations.items()}
    assert_same(bare, expected, ("image", "part_masks"))


def test_without_its_crest_a_bird_is_its_smooth_crowned_sibling(cases, ablations, twins):
    smooth = [part == "crest" and CLASSES[q].crest == 0 for _, q, part in zip(*cases, strict=True)]
    assert np.sum(smooth) >= 5
    for field in ("image", "part_masks"):
        np.testing.assert_array_equal(ablations[field][smooth], twins[field][smooth])


def test_without_nothing_it_is_the_image(birds, cases, images):
    indices = cases[0][:40]
    assert_same(birds.withouts(indices, [()] * 40), {k: v[:40] for k, v in images.items()})


def test_without_a_part_its_mask_is_empty_and_others_only_grow(cases, images, ablations):
    owners = dict(zip(KEYPOINT_NAMES, renderer.parts.KEYPOINTS.values(), strict=True))
    for i, part in enumerate(cases[2]):
        number = PART_NAMES.index(part)
        before, after = images["part_masks"][i], ablations["part_masks"][i]
        assert not after[number].any()
        assert not (np.delete(before, number, 0) & ~np.delete(after, number, 0)).any()
        gone = [owner == number for owner in owners.values()]
        assert not ablations["keypoints"][i, gone, 2].any()
        np.testing.assert_array_equal(
            ablations["keypoints"][i, :, :2], images["keypoints"][i, :, :2]
        )


def test_without_all_parts_the_class_does_not_matter(birds):
    indices, parts = [5, 17, 860], [PART_NAMES] * 3
    bare = birds.withouts(indices, parts)
    assert not bare["part_masks"].any()
    other = relabelled(indices, (birds.labels[indices] + 21) % 50)
    assert_same(other.withouts(indices, parts), bare, ("image", "part_masks"))


def test_one_example_is_the_row_of_its_batch(birds, cases, images, twins, ablations):
    fresh = Birds("test", size=SIZE)
    for row in (0, 150):
        index, other, part = int(cases[0][row]), int(cases[1][row]), str(cases[2][row])
        twin, ablation = fresh.twin(index, other), fresh.without(index, [part])
        assert (twin.label, ablation.label) == (other, int(images["label"][row]))
        assert twin.id == f"birds-test-{index:05d}-as-{other:02d}"
        assert ablation.id == f"birds-test-{index:05d}-without-{part}"
        for one, batch in ((twin, twins), (ablation, ablations)):
            assert_same(vars(one), {k: v[row] for k, v in batch.items()})
    np.testing.assert_array_equal(twins["label"], cases[1])
    np.testing.assert_array_equal(ablations["label"], images["label"])
    two = birds.without(3, {"tail", "beak"})
    assert two.id == "birds-test-00003-without-beak-tail"
    assert not two.part_masks[[PART_NAMES.index("beak"), PART_NAMES.index("tail")]].any()


def test_differing_parts_as_a_table():
    assert DIFFERING.shape == (50, 50, 6)
    for p in range(50):
        for q in range(50):
            by_hand = [
                getattr(CLASSES[p], part) != getattr(CLASSES[q], part) for part in PART_NAMES
            ]
            assert DIFFERING[p, q].tolist() == by_hand


def test_siblings_with_their_parts():
    number = {name: i for i, name in enumerate(CLASS_NAMES)}
    finch = sibling_parts(number["Common Ember Finch"])
    assert finch[number["Fan-tailed Ember Finch"]] == "tail"
    assert finch[number["Ring-legged Ember Finch"]] == "legs"
    assert finch[number["Common Umber Thrush"]] == "body"
    for p in range(50):
        assert tuple(sibling_parts(p)) == siblings(p)
        assert all((part,) == differing_parts(p, q) for q, part in sibling_parts(p).items())


def test_wrong_arguments_are_named(birds):
    for outside in (-1, 50):
        with pytest.raises(InputError, match=f"class_index: expected 0 to 49, got {outside}"):
            birds.twin(3, outside)
    with pytest.raises(InputError, match="classes: expected one for each of 3, got 2"):
        birds.twins([1, 2, 3], [0, 1])
    expected = "parts: expected a collection out of beak, crest, body, wing, tail, legs; got "
    with pytest.raises(InputError, match=expected + "'foot'"):
        birds.without(3, ["tail", "foot"])
    with pytest.raises(InputError, match=expected + "'tail'"):
        birds.without(3, "tail")
    with pytest.raises(InputError, match="parts: expected one for each of 2, got 1"):
        birds.withouts([1, 2], [["tail"]])
    for outside in (-1, 1000):
        match = f"index {outside} outside test of 1000"
        for call in (
            lambda index: birds.twin(index, 0),
            lambda index: birds.without(index, ["tail"]),
            lambda index: birds.render_batch([0, index]),
        ):
            with pytest.raises(IndexError, match=match):
                call(outside)
