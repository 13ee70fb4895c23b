import threading
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from fgvce_jax.data.example import Example
from fgvce_jax.data.pipeline import (
    batches,
    epoch_order,
    image_loader,
    move_keypoints,
    preprocess,
    random_resized_crop,
    training_batches,
)
from fgvce_jax.errors import InputError, UnreadableImage


@dataclass
class Numbered:
    """Image i is 6 x 8 and filled with i; a broken one cannot be read."""

    size: int = 10
    broken: tuple[int, ...] = ()
    with_keypoints: bool = True
    in_memory: bool = False
    class_names = ("even", "odd")
    keypoint_names = ("centre", "hidden")
    part_names = ()

    def __post_init__(self):
        self.labels = np.arange(self.size, dtype=np.int32) % 2
        self.ids = [f"n{i}" for i in range(self.size)]
        self.threads = set()

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        self.threads.add(threading.get_ident())
        if i in self.broken:
            raise UnreadableImage(self.ids[i], "torn")
        points = np.array([[4, 3, 1], [4, 3, 0]], np.float32) if self.with_keypoints else None
        image = np.full((6, 8, 3), i, np.uint8)
        return Example(image, int(self.labels[i]), self.ids[i], points)


# --- one image ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo():
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC))


def test_direct_resize_is_an_antialiased_area(photo):
    out = preprocess(photo, 75)
    assert out.shape == (75, 75, 3)
    assert out.dtype == np.uint8
    # Triangle filter of support 500/75, computed along one row of one column block.
    rows = triangle_weights(375, 75) @ photo[..., 0].astype(float)
    expected = rows @ triangle_weights(500, 75).T
    np.testing.assert_allclose(out[..., 0], expected, atol=1.1)


def triangle_weights(before, after):
    """[after, before] weights of bilinear resampling with antialiasing."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


def test_short_side_then_centre_crop(photo):
    # 500 x 375 -> 341 x 256 (rounded down), then 58 cut off at the left and 16 at the top.
    resized = Image.fromarray(photo).resize((341, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[16:240, 58:282]
    np.testing.assert_array_equal(preprocess(photo, 224, 256), expected)
    upright = np.ascontiguousarray(photo.transpose(1, 0, 2))
    assert preprocess(upright, 224, 256).shape == (224, 224, 3)


def test_an_image_of_the_right_size_is_left_alone(photo):
    square = photo[:224, :224]
    np.testing.assert_array_equal(preprocess(square, 224), square)


def test_resize_to_below_the_image_size(photo):
    for call in (
        lambda: preprocess(photo, 224, 200),
        lambda: batches(Numbered(), [0], 1, 8, 6),
        lambda: training_batches(Numbered(), 1, 8, 6, seed=0, epoch=0),
    ):
        with pytest.raises(InputError, match=r"resize_to .*: expected at least the image size"):
            call()


def test_keypoints_scale_with_the_image():
    points = np.array([[0, 0, 1], [250, 187.5, 1], [499, 374, 1], [10, 20, 0]], np.float32)
    moved = move_keypoints(points, 375, 500, 100)
    expected = [[0, 0, 1], [50, 50, 1], [99.8, 99.7333, 1], [2, 5.3333, 0]]
    np.testing.assert_allclose(moved, expected, rtol=1e-4)


def test_keypoints_cut_off_are_invisible():
    # 500 x 375 -> 341 x 256 -> 224 x 224 from (58, 16): x = 85.04 is the crop's left edge.
    points = np.array([[85, 100, 1], [86, 100, 1], [250, 23, 1], [250, 24, 1]], np.float32)
    moved = move_keypoints(points, 375, 500, 224, 256)
    np.testing.assert_array_equal(moved[:, 2], [0, 1, 0, 1])
    np.testing.assert_allclose(moved[1, :2], [86 * 341 / 500 - 58, 100 * 256 / 375 - 16], rtol=1e-5)


def test_keypoints_outside_the_image_are_invisible():
    points = np.array([[-1, 3, 1], [8, 3, 1], [7.9, 3, 1], [4, 6, 1]], np.float32)
    np.testing.assert_array_equal(move_keypoints(points, 6, 8, 16)[:, 2], [0, 0, 1, 0])


def test_resized_crop_is_a_window_of_the_image_as_it_lies_on_disk():
    # Red and green are the place itself, so that the crop says which window it is.
    height, width, size = 120, 250, 40
    y, x = np.mgrid[:height, :width]
    image = np.stack([x, 2 * y, np.full_like(x, 7)], -1).astype(np.uint8)
    areas, ratios = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        given = np.array([[60.5, 30.5, 1], [200.5, 100.5, 1], [10.5, 10.5, 0]], np.float32)
        out, points = random_resized_crop(rng, image, given, size, 0.3)
        inner = out[5:-5, 5:-5].astype(float)
        red, green = inner[..., 0].mean(0), inner[..., 1].mean(1) / 2
        step = [np.polyfit(np.arange(len(c)), c, 1)[0] for c in (red, green)]  # pixels per pixel
        np.testing.assert_allclose(inner[..., 0], np.tile(red, (30, 1)), atol=1)
        assert (out[..., 2] == 7).all()
        areas.append(size**2 * step[0] * step[1] / (height * width))
        ratios.append(step[0] / step[1])
        for (a, b, visible), (u, v, still) in zip(given, points, strict=True):
            assert still == (visible and 0 <= u < size and 0 <= v < size)
            if still and 5 < u < size - 5 and 5 < v < size - 5:  # the pixel there says its place
                np.testing.assert_allclose(out[int(v), int(u), 0], a, atol=step[0] + 1.5)
                np.testing.assert_allclose(out[int(v), int(u), 1] / 2, b, atol=step[1] + 1.5)
    assert min(areas) > 0.25  # the window is cut off where the image has no room for its shape
    assert min(areas) < 0.35
    assert max(areas) > 0.7
    assert min(ratios) > 0.74
    assert max(ratios) > 1.3
    same = random_resized_crop(np.random.default_rng(5), image, None, size, 0.3)[0]
    assert (same == random_resized_crop(np.random.default_rng(5), image, None, size, 0.3)[0]).all()


# --- streams ------------------------------------------------------------------------------------


def test_batches_follow_the_indices_and_the_last_is_short():
    wanted = [7, 2, 2, 9, 0, 5, 1]
    got = list(batches(Numbered(), wanted, 3, 4))
    assert [batch.index.tolist() for batch in got] == [[7, 2, 2], [9, 0, 5], [1]]
    first = got[0]
    assert first.index.dtype == np.int32
    assert first.image.shape == (3, 4, 4, 3)
    assert first.image.dtype == np.uint8
    np.testing.assert_array_equal(first.image[:, 0, 0, 0], [7, 2, 2])
    np.testing.assert_array_equal(first.label, [1, 0, 0])
    assert first.id == ["n7", "n2", "n2"]
    np.testing.assert_allclose(first.keypoints[0], [[2, 2, 1], [2, 2, 0]])


def test_no_keypoints():
    (batch,) = batches(Numbered(with_keypoints=False), range(2), 2, 4)
    assert batch.keypoints is None


def test_no_indices():
    assert list(batches(Numbered(), [], 4, 4)) == []


@pytest.mark.parametrize("in_memory", [False, True])
def test_unreadable_images_are_left_out_and_reported_in_order(in_memory):
    dataset = Numbered(broken=(1, 4, 9), in_memory=in_memory)
    skipped = []
    got = list(batches(dataset, range(10), 3, 4, on_skip=skipped.append))
    assert [batch.index.tolist() for batch in got] == [[0, 2, 3], [5, 6, 7], [8]]
    assert [(error.id, error.why) for error in skipped] == [
        ("n1", "torn"),
        ("n4", "torn"),
        ("n9", "torn"),
    ]
    assert (dataset.threads == {threading.get_ident()}) == in_memory


def test_a_skipped_image_is_logged_by_default(caplog):
    list(batches(Numbered(broken=(0,)), [0, 1], 2, 4))
    assert "skipped n0: torn" in caplog.text


def test_worker_processes_give_the_same():
    dataset = Numbered(broken=(4,))
    skipped = []
    options = {"batch_size": 3, "image_size": 4, "on_skip": skipped.append}
    threads = list(batches(dataset, range(9), **options))
    processes = list(batches(dataset, range(9), num_workers=1, **options))
    assert [error.id for error in skipped] == ["n4", "n4"]
    for ours, theirs in zip(processes, threads, strict=True):
        np.testing.assert_array_equal(ours.index, theirs.index)
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)


def test_reading_ahead_is_limited():
    @dataclass
    class Counting(Numbered):
        read: int = 0

        def __getitem__(self, i):
            self.read += 1
            return super().__getitem__(i)

    dataset = Counting(size=200)
    stream = batches(dataset, range(200), 4, 4)
    next(stream)
    stream.close()
    assert 4 <= dataset.read <= 20


def test_image_loader_gives_floats():
    load = image_loader(Numbered(broken=(3,)), 2, 4)
    indices, images = zip(*load(np.array([9, 3, 6])), strict=True)
    np.testing.assert_array_equal(indices[0], [9, 6])
    assert images[0].dtype == np.float32
    np.testing.assert_allclose(images[0][:, 0, 0, 0], [9 / 255, 6 / 255], rtol=1e-6)


# --- training -----------------------------------------------------------------------------------


def order_of(dataset, **options):
    return np.stack([b.index for b in training_batches(dataset, 3, 4, **options)]).tolist()


def test_an_epoch_is_a_function_of_seed_and_epoch():
    orders = {
        key: order_of(Numbered(), seed=key[0], epoch=key[1]) for key in [(0, 0), (0, 1), (1, 0)]
    }
    assert orders[0, 0] == order_of(Numbered(), seed=0, epoch=0)
    assert len({str(order) for order in orders.values()}) == 3
    for order in orders.values():
        assert np.shape(order) == (3, 3)
        assert len(np.unique(order)) == 9


def test_random_windows_are_a_function_of_seed_epoch_and_image():
    class Sloping(Numbered):
        def __getitem__(self, i):
            example = super().__getitem__(i)
            slope = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
            return Example(slope, example.label, example.id, example.keypoints)

    def shown(epoch, **options):
        stream = training_batches(Sloping(), 3, 4, seed=0, epoch=epoch, **options)
        return {i: img for b in stream for i, img in zip(b.index, b.image, strict=True)}

    one, again, other = shown(0, crop_scale=0.3), shown(0, crop_scale=0.3), shown(1, crop_scale=0.3)
    assert all((one[i] == again[i]).all() for i in one)
    assert not any((one[i] == other[i]).all() for i in one.keys() & other.keys())
    assert len({img.tobytes() for img in one.values()}) == len(one)
    assert len({img.tobytes() for img in shown(0).values()}) == 1


def test_processes_share_an_epoch():
    shares = [epoch_order(11, 0, 5, process, 3) for process in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert len(set(np.concatenate(shares).tolist())) == 9
    order = order_of(Numbered(size=11), seed=0, epoch=5, process_index=1, process_count=3)
    assert order == [shares[1].tolist()]
    left_out = [
        set(range(11)) - {i for p in range(3) for i in epoch_order(11, 0, epoch, p, 3)}
        for epoch in range(20)
    ]
    assert len(set(map(frozenset, left_out))) > 5


def test_an_epoch_keeps_its_length_where_images_are_broken():
    for broken in [(2,), (2, 5), (0, 1, 2, 3)]:
        readable = sorted(set(range(10)) - set(broken))
        order = order_of(Numbered(broken=broken), seed=0, epoch=0)
        assert np.shape(order) == (3, 3)
        assert set(np.ravel(order)) == set(readable)


def test_too_few_training_images():
    with pytest.raises(InputError, match="batch_size 3: expected at most 2"):
        order_of(Numbered(size=2), seed=0, epoch=0)
    with pytest.raises(InputError, match="training images"):
        order_of(Numbered(broken=tuple(range(10))), seed=0, epoch=0)
