"""A folder of images: painted files of every kind come back as the pixels that were painted."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from fgvce_jax.config import DataConfig
from fgvce_jax.data import open_dataset
from fgvce_jax.data.decode import decode
from fgvce_jax.errors import InputError, UnreadableImage

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def painted(width=24, height=16):
    """Red left of the middle, above it; green right of it; blue below."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :] = BLUE
    return image


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def read(root, name):
    """The example of one file in root/test/class/."""
    dataset = open_dataset("folder", "test", root)
    return dataset[list(dataset.ids).index(f"test/class/{name}")]


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "c.JPEG", "d.webp", "e.tif", "f.TIFF", "g.bmp"])
def test_formats(tmp_path, name):
    lossless = {"png": {}, "webp": {"lossless": True}, "tif": {}, "tiff": {}, "bmp": {}}
    exact = lossless.get(name[2:].lower())
    save(tmp_path / "test/class" / name, painted(), **(exact or {"quality": 95, "subsampling": 0}))
    image = read(tmp_path, name).image
    assert image.dtype == np.uint8
    assert image.shape == (16, 24, 3)
    if exact is None:  # a JPEG is close away from the edges between colours
        for at, colour in (((3, 4), RED), ((3, 20), GREEN), ((13, 12), BLUE)):
            np.testing.assert_allclose(image[at], colour, atol=8)
    else:
        assert np.array_equal(image, painted())


@pytest.mark.parametrize("name", ["a.gif", "b.tiff"])
def test_of_several_frames_the_first(tmp_path, name):
    others = [Image.new("RGB", (24, 16), colour) for colour in ("white", "black")]
    save(tmp_path / "test/class" / name, painted(), save_all=True, append_images=others)
    assert np.array_equal(read(tmp_path, name).image, painted())


# What a viewer shows for each EXIF orientation of the stored pixels.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "test/class/a.png", painted(), exif=exif)
    assert np.array_equal(read(tmp_path, "a.png").image, UPRIGHT[orientation](painted()))


def test_grey_palette_and_two_tone(tmp_path):
    grey = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))
    save(tmp_path / "test/class/grey.png", grey)
    save(tmp_path / "test/class/palette.png", Image.fromarray(painted()).quantize(8))
    save(tmp_path / "test/class/bits.png", Image.fromarray(np.uint8(grey > 100) * 255).convert("1"))
    assert np.array_equal(read(tmp_path, "grey.png").image, np.stack([grey] * 3, -1))
    assert np.array_equal(read(tmp_path, "palette.png").image, painted())
    assert np.array_equal(read(tmp_path, "bits.png").image[0, :, 1], np.uint8(grey[0] > 100) * 255)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    deep = np.tile(np.array([0, 257, 1000, 32768, 65535], np.uint16), (4, 1))
    save(tmp_path / "test/class/deep.png", deep)
    assert read(tmp_path, "deep.png").image[0, :, 0].tolist() == [0, 1, 4, 128, 255]


def test_transparency_shows_white(tmp_path):
    rgba = np.dstack([painted(), np.full((16, 24), 255, np.uint8)])
    rgba[:, :12, 3] = 0
    rgba[8:, 12:, 3] = 51  # a fifth of blue over white
    save(tmp_path / "test/class/rgba.png", rgba)
    save(tmp_path / "test/class/la.png", Image.fromarray(rgba).convert("LA"))
    palette = Image.fromarray(painted()).quantize(8)
    save(tmp_path / "test/class/p.png", palette, transparency=palette.getpixel((0, 0)))
    image = read(tmp_path, "rgba.png").image
    assert tuple(image[3, 3]) == WHITE
    assert tuple(image[3, 20]) == GREEN
    assert tuple(image[12, 20]) == (204, 204, 255)
    assert np.all(read(tmp_path, "la.png").image[:, :12] == 255)
    image = read(tmp_path, "p.png").image
    assert tuple(image[3, 3]) == WHITE
    assert tuple(image[12, 3]) == BLUE


def test_cmyk(tmp_path):
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:, :8] = (0, 255, 255, 0)  # red
    cmyk[:, 8:] = (0, 0, 0, 255)  # black
    save(tmp_path / "test/class/a.jpg", Image.fromarray(cmyk, mode="CMYK"), quality=95)
    image = read(tmp_path, "a.jpg").image
    np.testing.assert_allclose(image[8, 2], RED, atol=6)
    np.testing.assert_allclose(image[8, 13], (0, 0, 0), atol=6)


def test_unreadable_images_are_named_and_the_others_are_read(tmp_path):
    where = tmp_path / "test/class"
    good = save(where / "good.jpg", painted(200, 200))
    (where / "cut.jpg").write_bytes(good.read_bytes()[:900])
    (where / "empty.png").touch()
    (where / "text.png").write_text("not an image")
    save(where / "dot.png", painted(1, 1))
    save(where / "line.png", painted(30, 1))
    dataset = open_dataset("folder", "test", tmp_path)
    why = {}
    for i, id in enumerate(dataset.ids):
        try:
            dataset[i]
        except UnreadableImage as error:
            why[id.rpartition("/")[2]] = error.why
            message = str(error)
    assert message == f"image {dataset.ids[-1]}: {why['text.png']}"
    assert sorted(why) == ["cut.jpg", "dot.png", "empty.png", "line.png", "text.png"]
    whole = "expected a whole JPEG, PNG, WebP, GIF, TIFF or BMP file"
    assert why["empty.png"] == f"the file is empty; {whole}"
    assert why["text.png"] == (f"cannot be decoded (not an image file); {whole}")
    assert why["dot.png"] == "1x1 pixels; expected at least 2x2"
    assert why["line.png"] == "30x1 pixels; expected at least 2x2"
    assert why["cut.jpg"].startswith("cannot be decoded")
    good.unlink()
    with pytest.raises(
        UnreadableImage, match=r"test/class/good.jpg: cannot be read \(No such file"
    ):
        dataset[list(dataset.ids).index("test/class/good.jpg")]


def test_a_reason_is_the_same_in_every_run(monkeypatch):
    def stumble(file):
        raise ValueError(f"cannot seek {file}")

    monkeypatch.setattr(Image, "open", stumble)
    with pytest.raises(UnreadableImage) as error:
        decode(b"damaged", "a.png")
    assert "cannot seek <_io.BytesIO object>" in error.value.why


def tree(root, names):
    for name in names:
        save(root / name, painted(4, 4))


def test_split_folders_share_one_list_of_classes(tmp_path):
    tree(tmp_path, ["train/wren/1.png", "train/owl/1.png", "train/owl/deep/er/2.png"])
    tree(
        tmp_path, ["test/wren/9.png", "test/kite/8.png", "test/.hidden/7.png", "test/wren/._9.png"]
    )
    (tmp_path / "test/wren/notes.txt").write_text("x")
    (tmp_path / "test/none").mkdir()
    train, test = (open_dataset("folder", split, tmp_path) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("kite", "owl", "wren")
    assert train.ids == ("train/owl/1.png", "train/owl/deep/er/2.png", "train/wren/1.png")
    assert train.labels.tolist() == [1, 1, 2]
    assert test.ids == ("test/kite/8.png", "test/wren/9.png")
    assert test.labels.tolist() == [0, 2]
    assert test.labels.dtype == np.int32
    assert (test[1].label, test[1].id) == (2, "test/wren/9.png")


def test_without_split_folders_a_file_keeps_its_split(tmp_path):
    names = [f"{kind}/{i}.png" for kind in ("wren", "owl") for i in range(150)]
    for name in names:  # never decoded here
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train, test = (open_dataset("folder", split, tmp_path) for split in ("train", "test"))
    assert sorted([*train.ids, *test.ids]) == sorted(names)
    assert 0.12 < len(test) / len(names) < 0.28
    assert test.class_names == train.class_names == ("owl", "wren")
    assert [test.class_names[c] for c in test.labels] == [id.split("/")[0] for id in test.ids]
    (tmp_path / "owl/3.png").unlink()
    (tmp_path / "another").mkdir()
    (tmp_path / "another/1.png").touch()
    later = open_dataset("folder", "test", tmp_path)
    assert set(later.ids) - {"another/1.png"} == set(test.ids) - {"owl/3.png"}
    shutil.move(tmp_path, tmp_path.with_name("moved"))
    assert open_dataset("folder", "test", tmp_path.with_name("moved")).ids == later.ids


def test_the_share_of_the_test_split_is_settable_and_said(tmp_path):
    tree(tmp_path, [f"owl/{i}.png" for i in range(60)])
    counts = {}
    for share in (0.1, 0.5):
        test = open_dataset("folder", "test", tmp_path, test_share=share)
        train = open_dataset("folder", "train", tmp_path, test_share=share)
        assert len(test) + len(train) == 60
        counts[share] = set(test.ids)
        assert test.notes == train.notes
        assert test.notes == (
            f"{tmp_path}: no train or test folder; {len(train)} train and {len(test)} test images, "
            f"by a hash of their names (--data.test_share {share})",
        )
    assert counts[0.1] < counts[0.5]  # who is in a small share stays in a larger one
    assert 0 < len(counts[0.1]) < 15
    assert 18 < len(counts[0.5]) < 42
    whole = open_dataset("folder", "train", tmp_path, test_share=0.0)
    assert (len(whole), whole.notes) == (60, ())
    assert len(open_dataset("folder", "test", tmp_path, test_share=1.0)) == 60
    with pytest.raises(InputError, match="test_share: expected at most 1"):
        DataConfig(test_share=1.5)


def test_files_that_are_no_images_are_counted(tmp_path):
    tree(tmp_path, ["train/owl/1.png", "test/owl/1.png", "test/loose.png", "train/.x/1.png"])
    for name in ("test/owl/a.txt", "train/owl/b.TXT", "train/owl/README", "test/owl/.DS_Store"):
        (tmp_path / name).touch()
    dataset = open_dataset("folder", "test", tmp_path)
    assert dataset.ignored == {
        ".txt": 2,
        "no suffix": 1,
        "hidden": 1,
        "in no class folder": 1,
        "hidden folder": 1,
    }
    (note,) = dataset.notes
    assert note.startswith(f"{tmp_path}: 6 files are no images in class folders: 2 .txt, 1 ")


def test_a_dataset_travels_to_worker_processes(tmp_path):
    tree(tmp_path, ["test/owl/1.png"])
    copy = pickle.loads(pickle.dumps(open_dataset("folder", "test", tmp_path)))
    assert np.array_equal(copy[0].image, painted(4, 4))


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"folder: no path given"):
        open_dataset("folder", "test")
    with pytest.raises(InputError, match=r"nowhere: does not exist; expected a folder"):
        open_dataset("folder", "test", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: not a folder"):
        open_dataset("folder", "test", tmp_path / "file")
    with pytest.raises(InputError, match=r"no images .* in class sub-folders"):
        open_dataset("folder", "test", tmp_path)
    tree(tmp_path, ["loose.png"])
    with pytest.raises(InputError, match=r"no images .* in class sub-folders"):
        open_dataset("folder", "test", tmp_path)
    tree(tmp_path, ["train/owl/1.png"])
    with pytest.raises(InputError, match=r"no images for split 'test'; found 1 in 'train'"):
        open_dataset("folder", "test", tmp_path)
    with pytest.raises(InputError, match=r"unknown split 'dev'; expected one of train, val, test"):
        open_dataset("folder", "dev", tmp_path)
