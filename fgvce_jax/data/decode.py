"""From an image file to uint8 RGB, whatever the file's format, orientation and colour mode."""

from __future__ import annotations

import io
import re

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from fgvce_jax.errors import UnreadableImage

_EXPECTED = "expected a whole JPEG, PNG or WebP file"


def decode(encoded: bytes, id: str) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file's content as a viewer would show it.

    EXIF orientation is applied, grey, palette and CMYK become RGB, 16 bits become 8, and
    transparent pixels show white. Of an animation, the first frame.

    Raises:
        UnreadableImage: Under `id`, if the file is empty or damaged, or a side of the image is
            below 2 pixels.
    """
    if not encoded:
        raise UnreadableImage(id, f"the file is empty; {_EXPECTED}")
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            pixels = _rgb(ImageOps.exif_transpose(file))
    # Pillow's plugins raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise UnreadableImage(id, f"cannot be decoded ({_why(error)}); {_EXPECTED}") from error
    height, width = pixels.shape[:2]
    if min(height, width) < 2:
        raise UnreadableImage(id, f"{width}x{height} pixels; expected at least 2x2")
    return pixels


def _why(error: Exception) -> str:
    """An error's message, the same in every run: without the addresses of objects."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image file"
    return re.sub(" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split())) or type(error).__name__


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        grey = np.asarray(image).astype(np.float64)
        grey = np.clip(np.round(grey / 257), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
