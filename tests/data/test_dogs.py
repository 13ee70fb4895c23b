import functools
import hashlib
import http.server
import json
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from fgvce_jax.data.archive import open_files
from fgvce_jax.data.dogs import KEYPOINT_NAMES, Dogs, DogsBuilder, read_keypoints, read_listing
from fgvce_jax.data.prepare import prepare
from fgvce_jax.data.records import url_info
from fgvce_jax.errors import InputError

BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog")
ANNOTATION = """<annotation><size><width>60</width><height>40</height></size>
<object><name>Chihuahua</name><bndbox><xmin>3</xmin><ymin>5</ymin><xmax>23</xmax><ymax>35</ymax>
</bndbox></object><object><bndbox><xmin>30</xmin><ymin>1</ymin><xmax>59</xmax><ymax>39</ymax>
</bndbox></object></annotation>"""


def image_names():
    return [f"{breed}/{breed[:9]}_{10 * i}.jpg" for breed in BREEDS for i in range(4)]


def write_list(path, names, labels):
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    scipy.io.savemat(path, {"file_list": cells, "labels": np.array(labels, float)[:, None]})


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The three archives' content."""
    root = tmp_path_factory.mktemp("dogs")
    names = image_names()
    for i, name in enumerate(names):
        image = root / "Images" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 60, 3), 20 * i, np.uint8)).save(image)
        annotation = root / "Annotation" / name.removesuffix(".jpg")
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(ANNOTATION)
    labels = [1 + i // 4 for i in range(12)]
    train = [0, 1, 4, 5, 8, 9, 10]
    test = [i for i in range(12) if i not in train]
    for split, chosen in (("train", train), ("test", test)):
        write_list(
            root / f"{split}_list.mat", [names[i] for i in chosen], [labels[i] for i in chosen]
        )
    return root


@pytest.fixture(scope="module")
def archives(extracted, tmp_path_factory):
    root = tmp_path_factory.mktemp("archives")
    for name, members in {
        "images.tar": ["Images"],
        "annotation.tar": ["Annotation"],
        "lists.tar": ["train_list.mat", "test_list.mat"],
    }.items():
        with tarfile.open(root / name, "w") as tar:
            for member in members:
                tar.add(extracted / member, member)
    return root


def joint_entries():
    """StanfordExtra's entries for the first two images."""
    joints = [[p + 0.25, 2 * p / 3, p % 2] for p in range(24)]
    return [
        {"img_path": name, "img_width": 60, "img_height": 40, "joints": [*joints], "seg": "..."}
        for name in image_names()[:2]
    ]


@pytest.fixture(scope="module")
def keypoint_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("extra") / "StanfordExtra_v12.json"
    path.write_text(json.dumps(joint_entries()))
    return path


def listing(path, keypoints=None):
    return read_listing(open_files(path, {}, Path("unused"), lambda *_: None), keypoints)


@pytest.mark.parametrize("form", ["extracted", "archives"])
def test_the_official_splits(extracted, archives, tmp_path, form):
    prepare("dogs", extracted if form == "extracted" else archives, tmp_path)
    train, test = Dogs("train", tmp_path), Dogs("test", tmp_path)
    assert (len(train), len(test)) == (7, 5)
    assert train.class_names == ("Chihuahua", "Japanese spaniel", "Maltese dog")
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1, 2])
    assert test.ids[0] == "n02085620-Chihuahua/n02085620_20.jpg"
    assert abs(int(test[0].image[0, 0, 0]) - 40) < 3
    assert test.keypoint_names == ()
    assert test[0].keypoints is None
    np.testing.assert_array_equal(test.boxes(0), [[3, 5, 20, 30], [30, 1, 29, 38]])
    assert test.notes == ()


def test_keypoints_where_the_user_gives_them(extracted, keypoint_file, tmp_path):
    prepare("dogs", extracted, tmp_path, keypoints=keypoint_file)
    train = Dogs("train", tmp_path)
    assert train.keypoint_names == KEYPOINT_NAMES
    assert len(KEYPOINT_NAMES) == len(set(KEYPOINT_NAMES)) == 24
    assert KEYPOINT_NAMES[8] == "right front leg top"
    assert KEYPOINT_NAMES[16] == "nose"
    np.testing.assert_allclose(train[0].keypoints[3], [3.75, 2.5, 1])
    np.testing.assert_array_equal(train[0].keypoints[:, 2], np.arange(24) % 2)
    assert train.notes == (f"{keypoint_file}: keypoints of 2 of the 12 images",)
    for point in train[2].keypoints:  # nobody annotated it
        np.testing.assert_array_equal(point, [np.nan, np.nan, 0])


def test_prepared_already_with_other_keypoints(extracted, keypoint_file, tmp_path):
    prepare("dogs", extracted, tmp_path / "without")
    with pytest.raises(InputError, match="prepared without keypoints; expected another --to"):
        prepare("dogs", extracted, tmp_path / "without", keypoints=keypoint_file)
    prepare("dogs", extracted, tmp_path / "with", keypoints=keypoint_file)
    prepare("dogs", extracted, tmp_path / "with", keypoints=keypoint_file)
    prepare("dogs", extracted, tmp_path / "with")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(joint_entries()[:1]))
    with pytest.raises(InputError, match="prepared with another keypoint file; expected anot"):
        prepare("dogs", extracted, tmp_path / "with", keypoints=other)


def test_download_from_the_official_addresses(archives, tmp_path, monkeypatch):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=archives)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    infos = {
        f"http://127.0.0.1:{server.server_port}/{path.name}": url_info(
            path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), path.name
        )
        for path in archives.iterdir()
    }
    monkeypatch.setattr(DogsBuilder, "url_infos", infos)
    prepare("dogs", None, tmp_path / "good")
    assert len(Dogs("train", tmp_path / "good")) == 7

    wrong = {url: info for url, info in infos.items() if not url.endswith("lists.tar")}
    (lists,) = set(infos) - set(wrong)
    wrong[lists] = url_info(infos[lists].size, "0" * 64, "lists.tar")
    monkeypatch.setattr(DogsBuilder, "url_infos", wrong)
    with pytest.raises(InputError, match=r"lists\.tar.*wrong checksum"):
        prepare("dogs", None, tmp_path / "bad")
    gone = {url.replace("lists", "gone"): info for url, info in infos.items()}
    monkeypatch.setattr(DogsBuilder, "url_infos", gone)
    with pytest.raises(InputError, match=r"stanford_dogs_keypoints: download failed .*404"):
        prepare("dogs", None, tmp_path / "gone")
    server.shutdown()
    server.server_close()
    assert not list(tmp_path.rglob("*.tmp.*"))


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"img_path": "a/b.jpg",\n "joints": [', "line 2: Expecting value"),
        ('{"annotations": []}', "a dict; expected StanfordExtra_v12.json, a list of images"),
        ('[{"path": "a/b.jpg"}]', "entry 0: no img_path"),
        (
            json.dumps([{"img_path": "a/b.jpg", "joints": [[0, 0, 0]] * 20}]),
            "entry 0 (a/b.jpg): joints of shape [20, 3]; expected StanfordExtra_v12.json",
        ),
        (json.dumps([{"img_path": "a/b.jpg", "joints": [[0, 0]] * 24}]), "of shape [24, 2]"),
        (json.dumps([{"img_path": "a/b.jpg"}]), "joints of shape []"),
    ],
)
def test_a_keypoint_file_of_another_version(tmp_path, content, expected):
    path = tmp_path / "StanfordExtra_v1.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_keypoints(path)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)


@pytest.mark.parametrize("entries", [[], [{"img_path": "a/b.jpg", "joints": [[1, 1, 1]] * 24}]])
def test_a_keypoint_file_of_other_images(extracted, tmp_path, entries):
    path = tmp_path / "StanfordExtra_v12.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=rf"none of its {len(entries)} entries .* as n02085620-C"):
        listing(extracted, path)


def test_a_keypoint_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: No such file.*; expected StanfordExtra_v12"):
        prepare("dogs", tmp_path, tmp_path / "out", keypoints=tmp_path / "none.json")
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_keypoints(tmp_path / "none.json")


def test_a_joint_outside_its_image(extracted, tmp_path):
    entries = joint_entries()
    entries[1]["joints"][7] = [60, 3, 1]
    path = tmp_path / "StanfordExtra_v12.json"
    path.write_text(json.dumps(entries))
    prepare("dogs", extracted, tmp_path / "out", keypoints=path)
    train = Dogs("train", tmp_path / "out")
    _, note = train.notes
    assert "entry 1, joint 7: right front middle joint at (60, 3) lies outside image" in note
    assert train[1].keypoints[7, 2] == 0


def test_lists_that_are_missing_or_damaged(extracted, tmp_path):
    root = Path(shutil.copytree(extracted, tmp_path / "dogs"))
    (root / "test_list.mat").write_bytes(b"not a mat file" * 100)
    with pytest.raises(InputError, match=r"test_list\.mat: .*expected a \.mat file with file_l"):
        listing(root)
    (root / "test_list.mat").unlink()
    with pytest.raises(InputError, match=r"no test_list\.mat; expected it there or in lists\.tar"):
        listing(root)


def test_labels_that_contradict_each_other(extracted, tmp_path):
    root = Path(shutil.copytree(extracted, tmp_path / "dogs"))
    write_list(root / "test_list.mat", image_names()[:5], [1, 1, 1, 1, 1])
    with pytest.raises(
        InputError, match="entry 5: label 1 of n02085782-Japanese_spaniel, expected"
    ):
        listing(root)


def test_an_annotation_that_is_no_xml(extracted, tmp_path):
    root = Path(shutil.copytree(extracted, tmp_path / "dogs"))
    (root / "Annotation" / image_names()[0].removesuffix(".jpg")).write_text("<annotation>")
    with pytest.raises(InputError, match=r"n02085620_0: .*expected an annotation with bndbox"):
        listing(root)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "{root}/test_list.mat, entry 1: image {name}.jpg has no annotation; expected Annot"),
        ("<html></html>", "{root}/Annotation/{name}: no bndbox element, expected one for each dog"),
    ],
)
def test_single_annotations_that_are_missing_or_empty(extracted, tmp_path, content, expected):
    root = Path(shutil.copytree(extracted, tmp_path / "dogs"))
    name = image_names()[2].removesuffix(".jpg")
    (root / "Annotation" / name).unlink()
    if content:
        (root / "Annotation" / name).write_text(content)
    prepare("dogs", root, tmp_path / "out")
    test = Dogs("test", tmp_path / "out")
    (note,) = test.notes
    assert note.startswith(expected.format(root=root, name=name))
    assert test.boxes(0).shape == (0, 4)
    assert test.boxes(1).shape == (2, 4)


def test_no_annotations(archives, tmp_path):
    root = Path(shutil.copytree(archives, tmp_path / "dogs"))
    (root / "annotation.tar").unlink()
    with pytest.raises(InputError, match=r"dogs: no annotation; expected .*annotation\.tar"):
        prepare("dogs", root, tmp_path / "out")


def test_a_listed_image_that_is_absent(extracted, tmp_path):
    root = Path(shutil.copytree(extracted, tmp_path / "dogs"))
    (root / "Images" / image_names()[4]).unlink()
    prepare("dogs", root, tmp_path / "out")
    train = Dogs("train", tmp_path / "out")
    (note,) = train.notes
    assert note.startswith(
        f"{root / 'train_list.mat'}, entry 3: image n02085782-Japanese_spaniel/n02085782_0"
    )
    assert len(train) == 7


def test_no_images(extracted, tmp_path):
    root = Path(shutil.copytree(extracted, tmp_path / "dogs"))
    shutil.rmtree(root / "Images")
    with pytest.raises(InputError, match="none of the 7 train images is there, such as n02085620"):
        prepare("dogs", root, tmp_path / "out")
