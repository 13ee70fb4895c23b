import json
from dataclasses import asdict

import numpy as np
import pytest

from fgvce_jax import evaluate as module
from fgvce_jax import run_inputs
from fgvce_jax.config import ExplainConfig
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.evaluate import evaluate_run, evaluation_table
from fgvce_jax.models.classifier import Classifier
from fgvce_jax.results import CORE_MAPS, Edit, ImageResult, open_run

N, SIZE = 4, 8  # the classifier's images; those on disk are twice as large


class Images:
    """16 x 16 images with two keypoints: `points[i]` are (x, y) in the classifier's 8 x 8."""

    class_names, part_names = ("a", "b"), ()

    def __init__(self, points, names=("head", "tail")):
        self.points, self.keypoint_names = points, names
        self.labels = np.zeros(len(points), np.int32)
        self.ids = [f"{index}.png" for index in range(len(points))]

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        if self.points[index] == "not annotated":
            unknown = np.full((2, 3), [np.nan, np.nan, 0], np.float32)
            return Example(np.zeros((16, 16, 3), np.uint8), 0, f"{index}.png", unknown)
        if self.points[index] is None:
            raise UnreadableImage(f"{index}.png", "empty file")
        keypoints = np.float32([[2 * x, 2 * y, 1] for x, y in self.points[index]])
        return Example(np.zeros((16, 16, 3), np.uint8), 0, f"{index}.png", keypoints)


# Cells are 2 x 2 pixels: (1, 1) is in cell 0, (3, 1) in cell 1, (7, 7) in cell 15.
QUERIES = Images([None, [(1, 1), (3, 1)], [(7, 7), (1, 1)], [(1, 1), (1, 1)], "not annotated"])
REFERENCES = Images([[(7, 7), (3, 1)], [(1, 1), (5, 5)], "not annotated"])


def one_cell(cell):
    values = np.zeros(N * N, np.float32)
    values[cell] = 1
    return values.reshape(N, N)


def record(index, edits, invariant, status="explained"):
    maps = dict.fromkeys(CORE_MAPS, one_cell(5)) | {
        "invariant": one_cell(invariant),
        "contributions_before": np.full((N, N), 0.25, np.float32),
    }
    return ImageResult(
        index,
        f"{index}.png",
        0,
        status,
        predicted=1,
        flipped=True,
        edits=tuple(Edit(old, "", image, new, 0.5) for old, image, new in edits),
        p_target=[0.1] * (len(edits) + 1),
        time_s=0.1,
        maps=maps,
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run of three explanations, and an image without references."""
    records = [
        # head for tail: near 1, same 0; tail for tail: near 1, same 1; nothing for nothing: 0, 0
        record(1, [(0, 0, 1), (1, 0, 1), (9, 1, 3)], invariant=0),
        # head for head: near 1, same 1; then an edit from an image that nobody annotated
        record(2, [(15, 1, 0), (0, 2, 0)], invariant=6),
        record(3, [], invariant=0, status="no_reference"),
        record(4, [(0, 0, 1)], invariant=0),
    ]
    with open_run(tmp_path / "run", asdict(ExplainConfig())) as out:
        out.write_part(0, records)
        out.merge(("a", "b"), 1, {})
        out.finish()
    splits = {"test": QUERIES, "train": REFERENCES}
    monkeypatch.setattr(run_inputs, "open_dataset", lambda name, split, path, **_: splits[split])
    clf = Classifier(np.asarray, np.asarray, num_classes=2, image_size=SIZE)
    monkeypatch.setattr(module, "open_classifier", lambda config: clf)
    return tmp_path / "run"


def test_measures_by_hand(run):
    found = evaluate_run(run)
    assert json.loads(json.dumps(found)) == found
    assert found["explanations"] == 3
    assert found["parts"] == 2
    assert found["not_annotated"] == {"images": 1, "edits": 2}
    each = [(edit["id"], edit["step"], edit["near_kp"], edit["same_kp"]) for edit in found["edits"]]
    assert each == [
        ("1.png", 1, 1.0, 0.0),
        ("1.png", 2, 1.0, 1.0),
        ("1.png", 3, 0.0, 0.0),
        ("2.png", 1, 1.0, 1.0),
    ]
    assert found["keypoints"] == {
        "first_edits": 2,
        "near_kp_first": 100.0,
        "same_kp_first": 50.0,
        "all_edits": 4,
        "near_kp_all": 75.0,
        "same_kp_all": 50.0,
    }
    # Two keypoints in 16 cells: of 256 pairs of cells 2 show the same part.
    chance = {"near": 12.5, "same": pytest.approx(100 * 2 / 256)}
    by_chance = {
        f"{kind}_kp_{which}": chance[kind] for kind in chance for which in ("first", "all")
    }
    assert found["chance"] == {"first_edits": 2, "all_edits": 4, **by_chance}
    assert found["invariant"]["keypoints_chance"] == pytest.approx(4 * 2 / 64)
    # A corner cell of 2 x 2 pixels upsampled: 1, 3/4, 1/4 along an axis; above 1/2 are the
    # products of 1 and 3/4, 2 x 2 pixels. One keypoint, at (1, 1), lies among them. The second
    # image's map has none.
    invariant = found["invariant"]
    assert invariant["counted"] == 1
    assert invariant["without_keypoint"] == 1
    assert invariant["pixels"] == 4
    assert invariant["keypoints"] == 1
    assert invariant["contribution"] == pytest.approx(0.25)
    assert found["dominant"]["counted"] == 0
    assert found["dominant"]["pixels"] is None


def test_sides_are_merged_unless_asked(run, monkeypatch):
    """With an eye left and right, one for the other is the same part."""
    for images in (QUERIES, REFERENCES):
        monkeypatch.setattr(images, "keypoint_names", ("left eye", "right eye"))
    merged, apart = evaluate_run(run), evaluate_run(run, merge_sides=False)
    assert (merged["parts"], apart["parts"]) == (1, 2)
    assert [edit["same_kp"] for edit in merged["edits"]] == [1.0, 1.0, 0.0, 1.0]
    assert [edit["same_kp"] for edit in apart["edits"]] == [0.0, 1.0, 0.0, 1.0]
    assert [edit["near_kp"] for edit in merged["edits"]] == [1.0, 1.0, 0.0, 1.0]


def test_the_table_names_them(run):
    lines = evaluation_table(evaluate_run(run)).splitlines()
    assert lines[0].split() == ["explanations", "3"]
    assert lines[1] == "not annotated    1 images, 2 edits; left out"
    assert lines[4].split() == ["first", "2", "100.0%", "50.0%"]
    assert lines[5].split() == ["all", "4", "75.0%", "50.0%"]
    assert lines[6].split() == ["random", "cells", "12.5%", "0.8%"]
    assert lines[9].split() == ["invariant", "4", "1.00", "0.2500", "1", "1"]
    assert lines[10].split() == ["dominant", "—", "—", "—", "0", "2"]


def test_a_dataset_without_keypoints(run, monkeypatch):
    monkeypatch.setattr(run_inputs, "open_dataset", lambda *_, **__: Images([], names=()))
    with pytest.raises(InputError, match="has no keypoints, expected one that has"):
        evaluate_run(run)


def test_an_image_that_is_gone(run, monkeypatch):
    monkeypatch.setattr(QUERIES, "points", [None] * 5)
    with pytest.raises(InputError, match=r"1\.png: empty file; the run had read it"):
        evaluate_run(run)


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a run"):
        evaluate_run(tmp_path)
