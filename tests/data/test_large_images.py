"""Images that are small on the disk and large in memory: skipped, or read in little memory."""

import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from fgvce_jax.config import DataConfig
from fgvce_jax.data import decode as decode_module
from fgvce_jax.data import open_dataset
from fgvce_jax.data.decode import decode
from fgvce_jax.data.pipeline import batches, preprocess
from fgvce_jax.errors import InputError, UnreadableImage
from tests.peak_memory import peak_growth


def grey_png(width, height):
    """A PNG of one grey, made without the image in memory."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(b"\0" + b"\x80" * width) for _ in range(height)] + [packer.flush()]

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def folder_of(path, **images):
    for name, content in images.items():
        (path / "test/class").mkdir(parents=True, exist_ok=True)
        (path / f"test/class/{name}.png").write_bytes(content)
    return path


def read(dataset, resize_to=256):
    """How many images come out of the pipeline, and why the others do not."""
    skipped = []
    found = batches(dataset, np.arange(len(dataset)), 4, 224, resize_to, on_skip=skipped.append)
    return sum(len(batch.index) for batch in found), [error.why for error in skipped]


def test_a_thin_image_is_cut_before_it_is_resized(tmp_path):
    """Its short side of 2 is resized to 256, its long one to 25.6 million pixels."""
    dataset = open_dataset("folder", "test", folder_of(tmp_path, thin=grey_png(2, 200_000)))
    with peak_growth() as growth:
        assert read(dataset) == (1, [])
    assert growth[0] < 150


@pytest.mark.parametrize("shape", [(9, 120), (130, 9), (40, 2000)])
def test_cutting_first_shows_the_same_window(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    short = min(shape)
    resized = tuple(side * 24 // short for side in shape)
    top, left = (round((side - 16) / 2) for side in resized)
    whole = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[top : top + 16, left : left + 16].astype(int)
    assert np.abs(preprocess(image, 16, 24) - expected).max() <= 1  # of 255


@pytest.mark.parametrize("size", [(13_000, 13_000), (60_000_000, 2)])
def test_an_image_above_the_limit_is_not_decoded(tmp_path, size):
    bomb, few = grey_png(*size), grey_png(300, 300)
    path = folder_of(tmp_path, a=bomb, b=bomb, c=bomb, d=bomb, good=few)
    dataset = open_dataset("folder", "test", path)
    with peak_growth() as growth:
        count, why = read(dataset)
    assert count == 1
    assert why == [f"{size[0]}x{size[1]} pixels; expected at most 64,000,000 (data.max_pixels)"] * 4
    assert growth[0] < 60


def test_the_limit_is_set(tmp_path):
    path = folder_of(tmp_path, a=grey_png(30, 20), b=grey_png(30, 21))
    dataset = open_dataset("folder", "test", path, max_pixels=600)
    assert read(dataset, None) == (1, ["30x21 pixels; expected at most 600 (data.max_pixels)"])
    assert DataConfig(max_pixels=600).max_pixels == 600
    for wrong in (0, 10**9):
        with pytest.raises(InputError, match="max_pixels: expected"):
            DataConfig(max_pixels=wrong)
    # Datasets that draw their images have no use for it, and do not mind.
    assert len(open_dataset("digits", "test", max_pixels=600)) > 0


def test_a_file_too_large_for_any_such_image_is_not_read(tmp_path):
    path = folder_of(tmp_path, large=b"")
    with open(path / "test/class/large.png", "r+b") as file:
        file.truncate(3 << 30)  # no disk is used
    with peak_growth() as growth:
        _, (why,) = read(open_dataset("folder", "test", path))
    assert (
        why == "a file of 3,072 MiB; expected at most 489 for 64,000,000 pixels (data.max_pixels)"
    )
    assert growth[0] < 60


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decode_module, "LARGE", 100)
    now, most = set(), []
    plain = decode_module._rgb

    def counted(image):
        now.add(threading.get_ident())
        most.append(len(now))
        pixels = plain(image)
        now.remove(threading.get_ident())
        return pixels

    monkeypatch.setattr(decode_module, "_rgb", counted)
    content = grey_png(900, 900)
    threads = [threading.Thread(target=decode, args=(content, str(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_too_little_memory_is_a_reason_to_skip(tmp_path, monkeypatch):
    dataset = open_dataset("folder", "test", folder_of(tmp_path, a=grey_png(9, 9)))

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", fails)
    assert read(dataset) == (0, ["too large for the memory that is free"])
    monkeypatch.setattr(decode_module, "_rgb", fails)
    with pytest.raises(UnreadableImage, match="image a: too large for the memory that is free"):
        decode(grey_png(9, 9), "a")


def test_sixteen_bits_become_eight():
    import io

    grey = np.array([[0, 128, 129, 257], [65_535, 65_406, 300, 1000]], np.uint16)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "png")
    expected = np.clip(np.round(grey / 257), 0, 255)
    np.testing.assert_array_equal(decode(file.getvalue(), "a")[..., 1], expected)
