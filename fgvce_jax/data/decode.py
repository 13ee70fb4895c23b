"""From an image file to uint8 RGB, whatever the file's format, orientation and colour mode."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from fgvce_jax.config import DataConfig
from fgvce_jax.errors import UnreadableImage

LARGE = 16_000_000
"""Pixels above which images are decoded one at a time: 200 MB and more, for every thread."""

NO_MEMORY = "too large for the memory that is free"
_EXPECTED = "expected a whole JPEG, PNG, WebP, GIF, TIFF or BMP file"
_one_large = threading.Lock()


def read_image(
    path: str | os.PathLike[str], id: str, max_pixels: int = DataConfig.max_pixels
) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file; see `decode`.

    Raises:
        UnreadableImage: Under `id`, if there is no such file, or `decode` or `check_bytes` has a
            reason.
    """
    try:
        with open(path, "rb") as file:
            check_bytes(os.fstat(file.fileno()).st_size, id, max_pixels)
            encoded = file.read()
    except OSError as error:
        raise UnreadableImage(id, f"cannot be read ({error.strerror})") from error
    return decode(encoded, id, max_pixels)


def check_bytes(size: int, id: str, max_pixels: int = DataConfig.max_pixels) -> None:
    """Raise UnreadableImage for a file too large to hold an image within the limit.

    A file holds at most 8 bytes a pixel (RGBA of 16 bits without compression), and its metadata.
    """
    most = 8 * max_pixels + (1 << 20)
    if size > most:
        raise UnreadableImage(
            id,
            f"a file of {size >> 20:,} MiB; expected at most {most >> 20:,} for {max_pixels:,} "
            "pixels (data.max_pixels)",
        )


def decode(
    encoded: bytes, id: str, max_pixels: int = DataConfig.max_pixels
) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file's content as a viewer would show it.

    EXIF orientation is applied, grey, palette and CMYK become RGB, 16 bits become 8, and
    transparent pixels show white. Of an animation or of several pages, the first. The size is read
    before the pixels are.

    Raises:
        UnreadableImage: Under `id`, if the file is empty or damaged, a side of the image is below
            2 pixels, it has more than `max_pixels`, or they do not fit in memory.
    """
    if not encoded:
        raise UnreadableImage(id, f"the file is empty; {_EXPECTED}")
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            _check_size(*file.size, id, max_pixels)
            with _turn(file.width * file.height):
                ImageOps.exif_transpose(file, in_place=True)
                return _rgb(file)
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage(id, NO_MEMORY) from error
    # Pillow's plugins raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise UnreadableImage(id, f"cannot be decoded ({_why(error)}); {_EXPECTED}") from error


def _check_size(width: int, height: int, id: str, max_pixels: int) -> None:
    if min(height, width) < 2:
        raise UnreadableImage(id, f"{width}x{height} pixels; expected at least 2x2")
    if width * height > max_pixels:
        raise UnreadableImage(
            id, f"{width}x{height} pixels; expected at most {max_pixels:,} (data.max_pixels)"
        )


@contextmanager
def _turn(pixels: int) -> Iterator[None]:
    """Wait until no other large image is decoded, if this one is large."""
    if pixels <= LARGE:
        yield
        return
    with _one_large:
        yield


def _why(error: Exception) -> str:
    """An error's message, the same in every run: without the addresses of objects."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image file"
    return re.sub(" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split())) or type(error).__name__


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        grey = np.clip(np.asarray(image), 0, 65_535).astype(np.uint32)
        grey = ((grey + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
