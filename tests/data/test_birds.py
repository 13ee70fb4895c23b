"""Drawn birds: the same picture for the same index, and siblings that differ in one part only."""

import subprocess
import sys
from functools import partial
from itertools import combinations

import jax
import numpy as np
import pytest

from fgvce_jax.data import open_dataset
from fgvce_jax.data.birds import (
    CLASS_NAMES,
    CLASSES,
    KEYPOINT_NAMES,
    PART_NAMES,
    Birds,
    differing_parts,
    render,
    siblings,
)
from fgvce_jax.errors import InputError

SIZE = 112
OWNERS = {
    "beak tip": "beak",
    "eye": "body",
    "crest tip": "crest",
    "breast": "body",
    "wing centre": "wing",
    "wing tip": "wing",
    "tail tip": "tail",
    "near foot": "legs",
    "far foot": "legs",
}


@pytest.fixture(scope="module")
def birds():
    return Birds("test", size=SIZE)


@pytest.fixture(scope="module")
def batch(birds):
    return birds.render_batch(range(100))


@pytest.fixture(scope="module")
def family():
    """Every pair of siblings, and the first and the second of each pair drawn with one key."""
    pairs = [(p, q) for p, q in combinations(range(50), 2) if len(differing_parts(p, q)) == 1]
    drawn = Birds("test", size=SIZE)
    sides = []
    for labels in np.array(pairs).T:
        drawn.labels = labels
        sides.append(drawn.render_batch(range(len(pairs))))
    return pairs, *sides


def dilate(mask, by=1):
    """Grows a mask [H, W] by `by` pixels in every direction."""
    padded = np.pad(mask, by)
    h, w = mask.shape
    shifts = [(i, j) for i in range(2 * by + 1) for j in range(2 * by + 1)]
    return np.any([padded[i : i + h, j : j + w] for i, j in shifts], axis=0)


def test_classes_have_a_sibling_each_and_names_of_their_own():
    assert len(CLASSES) == len(set(CLASSES)) == 50
    assert len(set(CLASS_NAMES)) == 50
    for p, species in enumerate(CLASSES):
        assert siblings(p)
        for q in siblings(p):
            assert sum(a != b for a, b in zip(species, CLASSES[q], strict=True)) == 1
    taking_part = [differing_parts(p, q)[0] for p in range(50) for q in siblings(p)]
    assert set(taking_part) == set(PART_NAMES)


def test_differing_parts_follow_the_names():
    number = {name: i for i, name in enumerate(CLASS_NAMES)}
    common, fan = number["Common Ember Finch"], number["Fan-tailed Ember Finch"]
    ringed, thrush = number["Ring-legged Ember Finch"], number["Common Umber Thrush"]
    assert differing_parts(common, common) == ()
    assert differing_parts(common, fan) == differing_parts(fan, common) == ("tail",)
    assert differing_parts(fan, ringed) == ("tail", "legs")
    assert differing_parts(common, thrush) == ("body",)
    assert differing_parts(thrush, fan) == ("body", "tail")


def test_split_is_balanced_in_every_prefix(birds):
    train = Birds("train")
    assert (len(train), len(birds)) == (20_000, 1_000)
    assert np.array_equal(np.bincount(train.labels), np.full(50, 400))
    assert np.array_equal(np.bincount(birds.labels[:100]), np.full(50, 2))
    assert birds.ids[42] == "birds-test-00042"
    assert len(set(train.ids) | set(birds.ids)) == 21_000


def test_pictures_follow_from_seed_split_and_index_alone(birds, batch):
    again = Birds("test", size=SIZE).render_batch([42, 7])
    for field in ("image", "part_masks", "keypoints"):
        assert np.array_equal(again[field], batch[field][[42, 7]])
    example = birds[142]
    assert example.label == 42
    assert np.array_equal(example.image, birds.images([3, 142])[1])
    assert not np.array_equal(example.image, batch["image"][42])
    other = [Birds("test", size=SIZE, seed=1), Birds("train", size=SIZE)]
    changed = [np.mean(d.images([42])[0] != batch["image"][42]) for d in other]
    assert min(changed) > 0.9


def test_shapes_and_types(birds, batch):
    example = birds[0]
    assert example.image.shape == (SIZE, SIZE, 3)
    assert example.image.dtype == np.uint8
    assert example.part_masks.shape == (len(PART_NAMES), SIZE, SIZE)
    assert example.part_masks.dtype == bool
    assert example.keypoints.shape == (len(KEYPOINT_NAMES), 3)
    assert example.keypoints.dtype == np.float32
    assert np.array_equal(example.part_masks, batch["part_masks"][0])
    # Light varies, but pictures are neither black nor burnt out.
    assert np.all((batch["image"].mean((1, 2, 3)) > 25) & (batch["image"].mean((1, 2, 3)) < 240))
    assert batch["image"].std((1, 2, 3)).min() > 15


def test_one_sample_and_a_vmapped_batch_agree(birds, batch):
    root = jax.random.fold_in(jax.random.key(0), 1)
    one = jax.jit(partial(render, size=SIZE))(jax.random.fold_in(root, 17), 17)
    expected = batch["image"][17].astype(np.float32) / 255
    np.testing.assert_allclose(one.image, expected, atol=1.01 / 255)
    assert np.mean(np.asarray(one.part_masks) != batch["part_masks"][17]) < 1e-4
    np.testing.assert_allclose(one.keypoints, batch["keypoints"][17], atol=1e-3)


def test_siblings_differ_only_in_their_part(family):
    pairs, first, second = family
    seen = 0
    for i, (p, q) in enumerate(pairs):
        part = PART_NAMES.index(differing_parts(p, q)[0])
        change = np.abs(first["image"][i].astype(int) - second["image"][i]).max(-1)
        either = first["part_masks"][i, part] | second["part_masks"][i, part]
        outside = change[~dilate(either, 2)]
        # A pixel that a part's edge only grazes is not in its mask, but carries a trace of it.
        assert outside.max() <= 16, (CLASS_NAMES[p], CLASS_NAMES[q])
        assert np.count_nonzero(outside) <= 3, (CLASS_NAMES[p], CLASS_NAMES[q])
        seen += np.count_nonzero(change[either] > 16) > 20
    assert seen > 0.9 * len(pairs)  # in a few, leaves hide the part


def test_masks_are_the_visible_pixels(family):
    """Where a sibling has no crest at all, the pixels that change are the crest."""
    pairs, first, second = family
    crest, smooth = PART_NAMES.index("crest"), 0
    checked = 0
    for i, (p, q) in enumerate(pairs):
        if differing_parts(p, q) != ("crest",) or smooth not in (
            CLASSES[p].crest,
            CLASSES[q].crest,
        ):
            continue
        bare, crested = (first, second) if CLASSES[p].crest == smooth else (second, first)
        assert not bare["part_masks"][i, crest].any()
        mask = crested["part_masks"][i, crest]
        change = np.abs(first["image"][i].astype(int) - second["image"][i]).max(-1)
        assert np.mean(change[mask] > 8) > 0.95
        checked += mask.sum() > 20
    assert checked >= 3


def test_masks_do_not_overlap_and_every_part_is_drawn(batch):
    masks = batch["part_masks"]
    assert masks.sum(1).max() == 1
    area = masks.sum((2, 3))
    has_crest = np.array([CLASSES[label].crest != 0 for label in batch["label"]])
    crest = PART_NAMES.index("crest")
    assert not area[~has_crest, crest].any()
    assert np.mean(area[has_crest, crest] > 30) > 0.9
    others = np.delete(area, crest, axis=1)
    assert np.mean(others > 20) > 0.9
    assert 0.05 < masks.any(1).mean() < 0.35  # the bird's share of the picture


def test_keypoints_lie_in_their_part_when_visible(batch):
    owners = np.array([PART_NAMES.index(OWNERS[name]) for name in KEYPOINT_NAMES])
    for masks, keypoints in zip(batch["part_masks"], batch["keypoints"], strict=True):
        for (x, y, visible), owner in zip(keypoints, owners, strict=True):
            inside = 0 <= x < SIZE and 0 <= y < SIZE
            assert visible == (inside and masks[owner, int(y), int(x)])
    share = batch["keypoints"][..., 2].mean(0)
    crest = KEYPOINT_NAMES.index("crest tip")
    assert np.all(np.delete(share, crest) > 0.6)
    assert np.all(share < 1)
    bare = [CLASSES[label].crest == 0 for label in batch["label"]]
    assert not batch["keypoints"][bare, crest, 2].any()


def test_keypoints_are_where_the_parts_end(batch):
    """The beak's tip is its farthest pixel from the eye, and the bird looks both ways."""
    beak, eye, tail = (KEYPOINT_NAMES.index(n) for n in ("beak tip", "eye", "tail tip"))
    gaps = []
    for masks, keypoints in zip(batch["part_masks"], batch["keypoints"], strict=True):
        if keypoints[beak, 2]:
            y, x = np.nonzero(masks[PART_NAMES.index("beak")])
            pixels = np.stack([x, y], 1) + 0.5
            far = pixels[np.argmax(np.linalg.norm(pixels - keypoints[eye, :2], axis=1))]
            gaps.append(np.linalg.norm(far - keypoints[beak, :2]))
    assert np.mean(np.array(gaps) < 3) > 0.9  # in a few, a leaf cuts through the beak
    looks_right = batch["keypoints"][:, beak, 0] > batch["keypoints"][:, tail, 0]
    assert 0.3 < looks_right.mean() < 0.7


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="unknown split 'val'; expected one of train, test"):
        Birds("val")
    with pytest.raises(InputError, match="size 8"):
        Birds("test", size=8)
    with pytest.raises(IndexError, match="index 1000 outside test of 1000"):
        Birds("test")[1000]
    with pytest.raises(InputError, match="'swans': unknown; expected one of birds, digits, folder"):
        open_dataset("swans", "test")
    with pytest.raises(InputError, match="unknown option 'path'; expected size, seed"):
        open_dataset("birds", "test", path="somewhere")


def test_birds_need_no_imaging_library():
    """A bare accelerator machine has none, and no TFDS; there, importing them fails."""
    code = (
        "import sys; absent = 'PIL', 'sklearn', 'matplotlib', 'tensorflow_datasets';"
        "sys.modules.update(dict.fromkeys(absent)); from fgvce_jax.data import open_dataset;"
        "print(open_dataset('birds', 'test')[3].image.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(112, 112, 3)"
