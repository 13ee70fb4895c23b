import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_cub import PARTS, colour, make_cub

from fgvce_jax.data import archive
from fgvce_jax.data.archive import open_files
from fgvce_jax.data.cub import Cub, read_listing
from fgvce_jax.data.pipeline import batches
from fgvce_jax.data.prepare import prepare
from fgvce_jax.data.records import builder
from fgvce_jax.errors import InputError, UnreadableImage

REAL = Path(__file__).parents[3] / "shared" / "data" / "CUB_200_2011"


def listing(path, scratch):
    return read_listing(open_files(path, {}, scratch, lambda *_: None))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_cub(tmp_path_factory.mktemp("cub"))


@pytest.fixture
def copy(source, tmp_path):
    return Path(shutil.copytree(source, tmp_path / "CUB_200_2011"))


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare("cub", source.parent, folder)
    return folder


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- what is prepared ---------------------------------------------------------------------------


def test_splits_hold_the_official_images_in_order(prepared):
    train, test = Cub("train", prepared), Cub("test", prepared)
    assert len(train) == len(test) == 6
    assert test.ids[:3] == (
        "001.Drawn_Bird_1/Drawn_0001.jpg",
        "001.Drawn_Bird_1/Drawn_0003.jpg",
        "002.Drawn_Bird_2/Drawn_0005.jpg",
    )
    np.testing.assert_array_equal(train.labels, [0, 0, 1, 1, 2, 2])
    assert test.labels.dtype == np.int32
    assert test.class_names == ("Drawn Bird 1", "Drawn Bird 2", "Drawn Bird 3")
    assert test.keypoint_names == PARTS
    np.testing.assert_array_equal(test.boxes(1), [[10, 20, 32, 40]])
    with pytest.raises(IndexError):
        test[6]


def test_parts_are_where_they_are_annotated(source, prepared):
    for split in ("train", "test"):
        dataset = Cub(split, prepared)
        for i in range(len(dataset)):
            example = dataset[i]
            assert example.id == dataset.ids[i]
            assert example.label == dataset.labels[i]
            stored = np.asarray(Image.open(source / "images" / example.id))
            np.testing.assert_array_equal(example.image, stored)
            assert_painted(example.image, example.keypoints, tolerance=12)


@pytest.mark.parametrize("resize_to", [None, 128])
def test_parts_land_on_their_pixels_after_resize_and_crop(prepared, resize_to):
    dataset = Cub("test", prepared)
    (batch,) = batches(dataset, range(6), 6, 112, resize_to)
    annotated = np.stack([dataset[i].keypoints for i in range(6)])
    for image, points in zip(batch.image, batch.keypoints, strict=True):
        assert_painted(image, points, tolerance=40)
    kept, given = (int(points[..., 2].sum()) for points in (batch.keypoints, annotated))
    assert kept == given if resize_to is None else 0.2 * given < kept < given


def assert_painted(image, keypoints, tolerance):
    visible = np.flatnonzero(keypoints[:, 2])
    assert len(visible) > 2
    for part in visible:
        x, y = np.floor(keypoints[part, :2]).astype(int)
        # One pixel from the edge of a crop, the resized square may already be cut.
        assert np.abs(image[y, x].astype(int) - colour(part)).max() <= tolerance


@pytest.mark.parametrize("archive", ["tgz", "tar", "folder with tgz"])
def test_an_archive_gives_the_same_records_as_its_folder(source, prepared, tmp_path, archive):
    name = tmp_path / ("CUB_200_2011.tar" if archive == "tar" else "CUB_200_2011.tgz")
    with tarfile.open(name, "w" if archive == "tar" else "w:gz") as tar:
        tar.add(source, "CUB_200_2011")
    prepare("cub", tmp_path if archive.startswith("folder") else name, tmp_path / "out")
    ours, theirs = Cub("test", tmp_path / "out"), Cub("test", prepared)
    assert ours.ids == theirs.ids
    for i in range(len(ours)):
        np.testing.assert_array_equal(ours[i].image, theirs[i].image)
        np.testing.assert_array_equal(ours[i].keypoints, theirs[i].keypoints)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["cub_200_2011_parts"]
    assert [p.name for p in (tmp_path / "out/cub_200_2011_parts").iterdir()] == ["1.0.0"]


def test_the_builders_are_known_to_tfds_and_need_no_tensorflow(source, tmp_path):
    code = """
import sys, fgvce_jax.data, tensorflow_datasets as tfds
known = tfds.list_builders(with_community_datasets=False)
assert {"cub_200_2011_parts", "stanford_dogs_keypoints"} <= set(known)
builder = tfds.builder("cub_200_2011_parts", data_dir=sys.argv[2], source=sys.argv[1])
builder.download_and_prepare()
source = tfds.data_source("cub_200_2011_parts", split="train", data_dir=sys.argv[2])
print(len(source), source[0]["image"].shape, builder.info.splits["test"].num_examples)
assert "tensorflow" not in sys.modules
"""
    out = subprocess.run(
        [sys.executable, "-c", code, source, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    assert out == "6 (110, 150, 3) 6\n"


def test_the_real_annotations(tmp_path):
    """With the images absent; where the files are not at hand, the handmade ones stand in."""
    real = REAL.is_dir()
    root = REAL if real else make_cub(tmp_path)
    official = listing(root, tmp_path / "scratch")
    assert official.keypoint_names == list(PARTS)
    counts = {split: len(images) for split, images in official.splits.items()}
    assert counts == ({"train": 5994, "test": 5794} if real else {"train": 6, "test": 6})
    assert len(official.class_names) == (200 if real else 3)
    first = official.splits["test"][0]
    lines = (root / "parts" / "part_locs.txt").read_text().splitlines()
    np.testing.assert_array_equal(first.keypoints[1], np.array(lines[1].split()[2:], np.float32))
    assert first.keypoints_where(1).endswith("parts/part_locs.txt, line 2")


# --- interrupted --------------------------------------------------------------------------------


def test_a_killed_preparation_continues(source, prepared, tmp_path, monkeypatch):
    code = """
import os, signal, sys
from fgvce_jax.data.records import builder
builder.IMAGES_PER_SHARD = 2
from fgvce_jax.data.cub import CubBuilder
def on_progress(task, done, total):
    if task == "writing images" and done == 6:
        os.kill(os.getpid(), signal.SIGKILL)
CubBuilder(source=sys.argv[1], data_dir=sys.argv[2], on_progress=on_progress).download_and_prepare()
"""
    killed = subprocess.run([sys.executable, "-c", code, source, tmp_path], check=False)
    assert killed.returncode == -9
    with pytest.raises(InputError, match="no cub_200_2011_parts is prepared there"):
        Cub("train", tmp_path)
    whole = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("partial/*/*-of-00003")}
    assert len(whole) == 2

    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 2)
    prepare("cub", source, tmp_path)
    kept = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*-of-00003")}
    assert whole.items() <= kept.items()
    assert len(kept) == 6
    ours, theirs = Cub("train", tmp_path), Cub("train", prepared)
    for i in range(6):
        np.testing.assert_array_equal(ours[i].image, theirs[i].image)
    assert [p.name for p in (tmp_path / "cub_200_2011_parts").iterdir()] == ["1.0.0"]


def test_a_full_disk_keeps_what_is_whole_and_the_rerun_continues(source, tmp_path):
    code = """
import logging, resource, signal, sys
from fgvce_jax.data.records import builder
from fgvce_jax.data.prepare import prepare
from fgvce_jax.errors import InputError
builder.IMAGES_PER_SHARD = 2
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    prepare("cub", sys.argv[1], sys.argv[2])
except InputError as error:
    print(error)
"""
    noisy = make_cub(tmp_path / "noisy")
    big = noisy / "images" / "002.Drawn_Bird_2" / "Drawn_0006.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)).save(big)
    run = partial(subprocess.run, capture_output=True, text=True, check=True)
    arguments = [sys.executable, "-c", code, noisy, tmp_path / "out"]
    out = run([*arguments, "300000"]).stdout
    assert "File too large" in out
    assert "continues once there is room" in " ".join(out.split())
    left = sorted(p.name for p in (tmp_path / "out").rglob("partial/*/*"))
    assert left == ["cub_200_2011_parts-train.array_record-00000-of-00003"]
    assert "File too large" not in run([*arguments, "10000000"]).stdout
    assert len(Cub("train", tmp_path / "out")) == 6

    packed = arguments[3] = tmp_path / "cub.tgz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(noisy, "CUB_200_2011")
    arguments[4] = tmp_path / "packed"
    out = " ".join(run([*arguments, "300000"]).stdout.split())
    assert out.startswith(f"{packed}: cannot be uncompressed to {arguments[4]}")
    assert "File too large" in out
    assert not list(arguments[4].rglob("*.*"))


def test_what_killed_preparations_left_half_written_is_removed(source, copy, tmp_path):
    partial_dir = tmp_path / "out" / "cub_200_2011_parts" / "partial"
    left = [partial_dir / "CUB_200_2011.1.part", partial_dir / "0123" / "shard.2.part"]
    left[1].parent.mkdir(parents=True)
    for path in left:
        path.touch()
    whole = left[1].with_name("shard")
    whole.touch()
    (copy / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"no classes\.txt"):
        prepare("cub", copy, tmp_path / "out")
    assert [p for p in partial_dir.rglob("*") if p.is_file()] == [whole]
    with (
        builder.locked(partial_dir),
        pytest.raises(InputError, match="another process prepares this dataset there"),
    ):
        prepare("cub", source, tmp_path / "out")


def test_prepared_already(source, prepared, capsys):
    before = {p: p.stat().st_mtime_ns for p in prepared.rglob("*")}
    prepare("cub", source, prepared)
    assert {p: p.stat().st_mtime_ns for p in prepared.rglob("*")} == before
    assert "of its images" not in capsys.readouterr().err


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "images.txt",
            "3 001.Drawn_Bird_1/Drawn_0003.jpg",
            "3",
            "images.txt, line 3: expected <image_id> <image_name>, got '3'",
        ),
        ("images.txt", "2 001", "1 001", "images.txt, line 2: expected an id not yet on line 1"),
        (
            "image_class_labels.txt",
            "5 2\n",
            "5 9\n",
            "image_class_labels.txt, line 5: expected <image_id> <class_id>, got '5 9'",
        ),
        (
            "images.txt",
            "4 001.Drawn_Bird_1/Drawn_0004.jpg",
            "4 001.Drawn_Bird_1/Drawn_0002.jpg",
            "images.txt, line 4: expected a name not yet on line 2, got '4 001.Drawn_Bird_1/Draw",
        ),
        (
            "bounding_boxes.txt",
            "2 10.0 20.0 31.0 40.0",
            "2 10.0 20.0 -1 40.0",
            "<width> <height> with sides above 0, got '2 10.0 20.0 -1 40.0'",
        ),
        ("bounding_boxes.txt", "31.0 40.0", "31.0 0", "bounding_boxes.txt, line 2: expected"),
        (
            "train_test_split.txt",
            "4 1\n",
            "",
            "train_test_split.txt: no line for image 4 (images.txt, line 4)",
        ),
        (
            "train_test_split.txt",
            "4 1\n",
            "4 yes\n",
            "train_test_split.txt, line 4: expected <image_id> <is_training_image>, got '4 yes'",
        ),
        (
            "bounding_boxes.txt",
            "1 10.0 20.0 30.0 40.0",
            "1 10.0 20.0 30.0",
            "bounding_boxes.txt, line 1: expected <image_id> <x> <y> <width> <height>",
        ),
        ("parts/parts.txt", "15 throat\n", "", "parts/parts.txt: 14 parts, expected 15"),
        ("parts/part_locs.txt", "1 3 ", "1 33 ", "parts/part_locs.txt, line 3: expected"),
        ("parts/part_locs.txt", "2 7 ", "2 6 ", "line 22: expected each part of an image once"),
    ],
)
def test_a_wrong_line_is_named(copy, tmp_path, file, old, new, expected):
    edit(copy / file, old, new)
    with pytest.raises(InputError) as error:
        listing(copy, tmp_path / "scratch")
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{copy / file}")


def test_a_missing_part_location_is_named(copy, tmp_path):
    lines = (copy / "parts/part_locs.txt").read_text().splitlines()
    (copy / "parts/part_locs.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="no line for the throat of image 12"):
        listing(copy, tmp_path / "scratch")


@pytest.mark.parametrize("file", ["images.txt", "bounding_boxes.txt", "parts/part_locs.txt"])
def test_a_missing_annotation_file_is_named(copy, tmp_path, file):
    (copy / file).unlink()
    with pytest.raises(InputError, match=f"no {file}"):
        prepare("cub", copy, tmp_path / "out")
    assert not (tmp_path / "out" / "cub_200_2011_parts").exists()


@pytest.mark.parametrize("suffix", ["tgz", "tar"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_archive_is_named(source, tmp_path, suffix, share):
    path = tmp_path / f"CUB_200_2011.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tgz" else "w") as tar:
        tar.add(source, "CUB_200_2011")
        size = tar.offset
    size = os.path.getsize(path) if suffix == "tgz" else size
    os.truncate(path, int(share * size))
    with pytest.raises(InputError, match=r"is the download complete|cut short") as error:
        prepare("cub", path, tmp_path / "out")
    assert str(path) in str(error.value)
    assert not list((tmp_path / "out").rglob("*.tar*"))


def test_an_archive_cut_between_two_members(source, tmp_path):
    path = tmp_path / "CUB_200_2011.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(source, "CUB_200_2011")
        end = tar.offset
    os.truncate(path, end)
    with pytest.raises(InputError, match="cut short"):
        prepare("cub", path, tmp_path / "out")


@pytest.mark.parametrize("damage", ["header", "no header", "zeros", "a further block"])
@pytest.mark.parametrize("suffix", ["tar", "tgz"])
def test_an_archive_damaged_in_the_middle(source, tmp_path, damage, suffix):
    tar = tmp_path / "CUB_200_2011.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(source, "CUB_200_2011")
        members = archive.getmembers()
    content = bytearray(tar.read_bytes())
    member = members[len(members) // 2]
    if damage == "header":
        content[member.offset : member.offset + 512] = b"\x55" * 512
    elif damage == "no header":
        content[member.offset : member.offset + 512] = bytes(512)
    elif damage == "zeros":
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    else:
        content += bytes(10240)
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == "tgz" else content)
    with pytest.raises(
        InputError, match=r"(damaged after .*|invalid header; .*)\(is the download complete"
    ) as e:
        prepare("cub", path, tmp_path / "out")
    assert str(e.value).startswith(str(path))


def test_no_archive_at_all(tmp_path):
    with pytest.raises(InputError, match="expected a folder or an archive"):
        prepare("cub", tmp_path / "nowhere.tgz", tmp_path / "out")
    (tmp_path / "page.tgz").write_bytes(gzip.compress(b"<html>not found</html>" * 100))
    with pytest.raises(InputError, match="expected a whole tar archive"):
        prepare("cub", tmp_path / "page.tgz", tmp_path / "out")


def bomb(path, declared=None):
    """A .tar.gz of 2 GiB of zeros in 2 MB, that declares its size or another one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    content = b"".join([packer.compress(zeros) for _ in range(2048)]) + packer.flush()
    size = 2 << 30 if declared is None else declared
    path.write_bytes(content[:-4] + size.to_bytes(4, "little"))
    return path


def test_an_archive_that_declares_too_much_is_not_uncompressed(tmp_path, monkeypatch):
    path = bomb(tmp_path / "bomb.tgz")
    monkeypatch.setattr(gzip, "open", None)
    with pytest.raises(InputError, match=r"bomb.tgz: uncompresses to 2.0 GiB .* at most 1.0 GiB"):
        prepare("cub", path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_an_archive_that_grows_beyond_the_limit_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "ROOM", 64 << 20)
    path = bomb(tmp_path / "bomb.tgz", declared=1000)
    with pytest.raises(InputError, match=r"bomb.tgz: uncompresses to 0.1 GiB or more") as error:
        prepare("cub", path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").rglob("*.tar*"))
    (tmp_path / "two.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=r"expected a whole \.tar\.gz archive"):
        prepare("cub", tmp_path / "two.tgz", tmp_path / "out")


def test_single_images_are_noted_and_left_out_of_batches(source, copy, tmp_path, capsys):
    (copy / "images/001.Drawn_Bird_1/Drawn_0003.jpg").unlink()
    (copy / "images/002.Drawn_Bird_2/Drawn_0005.jpg").write_bytes(b"no image")
    truncated = copy / "images/003.Drawn_Bird_3/Drawn_0009.jpg"
    os.truncate(truncated, truncated.stat().st_size // 2)
    prepare("cub", copy, tmp_path / "out")
    dataset = Cub("test", tmp_path / "out")
    assert len(dataset) == 6
    absent, broken, cut = dataset.notes
    lines = f"{copy / 'images.txt'}, line"
    assert absent == (
        f"{lines} 3: image 001.Drawn_Bird_1/Drawn_0003.jpg: listed but absent; expected an image "
        "file of that name"
    )
    assert broken.startswith(f"{lines} 5: image 002.Drawn_Bird_2/Drawn_0005.jpg: cannot be decoded")
    assert cut.startswith(f"{lines} 9: image 003.Drawn_Bird_3/Drawn_0009.jpg: cannot be decoded")
    for index, line in ((1, 3), (2, 5), (4, 9)):
        with pytest.raises(UnreadableImage, match=f"{lines} {line}: .*; expected a"):
            dataset[index]
    prepare("cub", source, tmp_path / "out")
    assert "3 of its images were absent or could not be decoded" in capsys.readouterr().err
    skipped = []
    (batch,) = batches(dataset, range(6), 8, 32, on_skip=skipped.append)
    np.testing.assert_array_equal(batch.index, [0, 3, 5])
    assert [error.id for error in skipped] == [dataset.ids[i] for i in (1, 2, 4)]


def test_no_image_at_all(copy, tmp_path):
    shutil.rmtree(copy / "images")
    with pytest.raises(InputError, match="none of the 6 train images is there"):
        prepare("cub", copy, tmp_path / "out")


def test_a_part_outside_its_image_is_noted_and_hidden(copy, tmp_path):
    lines = (copy / "parts/part_locs.txt").read_text().splitlines()
    lines[15 + 3] = "2 4 150.0 20.0 1"  # the first column right of a 150 pixels wide image
    lines[15 + 4] = "2 5 149.0 20.0 1"
    (copy / "parts/part_locs.txt").write_text("\n".join(lines))
    prepare("cub", copy, tmp_path / "out")
    train = Cub("train", tmp_path / "out")
    (note,) = train.notes
    assert note.startswith(
        f"{copy}/parts/part_locs.txt, line 19: breast at (150, 20) lies outside image 001."
    )
    points = train[0].keypoints
    assert points[3, 2] == 0
    np.testing.assert_array_equal(points[4], [149.5, 20.5, 1])


def test_images_stored_on_their_side(copy, tmp_path):
    for orientation, number in enumerate(range(2, 10), start=1):
        (path,) = (copy / "images").rglob(f"Drawn_{number:04d}.jpg")
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, quality=95, subsampling=0, exif=exif)
    prepare("cub", copy, tmp_path / "out")
    for split in ("train", "test"):
        dataset = Cub(split, tmp_path / "out")
        for i in range(6):
            example = dataset[i]
            assert_painted(example.image, example.keypoints, tolerance=14)
    assert dataset[3].image.shape == (100, 160, 3)  # stored 160 high, orientation 6


def test_unknown_names(prepared, tmp_path):
    with pytest.raises(InputError, match="unknown split 'validation'; expected one of train, test"):
        Cub("validation", prepared)
    with pytest.raises(InputError, match="unknown dataset; expected one of cub, dogs"):
        prepare("cup", tmp_path, tmp_path)


def test_no_folder_to_write_to(source, tmp_path):
    (tmp_path / "file").touch()
    for to in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match=r"file.*: .*; expected a folder$"):
            prepare("cub", source, to)


def test_no_keypoint_file_is_taken(tmp_path):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"\x1f\x8bnever opened")
    with pytest.raises(InputError, match="expected no keypoint file"):
        prepare("cub", tmp_path / "CUB_200_2011.tgz", tmp_path / "out", keypoints="joints.json")


def cut(shard):
    os.truncate(shard, shard.stat().st_size // 2)


def zero(shard):
    shard.write_bytes(bytes(shard.stat().st_size))


def take_another(shard):
    shutil.copyfile(str(shard).replace("-test.", "-train."), shard)


@pytest.mark.parametrize("damage", [Path.unlink, cut, zero, take_another])
def test_a_damaged_prepared_file_is_named(prepared, tmp_path, damage):
    folder = Path(shutil.copytree(prepared, tmp_path / "out"))
    (shard,) = folder.rglob("*-test.*")
    damage(shard)
    with pytest.raises(InputError, match="remove the folder and prepare again") as error:
        Cub("test", folder)[0]
    assert str(error.value).startswith(str(shard))
    assert not isinstance(error.value, UnreadableImage)
    Cub("train", folder)[0]


@pytest.mark.parametrize("file", ["dataset_info.json", "metadata.json", "label.labels.txt"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_a_damaged_description_is_named(source, prepared, tmp_path, file, damage):
    folder = Path(shutil.copytree(prepared, tmp_path / "out"))
    damage(folder / "cub_200_2011_parts" / "1.0.0" / file)
    for use in (partial(Cub, "test"), partial(prepare, "cub", source)):
        with pytest.raises(InputError, match=r"cub_200_2011_parts there is damaged .*prepare aga"):
            use(folder)
