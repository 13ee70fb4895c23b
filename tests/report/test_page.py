import base64
import hashlib
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from fgvce_jax.errors import InputError
from fgvce_jax.report import card_figure, write_report
from fgvce_jax.report import page as page_module
from fgvce_jax.results import CORE_MAPS, Edit, ImageResult, open_run, read_run

N, SIZE = 7, 70
OTHERS = ("gradcam", "fgvce_invariant", "fgvce_dominant", "scout", "cve")
CLASSES = ('<script>alert("wren")</script>', "finch & co", "owl's")


class Images:
    """A dataset whose image k is one grey, with ids that must be escaped."""

    class_names = CLASSES
    keypoint_names = part_names = ()
    labels = np.zeros(0, np.int32)  # a page takes them from the run
    ids = ()

    def __init__(self, name):
        self.name = name
        self.read = []

    def __len__(self):
        return 0

    def __getitem__(self, index):
        self.read.append(index)
        image = np.full((SIZE // 2, SIZE, 3), index * 20, np.uint8)
        return SimpleNamespace(image=image, id=f"{self.name}/<{index}>.png")


def view(image):
    return image.repeat(2, axis=0)


def mistake(index, label, predicted, cells, flipped=True, p=0.1, extra=()):
    edits = tuple(
        Edit(cell, f"train/<{k}>.png", k, 48 - cell, 0.5 + 0.01 * cell)
        for k, cell in enumerate(cells)
    )
    maps = {name: np.eye(N) for name in (*CORE_MAPS, *extra)}
    return ImageResult(
        index,
        f"test/<{index}>.png",
        label,
        "explained" if cells else "no_reference",
        predicted=predicted,
        flipped=flipped,
        edits=edits,
        p_target=np.linspace(p, 0.9, len(cells) + 1).tolist(),
        time_s=0.004,
        maps=maps,
    )


def make_run(folder, records, info=None, **config):
    config = {"data": {"name": "birds"}, "model": {"arch": "vgg16"}, "split": "test"} | config
    with open_run(folder, config) as run:
        run.write_part(0, records)
        run.merge(CLASSES, 1, info or {})
        run.finish()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    records = [
        ImageResult(0, "test/<0>.png", 1, "unexplained", predicted=1),
        mistake(1, 0, 1, [8, 24]),
        mistake(2, 0, 1, [24, 25, 26, 0], flipped=False, p=0.3),
        mistake(4, 2, 1, [30], p=0.2),
        mistake(5, 2, 0, [], flipped=False),
        ImageResult(6, "test/<6>.png", 1, "skipped", why="1 x 1 <pixels>"),
    ]
    folder = tmp_path_factory.mktemp("report") / "run"
    return make_run(folder, records, {"classes_without_reference": [CLASSES[2]]})


class Page(HTMLParser):
    """The page's elements in order: (tag, attributes, text up to the next tag)."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self.elements.append([f"/{tag}", {}, ""])

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2] += data

    def find(self, tag, **attributes):
        return [
            (attrs, text)
            for name, attrs, text in self.elements
            if name == tag and all(attributes[key] in attrs.get(key, "") for key in attributes)
        ]


@pytest.fixture(scope="module")
def written(run):
    dataset, references, drawn = Images("test"), Images("train"), []
    path = write_report(run, dataset, references, view, advance=drawn.append)
    text = path.read_text()
    return SimpleNamespace(
        path=path,
        text=text,
        page=Page(text),
        read=(dataset.read, references.read),
        drawn=drawn,
    )


def test_every_image_is_read_once_in_order(written):
    assert written.read == ([1, 2, 4, 5], [0, 1, 2, 3])
    assert written.drawn == [1, 1, 1, 1]
    assert written.path.name == "report.html"


def test_only_the_pages_own_script_runs_and_nothing_is_fetched(written):
    """A Content-Security-Policy that allows the script by its hash, styles, embedded pictures."""
    elements = written.page.elements
    ((policy, _),) = written.page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    allowed = dict(entry.strip().split(" ", 1) for entry in policy["content"].split(";"))
    ((script, text),) = written.page.find("script")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert allowed == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert script == {}
    # It holds for what comes after it only, and a handler in an attribute would not run.
    tags = [tag for tag, _, _ in elements]
    before = elements[: next(i for i, e in enumerate(elements) if "http-equiv" in e[1])]
    assert {tag for tag, _, _ in before} <= {"html", "head", "meta"}
    assert not any(name.startswith("on") for _, attrs, _ in elements for name in attrs)
    assert not {"link", "iframe", "object", "embed", "base"} & set(tags)


def test_cards_carry_what_is_sorted_and_filtered_by(written):
    cards = [attrs for attrs, _ in written.page.find("article")]
    keys = ("data-index", "data-edits", "data-before", "data-pair", "data-flipped", "data-id")
    assert [tuple(card[key] for key in keys) for card in cards] == [
        ("1", "2", "0.100000", "1-0", "1", "test/<1>.png"),
        ("2", "4", "0.300000", "1-0", "0", "test/<2>.png"),
        ("4", "1", "0.200000", "1-2", "1", "test/<4>.png"),
        ("5", "0", "0.100000", "0-2", "0", "test/<5>.png"),
    ]
    options = [attrs["value"] for attrs, _ in written.page.find("option")]
    assert options[:4] == ["", "1-0", "0-2", "1-2"]
    assert {"edits", "-edits", "before", "pair", "id"} <= set(options)


def test_names_and_ids_are_escaped(written):
    for raw in ("<script>alert", "<1>", "<pixels>", "finch & co"):
        assert raw not in written.text
    assert len(written.page.find("script")) == 1
    assert "&lt;script&gt;alert" in written.text
    assert "1 x 1 &lt;pixels&gt;" in written.text
    assert "finch &amp; co" in written.text


def test_nothing_is_fetched(written):
    for _, attrs, _ in written.page.elements:
        for key in ("src", "href", "xlink:href"):
            assert attrs.get(key, "#").startswith(("data:", "#"))
    style = "".join(text for _, text in written.page.find("style"))
    assert "url(" not in style
    assert "@import" not in style


def test_pictures_that_are_used_are_there_once(written):
    used = {attrs.get("href") or attrs["xlink:href"] for attrs, _ in written.page.find("use")}
    ids = [attrs["id"] for _, attrs, _ in written.page.elements if "id" in attrs]
    assert {href.removeprefix("#") for href in used} <= set(ids)
    assert len(ids) == len(set(ids))
    # candidates (image, cell): edit k of an image takes cell 48 - c of image k
    patches = {attrs["id"] for attrs, _ in written.page.find("image", id="r")}
    wanted = {(0, 40), (1, 24), (0, 24), (1, 23), (2, 22), (3, 48), (0, 18)}
    assert patches == {f"r{index}-{cell}" for index, cell in wanted}


def test_a_card(written):
    row = read_run(written.path.parent).table.to_pylist()[0]
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    maps = {name: np.eye(N) for name in CORE_MAPS} | {"scout": np.eye(N)}
    maps |= {"cve": np.full((N, N), np.nan), "dominant": np.eye(N)[::-1]}
    maps["fgvce_dominant"] = maps["dominant"]
    methods = "scout", "fgvce_dominant", "cve"
    card = page_module.card(row, image, maps, methods)
    assert card["curve"] == [(0, 135), (175, 75), (350, 15)]
    first, second = card["edits"]
    assert first["patch"] == "r0-40"
    assert (first["replaced"].row, first["replaced"].column) == (1, 1)
    assert (first["replaced"].x, first["replaced"].y, first["replaced"].side) == (0, 0, 3)
    assert (first["candidate"].row, first["candidate"].column) == (5, 5)
    assert (first["p"], second["p"]) == pytest.approx((0.5, 0.9))
    names, explained, pictures = zip(*card["gallery"], strict=True)
    assert names == methods
    assert explained == ("P", "Q", "Q")
    assert pictures == (card["invariant"], card["dominant"], None)  # the same maps and colours


def test_the_figures_at_the_top(run, written):
    results = read_run(run)
    summary = page_module.summary(results)
    assert summary["accuracy"] == pytest.approx(1 / 5)
    assert summary["flipped"] == pytest.approx(2 / 3)
    assert summary["edits"] == 2
    assert summary["time"] == "4.0 ms"
    pairs = page_module.confused_pairs(results)
    assert [(p["key"], p["count"]) for p in pairs] == [("1-0", 2), ("0-2", 1), ("1-2", 1)]
    numbers = [text for _, text in written.page.find("b")]
    assert numbers[:5] == ["20.0 %", "4", "66.7 %", "2", "4.0 ms"]
    for note in ("1 image without edits", "1 class without", "1 image skipped"):
        assert note in written.text


def test_durations():
    wanted = ["0.5 ms", "9.9 ms", "35 ms", "999 ms", "12.3 s"]
    assert [page_module.duration(s) for s in (0.0005, 0.0099, 0.035, 0.999, 12.34)] == wanted


def test_of_too_many_explanations_a_sample_is_shown_and_told(run, monkeypatch, written):
    monkeypatch.setattr(page_module, "MOST_CARDS", 2)
    dataset = Images("test")
    text = write_report(run, dataset, Images("train"), view).read_text()
    cards = Page(text).find("article")
    assert [attributes["data-index"] for attributes, _ in cards] == ["1", "5"]
    assert dataset.read == [1, 5]
    assert "2 of 4 explanations are shown" in text
    assert "explanations are shown" not in written.text
    for tile in ("misclassified", "flipped to Q"):  # the figures are those of all
        found = [re.search(rf"<b>([^<]*)</b>{tile}", page)[1] for page in (text, written.text)]
        assert found[0] == found[1]


def test_a_run_without_mistakes(tmp_path):
    folder = make_run(tmp_path / "run", [ImageResult(0, "a", 1, "unexplained", predicted=1)])
    text = write_report(folder, Images("test"), Images("train"), view).read_text()
    assert "Nothing to explain" in text
    assert "No image is misclassified" in text
    assert "100.0 %" in text


def test_a_run_without_any_image(tmp_path):
    folder = make_run(tmp_path / "run", [ImageResult(0, "a", 1, "skipped", why="empty")])
    text = write_report(folder, Images("test"), Images("train"), view).read_text()
    assert "1 image skipped" in text


def captions_of(text):
    """Of the gallery's pictures."""
    return [text.strip() for _, text in Page(text).find("figcaption") if " · " in text]


def test_the_methods_asked_for_stand_side_by_side_each_with_its_class(tmp_path):
    records = [mistake(1, 0, 1, [3], extra=OTHERS)]
    for methods, captions in {
        OTHERS: [
            "gradcam · P",
            "fgvce_invariant · P",
            "fgvce_dominant · Q",
            "scout · P",
            "cve · Q",
        ],
        ("fgvce_dominant", "scout"): ["fgvce_dominant · Q", "scout · P"],
        (): [],
    }.items():
        folder = make_run(tmp_path / str(len(methods)), records, methods=methods)
        text = write_report(folder, Images("test"), Images("train"), view).read_text()
        assert captions_of(text) == captions
        assert "NaN" not in text


def test_a_map_with_nan_is_named_and_counted(tmp_path):
    records = [mistake(k, 0, 1, [3], extra=("gradcam", "scout")) for k in range(3)]
    for k in (0, 2):
        records[k].maps["scout"][1, 1] = np.nan
    folder = make_run(tmp_path / "run", records, methods=("gradcam", "scout"))
    page = Page(write_report(folder, Images("test"), Images("train"), view).read_text())
    [note] = [text for _, text in page.find("summary") if "NaN" in text]
    assert note == "scout: NaN in 2 maps, not shown"
    assert page_module.maps_with_nan(read_run(folder), ("gradcam", "scout")) == {
        "scout": ["test/<0>.png", "test/<2>.png"]
    }
    assert [text for _, text in page.find("b") if text == "NaN"] == ["NaN"] * 2


def test_a_page_of_mistakes_and_one_of_correct_images_each_say_what_is_so(tmp_path):
    records = [mistake(1, 1, 1, [3]), mistake(2, 1, 1, [])]
    pages = {
        pairs: write_report(
            make_run(tmp_path / pairs, records, pairs=pairs), Images("test"), Images("train"), view
        ).read_text()
        for pairs in ("misclassified", "confusion")
    }
    of_mistakes = ("the label is", "wrong class", "Most confused", "<td>label</td>")
    of_pairs = ("correctly; ", "often confuses with P", "The pairs", "<td>most confused with</td>")
    for text in of_mistakes:
        assert text in pages["misclassified"]
        assert text not in pages["confusion"]
    for text in of_pairs:
        assert text in pages["confusion"]
        assert text not in pages["misclassified"]
    for text in pages.values():
        assert "1 image without edits" in text
        assert "no reference image of Q is classified correctly" in text
    nothing = [ImageResult(0, "a", 1, "unexplained", predicted=0)]
    folder = make_run(tmp_path / "none", nothing, pairs="confusion")
    text = write_report(folder, Images("test"), Images("train"), view).read_text()
    assert "No image is classified correctly." in text


@pytest.mark.parametrize(
    ("model", "title"),
    [
        ({"arch": "vgg16"}, "vgg16"),
        ({"checkpoint": "checkpoints/birds", "arch": None}, "checkpoints/birds"),
        ({"checkpoint": "/home/someone/checkpoints/birds"}, "checkpoints/birds"),
        ({"checkpoint": "birds"}, "birds"),
        ({}, "test split"),
    ],
)
def test_the_title_has_the_end_of_a_long_path(tmp_path, model, title):
    nothing = [ImageResult(0, "a", 1, "unexplained", predicted=1)]
    folder = make_run(tmp_path / "run", nothing, model=model)
    [(_, text)] = Page(
        write_report(folder, Images("test"), Images("train"), view).read_text()
    ).find("title")
    assert text.endswith(f" · {title}")
    assert "someone" not in text


def test_hundreds_of_cards_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (14, 14, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)

    class Noise(Images):
        def __getitem__(self, index):
            return SimpleNamespace(image=picture, id=f"{self.name}/<{index}>.png")

    records = [mistake(i, 0, 1, [i % 49, (i + 1) % 49]) for i in range(400)]
    path = write_report(
        make_run(tmp_path / "run", records), Noise("test"), Noise("train"), lambda image: image
    )
    assert path.read_text().count("<article") == 400
    assert path.stat().st_size / 400 < 25_000


def test_other_data_than_the_runs_are_refused(run):
    before = (run / "report.html").read_bytes() if (run / "report.html").exists() else None
    with pytest.raises(InputError, match=r"image 0 of the data is val/<0>.png, expected train/"):
        write_report(run, Images("test"), Images("val"), view)
    with pytest.raises(InputError, match=r"image 1 of the data is val/<1>.png, expected test/"):
        write_report(run, Images("val"), Images("train"), view)
    with pytest.raises(InputError, match="expected the folder of a run"):
        write_report(run / "parts", Images("test"), Images("train"), view)
    after = (run / "report.html").read_bytes() if before is not None else None
    assert after == before
    assert not list(run.glob(".*.tmp"))


def test_one_explanation_as_a_figure(run, tmp_path):
    figure = card_figure(read_run(run), 1, Images("test"), Images("train"), view, max_edits=3)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 3 + 2 * 3
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[1:4] == [
        "evidence for\nfinch & co",
        f"deciding for\n{CLASSES[0]}",
        f"probability of\n{CLASSES[0]}",
    ]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "3", "4"]
    assert [frame.get_xy() for frame in pictures[0].patches] == [
        (30, 30),
        (40, 30),
        (50, 30),
        (0, 0),
    ]
    # edit 0 replaces cell 24, in the middle: cells 2 to 5 of 7, at 10 pixels each
    assert titles[4] == "1   similarity 0.74"
    assert pictures[3].get_xlim() == (20, 50)
    assert pictures[3].get_ylim() == (50, 20)
    [frame] = pictures[3].patches
    assert (frame.get_xy(), frame.get_width()) == ((30, 30), 10)
    assert [line.get_ydata().tolist() for line in figure.axes[3].lines] == [
        pytest.approx([0.3, 0.45, 0.6, 0.75, 0.9])
    ]
    assert any("the first 3 of 4" in text.get_text() for text in figure.texts)
    figure.savefig(tmp_path / "card.png")
    assert re.match(rb"\x89PNG", (tmp_path / "card.png").read_bytes())
