"""The format of a run on disk: tables, maps, and the result of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float

FORMAT = "fgvce-run/2"
CORE_MAPS = ("invariant", "dominant", "contributions_before", "contributions_after")
"""The maps that every explanation has."""

EDITS = pa.list_(
    pa.struct(
        [
            ("cell", pa.int32()),
            ("candidate_image", pa.string()),
            ("candidate_index", pa.int32()),
            ("candidate_cell", pa.int32()),
            ("similarity", pa.float32()),
        ]
    )
)
EXPLANATIONS = pa.schema(
    [
        ("id", pa.string()),
        ("index", pa.int32()),
        ("target", pa.int32()),
        ("predicted", pa.int32()),
        ("target_name", pa.string()),
        ("predicted_name", pa.string()),
        ("status", pa.string()),
        ("flipped", pa.bool_()),
        ("num_edits", pa.int32()),
        ("p_target_before", pa.float32()),
        ("p_target_after", pa.float32()),
        ("p_target", pa.list_(pa.float32())),
        ("edits", EDITS),
        ("time_s", pa.float64()),
    ]
)
PREDICTIONS = pa.schema(
    [("index", pa.int32()), ("id", pa.string()), ("target", pa.int32()), ("predicted", pa.int32())]
)


@dataclass(frozen=True)
class Edit:
    """One replaced cell.

    Attributes:
        cell: The cell of the image, row-major.
        candidate_image: Id of the reference image that the new cell came from.
        candidate_index: That image's index in the reference split.
        candidate_cell: Its cell there, row-major.
        similarity: Cosine similarity of the two cells.
    """

    cell: int
    candidate_image: str
    candidate_index: int
    candidate_cell: int
    similarity: float


@dataclass(frozen=True)
class ImageResult:
    """The result of one image of the split.

    Attributes:
        index: Its index in the split.
        id: Its id.
        label: Its correct class.
        status: "unexplained" (read, with nothing to explain), "explained",
            "no_reference" (no candidate for the target class, so no edits) or "skipped".
        predicted: The predicted class (P); None where skipped.
        target: The target class (Q) of the explanation; the label where None.
        why: Why it was skipped.
        flipped: Whether the edited image is classified as the target.
        edits: In order.
        p_target: The target's probability before the first edit and after each.
        time_s: Seconds that its explanation took.
        maps: [n, n] arrays by name, the four of `CORE_MAPS` and any other method's; a name has one
            shape throughout a run.
    """

    index: int
    id: str
    label: int
    status: Literal["unexplained", "explained", "no_reference", "skipped"]
    predicted: int | None = None
    target: int | None = None
    why: str | None = None
    flipped: bool = False
    edits: tuple[Edit, ...] = ()
    p_target: Sequence[float] = ()
    time_s: float | None = None
    maps: Mapping[str, Float[np.ndarray, "..."]] = field(default_factory=dict)
