"""Datasets kept as TFDS records: `builder` writes them, `reader` reads them in any order.

Both work without TensorFlow: encoded images go into `array_record` files as they are. Records
follow the official order of each split. An image that is listed but absent keeps its place, with
an empty image, so that indices and counts stay those of the official split.
"""

from fgvce_jax.data.records.builder import RecordBuilder, url_info
from fgvce_jax.data.records.listing import ListedImage, Listing
from fgvce_jax.data.records.reader import RecordDataset

__all__ = ["ListedImage", "Listing", "RecordBuilder", "RecordDataset", "url_info"]
