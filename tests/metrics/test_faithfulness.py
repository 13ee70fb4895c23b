from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.blur import blurred
from fgvce_jax.metrics import faithfulness, score
from fgvce_jax.metrics.faithfulness import SHARE, pixel_ranks

SIZE, CLASSES = 12, 3


def features(images):
    batch = images.shape[0]
    return images.reshape(batch, 4, 3, 4, 3, 3).mean((2, 4)) ** 2


def head(weights, cells):
    return jnp.einsum("...ijc,ijck->...k", cells, weights)


@pytest.fixture(scope="module")
def problem():
    """(classifier, images, maps, classes)."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(4, 4, 3, CLASSES)), jnp.float32)
    clf = fg.Classifier(features, jax.tree_util.Partial(head, weights), CLASSES, SIZE)
    images = rng.uniform(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    return clf, images, rng.normal(size=(3, 4, 4)).astype(np.float32), np.int32([2, 0, 1])


def probabilities(clf, image):
    logits = np.asarray(clf(image[None])[0], np.float64)
    return np.exp(logits) / np.exp(logits).sum()


def by_the_definition(clf, image, values, label, share, substrate):
    """Both curves, a pass at a time."""
    upsampled = np.asarray(jax.image.resize(values, (SIZE, SIZE), "bilinear")).ravel()
    order = sorted(range(SIZE * SIZE), key=lambda i: (-upsampled[i], i))
    step = int(share * SIZE * SIZE)
    fractions, insertion, deletion = [], [], []
    changed = 0
    while True:
        put_back, removed = substrate.reshape(-1, 3).copy(), image.reshape(-1, 3).copy()
        put_back[order[:changed]] = image.reshape(-1, 3)[order[:changed]]
        removed[order[:changed]] = substrate.reshape(-1, 3)[order[:changed]]
        fractions.append(changed / SIZE**2)
        insertion.append(probabilities(clf, put_back.reshape(image.shape))[label])
        deletion.append(probabilities(clf, removed.reshape(image.shape))[label])
        if changed == SIZE * SIZE:
            return fractions, insertion, deletion
        changed = min(changed + step, SIZE * SIZE)


def test_a_chunk_of_nothing_is_refused(problem):
    with pytest.raises(fg.InputError, match="chunk 0: expected 1 or more"):
        faithfulness(*problem, chunk=0)


@pytest.mark.parametrize("chunk", [7, 512])
def test_curves_are_those_of_one_pass_after_another(problem, chunk):
    clf, images, maps, classes = problem
    options = {"share": 0.1, "sigma": 2.0, "chunk": chunk, "ties": "in_order"}
    curves = faithfulness(clf, images, maps, classes, **options)
    for b in range(len(images)):
        substrate = np.asarray(blurred(images[b], 2.0))
        fraction, insertion, deletion = by_the_definition(
            clf, images[b], maps[b], classes[b], 0.1, substrate
        )
        np.testing.assert_allclose(curves.fraction[b], fraction, rtol=1e-6)
        np.testing.assert_allclose(curves.insertion[b], insertion, atol=1e-5)
        np.testing.assert_allclose(curves.deletion[b], deletion, atol=1e-5)


def test_the_default_has_56_steps(problem):
    """Also at 224 x 224, where 1.8 % are 903 pixels."""
    assert int(SHARE * 224 * 224) == 903
    assert -(-224 * 224 // 903) == 56
    clf, images, maps, classes = problem
    curves = faithfulness(clf, images, maps, classes, ties="in_order")
    assert curves.insertion.shape == curves.deletion.shape == (3, 1 + 144 // 2)  # 2 pixels a step
    assert (curves.fraction[:, 0] == 0).all()
    assert (curves.fraction[:, -1] == 1).all()


@pytest.mark.parametrize("size", [(SIZE, SIZE), (SIZE, 2 * SIZE)])
def test_the_default_blur_is_10_pixels_at_a_height_of_224(problem, size):
    clf, images, maps, classes = problem
    clf = replace(clf, features=lambda images: features(images[:, :, :SIZE]))
    images = np.resize(images, (3, *size, 3))
    ours = faithfulness(clf, images, maps, classes, share=0.1)
    expected = faithfulness(clf, images, maps, classes, share=0.1, sigma=10 * SIZE / 224)
    np.testing.assert_allclose(ours.insertion, expected.insertion, rtol=1e-6)
    other = faithfulness(clf, images, maps, classes, share=0.1, sigma=11 * SIZE / 224)
    assert np.abs(other.insertion - expected.insertion).max() > 1e-5


def test_the_area_is_in_percent():
    fraction = np.float32([0, 0.4, 0.8, 1])  # the last step is shorter
    curve = np.float32([[0, 1, 1, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(score(fraction, curve), [20 + 40 + 10, 100], rtol=1e-6)
    np.testing.assert_allclose(score(fraction, curve[0]), 70, rtol=1e-6)


def test_the_blur_is_a_normalised_gaussian():
    image = np.random.default_rng(1).uniform(size=(9, 9, 3)).astype(np.float32)
    expected = np.zeros((9, 9, 3))
    for i in range(9):
        for j in range(9):
            y, x = np.mgrid[:9, :9]
            weights = np.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * 1.5**2))
            expected[i, j] = np.einsum("hw,hwc->c", weights, image) / weights.sum()
    np.testing.assert_allclose(blurred(image, 1.5), expected, atol=1e-6)


def test_ties_in_order_go_to_the_lowest_index():
    ranks = pixel_ranks(np.float32([[1, 5], [5, 1]]), (2, 2), "in_order")
    np.testing.assert_array_equal(ranks, [[2, 0], [1, 3]])


def test_tied_pixels_have_the_place_of_their_first():
    ranks = pixel_ranks(np.float32([[1, 5, 5], [-0.0, 0.0, 2], [0.0, -1, 1]]), (3, 3))
    np.testing.assert_array_equal(ranks, [[3, 0, 0], [5, 5, 2], [5, 8, 3]])
    # Values that only the upsampling's rounding tells apart are tied.
    close = np.float32([[3, 3 * (1 + 1e-7)], [3 * (1 - 1e-7), 2.99]])
    np.testing.assert_array_equal(pixel_ranks(close, (2, 2)), [[0, 0], [0, 3]])


def groups_by_hand(clf, image, values, label, share, substrate):
    """Both curves where each step takes in whole groups of the same value, a pass at a time."""
    upsampled = np.asarray(jax.image.resize(values, (SIZE, SIZE), "bilinear"))
    levels = np.round(upsampled / np.abs(upsampled).max() * 2**20)
    falling = np.sort(levels, axis=None)[::-1]
    step, points = int(share * SIZE * SIZE), []
    for reached in [*range(0, SIZE * SIZE, step), SIZE * SIZE]:
        taken = levels >= (falling[reached - 1] if reached else np.inf)
        curves = [
            probabilities(clf, np.where(taken[..., None], *pair))[label]
            for pair in ((image, substrate), (substrate, image))
        ]
        points.append((taken.mean(), *curves))
    return np.transpose(points)


def test_tied_pixels_are_exchanged_together(problem):
    clf, images, maps, classes = problem
    maps = np.maximum(maps, 0.2)  # most of each is one plateau
    curves = faithfulness(clf, images, maps, classes, share=0.1, sigma=2.0)
    for b in range(len(images)):
        substrate = np.asarray(blurred(images[b], 2.0))
        expected = groups_by_hand(clf, images[b], maps[b], classes[b], 0.1, substrate)
        ours = curves.fraction[b], curves.insertion[b], curves.deletion[b]
        np.testing.assert_allclose(ours, expected, atol=1e-5)
        assert len(set(np.asarray(curves.fraction[b]).tolist())) < len(curves.fraction[b])


def test_a_constant_map_has_no_order(problem):
    """All pixels at once: the area is the mean of the two ends, whatever the constant."""
    clf, images, maps, classes = problem
    for constant in (0.0, 0.7, -3.0):
        curves = faithfulness(clf, images, np.full_like(maps, constant), classes, sigma=2.0)
        ends = (curves.insertion[:, 0] + curves.insertion[:, -1]) / 2
        for curve in (curves.insertion, curves.deletion):
            np.testing.assert_allclose(score(curves.fraction, curve), 100 * ends, rtol=1e-5)


# RISE's code in NumPy: it works on the normalised image.

MEAN = np.float32([0.5, 0.4, 0.3])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Normalised:
    """Features of the image less `mean`."""

    mean: jax.Array

    def __call__(self, images):
        return features(images - self.mean)


def rise_kernel():
    """A Gaussian of 5 pixels on an 11 x 11 grid, a pixel at a time, mirrored at the grid's ends."""
    kernel = np.zeros((11, 11))
    axis = np.exp(-0.5 * (np.arange(-20, 21) / 5) ** 2)
    axis /= axis.sum()
    mirror = [*range(11), *range(10, -1, -1)]  # of period 22: 0 ... 10, 10 ... 0
    for i, j in np.ndindex(11, 11):
        rows, columns = ([mirror[(k + d) % 22] == 5 for d in range(-20, 21)] for k in (i, j))
        kernel[i, j] = (axis * rows).sum() * (axis * columns).sum()
    return kernel


def test_rise_blurs_for_insertion_and_deletes_to_zero(problem):
    plain, images, maps, classes = problem
    clf = replace(plain, features=Normalised(jnp.asarray(MEAN)))
    options = {"share": 0.1, "substrate": "rise", "ties": "in_order"}
    curves = faithfulness(clf, images, maps, classes, chunk=7, **options)
    kernel = rise_kernel()
    assert kernel.sum() == pytest.approx(1)
    for b in range(len(images)):
        normalised = np.float64(images[b]) - MEAN
        framed = np.pad(normalised, ((5, 5), (5, 5), (0, 0)))
        blurry = np.zeros_like(normalised)
        for i, j in np.ndindex(11, 11):
            blurry += kernel[i, j] * framed[i : i + SIZE, j : j + SIZE]
        # `plain` takes the normalised image itself.
        for name, substrate in (("insertion", blurry), ("deletion", np.zeros_like(blurry))):
            pair = np.float32(normalised), np.float32(substrate)
            fraction, *both = by_the_definition(plain, pair[0], maps[b], classes[b], 0.1, pair[1])
            np.testing.assert_allclose(curves.fraction[b], fraction, rtol=1e-6)
            expected = both[name == "deletion"]
            np.testing.assert_allclose(getattr(curves, name)[b], expected, atol=1e-5)
    blur = faithfulness(clf, images, maps, classes, share=0.1, ties="in_order")
    assert np.abs(blur.deletion - curves.deletion).max() > 1e-3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"substrate": "black"}, "substrate 'black': expected blur or rise"),
        ({"ties": "sorted"}, "ties 'sorted': expected together or in_order"),
    ],
)
def test_another_reading_is_refused(problem, option, message):
    with pytest.raises(fg.InputError, match=message):
        faithfulness(*problem, **option)
