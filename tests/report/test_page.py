import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from report.runs import CLASSES, VIEW, Images, make_run, mistake

from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.files import write_json
from fgvce_jax.report import card_figure, write_report
from fgvce_jax.report import page as page_module
from fgvce_jax.report.cards import encoded, reachable
from fgvce_jax.report.head import maps_with_nan
from fgvce_jax.report.pairs import confused_pairs
from fgvce_jax.results import ImageResult, open_run, read_run, unfinished_run

OTHERS = ("gradcam", "fgvce_invariant", "fgvce_dominant", "scout", "cve")


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
    info = {"classes_without_reference": [CLASSES[2]], "num_classes": 5}
    return make_run(folder, records, info)


class Page(HTMLParser):
    """The page's elements in order, (tag, attributes, text up to the next tag), and its data."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)
        blocks = {a["id"]: json.loads(t) for a, t in self.find("script", type="application/json")}
        self.index = blocks["index"]
        self.data = {
            kind: [item for name in blocks if name.startswith(kind) for item in blocks[name]]
            for kind in ("cards", "references", "pairs")
        }

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


def write(folder, dataset=None, references=None, **options):
    path = write_report(
        folder, dataset or Images("test"), references or Images("train"), VIEW, **options
    )
    return path.read_text()


@pytest.fixture(scope="module")
def written(run):
    dataset, references, drawn = Images("test"), Images("train"), []
    text = write(run, dataset, references, advance=drawn.append)
    read = (dataset.read, references.read)
    return SimpleNamespace(folder=run, text=text, page=Page(text), read=read, drawn=drawn)


def test_every_image_is_read_once_in_order(written):
    assert written.read == ([1, 2, 4, 5], [0, 1, 2, 3])
    assert written.drawn == [1, 1, 1, 1]


def test_only_the_pages_own_script_runs_and_nothing_is_fetched(written):
    """A Content-Security-Policy that allows the script by its hash, styles, embedded pictures."""
    elements = written.page.elements
    ((policy, _),) = written.page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    allowed = dict(entry.strip().split(" ", 1) for entry in policy["content"].split(";"))
    ((_, text),) = [found for found in written.page.find("script") if "type" not in found[0]]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert allowed == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # It holds for what comes after it only, and a handler in an attribute would not run.
    tags = [tag for tag, _, _ in elements]
    before = elements[: next(i for i, e in enumerate(elements) if "http-equiv" in e[1])]
    assert {tag for tag, _, _ in before} <= {"html", "head", "meta"}
    assert not any(name.startswith("on") for _, attrs, _ in elements for name in attrs)
    assert not {"link", "iframe", "object", "embed", "base"} & set(tags)
    for _, attrs, _ in elements:
        for key in ("src", "href"):
            assert attrs.get(key, "#").startswith("#")
    style = "".join(text for _, text in written.page.find("style"))
    assert "url(" not in style
    assert "@import" not in style


def test_the_index_has_what_is_searched_sorted_and_filtered_by(written):
    rows = written.page.index["rows"]
    keys = ("index", "id", "P", "Q", "edits", "pQ0", "flipped", "status")
    assert list(zip(*(rows[key] for key in keys), strict=True)) == [
        (1, "test/<1>.png", 1, 0, 2, 0.1, True, "explained"),
        (2, "test/<2>.png", 1, 0, 4, 0.3, False, "explained"),
        (4, "test/<4>.png", 1, 2, 1, 0.2, True, "explained"),
        (5, "test/<5>.png", 0, 2, 0, 0.1, False, "no_reference"),
    ]
    assert written.page.index["classes"] == {"0": CLASSES[0], "1": CLASSES[1], "2": CLASSES[2]}


def test_names_and_ids_are_text_and_never_markup(written):
    for raw in ("<script>alert", "<1>", "<pixels>"):
        assert raw not in written.text
    scripts = written.page.find("script")
    assert len(scripts) == 1 + len(written.page.find("script", type="application/json"))
    assert "1 x 1 &lt;pixels&gt;" in written.text


def test_a_card(written):
    card = written.page.data["cards"][0]
    result = mistake(1, 0, 1, [8, 24])
    first, second = card["edits"]
    assert (first["cell"], first["reference"], first["candidate_cell"]) == (8, 0, 40)
    assert written.page.data["references"][second["reference"]]["id"] == "train/<1>.png"
    assert card["pP"] == pytest.approx([0.8, 0.425, 0.05])
    assert card["pQ"] == pytest.approx([0.1, 0.5, 0.9])
    assert card["kept"] == [0, 1, 2]
    assert card["nearest"] == [1] * 7 + [0] * 3
    for name, wanted in (("logits", result.logits), ("changes", result.logit_changes)):
        got = np.frombuffer(base64.b64decode(card[name]), "<f4")
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    got = np.frombuffer(base64.b64decode(card["maps"]["dominant"]), "<f4")
    np.testing.assert_array_equal(got.reshape(7, 7), np.eye(7))
    assert set(card["maps"]) == {"invariant", "dominant"}
    assert card["image"].startswith("data:image/webp;base64,")
    assert [found["cell"] for found in written.page.data["cards"][3]["edits"]] == []


def test_classes_are_left_out_only_where_no_subset_of_the_edits_makes_them_count():
    rng = np.random.default_rng(0)
    left_out = 0
    for _ in range(50):
        logits, changes = rng.normal(0, 9, 40), rng.normal(0, 2, (4, 40))
        kept = reachable(logits, changes)
        left_out += 40 - len(kept)
        for on in np.ndindex(2, 2, 2, 2):
            z = logits + np.array(on) @ changes
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            assert p[kept].sum() >= 1 - 1e-5
            assert p.argmax() in kept
    assert left_out > 200


def test_the_pairs_and_what_is_replaced_in_them(run, written):
    pairs = confused_pairs(read_run(run))
    assert [(p["P"], p["Q"], p["count"]) for p in pairs] == [(1, 0, 2), (0, 2, 1), (1, 2, 1)]
    first = written.page.data["pairs"][0]
    replaced = np.zeros(49, int)
    replaced[[8, 24, 25, 26, 0]] = 1
    replaced[24] = 2
    assert first["replaced"] == replaced.tolist()
    assert first["references"] == [[0, 2], [1, 2], [2, 1], [3, 1]]
    assert first["invariant"] == encoded(np.eye(7))
    assert first["parts"] == []


def test_the_figures_at_the_top(written):
    numbers = [text for _, text in written.page.find("b")]
    assert numbers[:5] == ["20.0%", "4", "66.7%", "66.7%", "1.5"]
    assert "chance 20.0%" in written.text  # one of the five classes that the classifier knows
    for note in ("1 image without edits", "1 class without", "1 image skipped"):
        assert note in written.text


def test_what_evaluate_found_stands_beside_chance(tmp_path):
    folder = make_run(tmp_path / "run", [mistake(1, 0, 1, [3])])
    assert Page(write(folder)).index["findings"] == []
    measures = {"near_kp_first": 61.25, "near_kp_all": 40.0, "same_kp_first": None}
    maps = {"keypoints": 1.5, "keypoints_chance": 0.4}
    write_json(
        folder / "evaluation.json",
        {
            "keypoints": measures,
            "chance": {"near_kp_first": 30.0, "near_kp_all": 31.0},
            "invariant": maps,
            "dominant": maps,
        },
    )
    rows = [tuple(row.values()) for row in Page(write(folder)).index["findings"]]
    assert rows == [
        ("Near-KP, first edits", "61.2%", "30.0%"),
        ("Near-KP, all edits", "40.0%", "31.0%"),
        ("Same-KP, first edits", "–", "–"),
        ("Same-KP, all edits", "–", "–"),
        ("keypoints in the map, evidence for P", "1.50", "0.40"),
        ("keypoints in the map, deciding for Q", "1.50", "0.40"),
    ]


def test_the_times_are_those_of_the_run_and_of_the_report_itself(tmp_path):
    kept = {"seconds": {"reading": 1.5, "forward": 2.0}, "total": 4.0, "images": 10}
    folder = make_run(tmp_path / "run", [mistake(1, 0, 1, [3])], {"timings": kept})
    found = Page(write(folder)).index["times"]
    report = found["seconds"].pop("report")
    assert 0 < report < 60
    assert found["total"] == pytest.approx(4 + report, abs=0.001)
    assert (found["seconds"], found["images"]) == (kept["seconds"], 10)
    assert found["search"] == pytest.approx(0.004)
    whole = kept | {"seconds": kept["seconds"] | {"report": 0.3}}
    folder = make_run(tmp_path / "again", [mistake(1, 0, 1, [3])], {"timings": whole})
    found = Page(write(folder)).index["times"]
    assert found == whole | {"search": pytest.approx(0.004)}  # those of the run, not of this page
    folder = make_run(tmp_path / "unknown", [mistake(1, 0, 1, [3])])
    assert Page(write(folder)).index["times"] is None


def test_of_too_many_explanations_a_sample_is_shown_and_told(run, monkeypatch, written):
    monkeypatch.setattr(page_module, "MOST_CARDS", 2)
    dataset = Images("test")
    text = write(run, dataset)
    page = Page(text)
    assert page.index["rows"]["index"] == [1, 5]
    assert dataset.read == [1, 5]
    assert page.index["pairs"] == written.page.index["pairs"]  # of all of them
    assert page.index["explanations"] == 4
    assert "2 of 4 explanations are shown" in text
    assert "explanations are shown" not in written.text
    for tile in ("misclassified", "flipped to Q"):  # the figures are those of all
        found = [re.search(rf"<b>([^<]*)</b>{tile}", page)[1] for page in (text, written.text)]
        assert found[0] == found[1]


def test_a_run_without_mistakes(tmp_path):
    folder = make_run(tmp_path / "run", [ImageResult(0, "a", 1, "unexplained", predicted=1)])
    text = write(folder)
    assert "No image is misclassified" in text
    assert "100.0%" in text


def test_a_run_without_any_image(tmp_path):
    folder = make_run(tmp_path / "run", [ImageResult(0, "a", 1, "skipped", why="empty")])
    assert "1 image skipped" in write(folder)


def test_the_methods_asked_for_stand_beside_each_with_its_class(tmp_path):
    records = [mistake(1, 0, 1, [3], extra=OTHERS)]
    of = {"gradcam": "P", "fgvce_invariant": "P", "fgvce_dominant": "Q", "scout": "P", "cve": "Q"}
    for methods in (OTHERS, ("fgvce_dominant", "scout"), ()):
        folder = make_run(tmp_path / str(len(methods)), records, methods=methods)
        page = Page(write(folder))
        assert page.index["methods"] == [{"name": name, "of": of[name]} for name in methods]
        assert set(page.data["cards"][0]["maps"]) == {"invariant", "dominant", *methods}


def test_a_map_with_nan_is_named_and_counted(tmp_path):
    records = [mistake(k, 0, 1, [3], extra=("gradcam", "scout")) for k in range(3)]
    for k in (0, 2):
        records[k].maps["scout"][1, 1] = np.nan
    folder = make_run(tmp_path / "run", records, methods=("gradcam", "scout"))
    page = Page(write(folder))
    [note] = [text for _, text in page.find("summary") if "NaN" in text]
    assert note == "scout: NaN in 2 maps, not shown"
    assert maps_with_nan(read_run(folder), ("gradcam", "scout")) == {
        "scout": ["test/<0>.png", "test/<2>.png"]
    }


def test_a_page_of_mistakes_and_one_of_correct_images_each_say_what_is_so(tmp_path):
    records = [mistake(1, 1, 1, [3]), mistake(2, 1, 1, [])]
    pages = {
        pairs: write(make_run(tmp_path / pairs, records, pairs=pairs))
        for pairs in ("misclassified", "confusion")
    }
    of_mistakes, of_pairs = (
        ("the label is", "wrong class"),
        ("correctly; ", "often confuses with P"),
    )
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
    assert "misclassified" in write(folder)


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
    [(_, text)] = Page(write(folder)).find("title")
    assert text.endswith(f" · {title}")
    assert "someone" not in text


def test_hundreds_of_cards_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (14, 14, 3)).astype(np.uint8).repeat(5, 0).repeat(5, 1)

    class Noise(Images):
        def __getitem__(self, index):
            return Example(picture, 0, self.ids[index])

    records = [mistake(i, 0, 1, [i % 49, (i + 1) % 49]) for i in range(300)]
    text = write(make_run(tmp_path / "run", records), Noise("test"), Noise("train"))
    page = Page(text)
    assert len(page.data["cards"]) == 300
    assert len(text) / 300 < 12_000


def test_a_large_run_is_a_page_with_a_folder_of_scripts_beside_it(tmp_path):
    records = [mistake(i, 0, 1, [i % 49]) for i in range(60)]
    folder = make_run(tmp_path / "run", records)
    whole = Page(write(folder))
    assert not (folder / "report-data").exists()
    text = write(folder, in_one_file=59)
    page = Page(text)
    assert page.data == {"cards": [], "references": [], "pairs": []}
    assert page.index == whole.index | {"folder": "report-data"}
    ((policy, _),) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert re.search("script-src 'sha256-[^ ]*' 'strict-dynamic';", policy["content"])
    found = {"cards": [], "references": [], "pairs": []}
    names = ["cards-0.js", "cards-1.js", "pairs-0.js", "references-0.js"]
    assert sorted(path.name for path in (folder / "report-data").iterdir()) == names
    for name in names:
        written = (folder / "report-data" / name).read_text()
        kind, number, items = re.fullmatch(r'fgvceChunk\("(\w+)",(\d+),(.*)\);\n', written).groups()
        assert name == f"{kind}-{number}.js"
        found[kind] += json.loads(items)
    assert found == whole.data
    with pytest.raises(InputError, match="the data have none of them"):
        write(folder, Images("val"), in_one_file=59)
    assert sorted(path.name for path in (folder / "report-data").iterdir()) == names
    assert not list(folder.glob(".*.tmp"))
    write(folder)
    assert not (folder / "report-data").exists()


def test_images_that_are_gone_leave_the_rest_of_their_cards(run):
    class Lossy(Images):
        def __getitem__(self, index):
            if index == 2:
                raise UnreadableImage(self.ids[index], "truncated")
            return super().__getitem__(index)

    page = Page(write(run, Lossy("test")))
    first, second = page.data["cards"][:2]
    assert first["gone"] is None
    assert second["image"] is None
    assert "truncated" in second["gone"]
    assert second["pQ"][0] == pytest.approx(0.3)
    moved = Images("test")
    moved.ids = ("new", *moved.ids[:2], *moved.ids[4:])  # one came, 2 and 3 went: all have moved
    page = Page(write(run, moved))
    gone = [card["gone"] for card in page.data["cards"]]
    assert gone == [None, "this image is gone from the data", None, None]
    text = write_report(run, None, None, VIEW).read_text()
    assert {card["gone"] for card in Page(text).data["cards"]} == {
        "the data that this run read are gone"
    }


def test_a_run_that_is_not_finished_shows_what_there_is(tmp_path):
    config = {"data": {"name": "birds"}, "model": {"arch": "vgg16"}, "methods": ["scout"]}
    with open_run(tmp_path / "run", config) as run:
        nothing = unfinished_run(run.folder, CLASSES, 10)
        with pytest.raises(InputError, match="no part of the run is finished"), nothing:
            pass
        run.write_part(0, [mistake(0, 0, 1, [3], extra=("scout",))])
        run.write_part(2, [mistake(4, 0, 1, [5], extra=("scout",)), mistake(5, 2, 1, [5])])
        before = sorted(path.name for path in run.folder.iterdir())
        with unfinished_run(run.folder, CLASSES, 10) as found:
            text = write(found, out=run.folder)
        assert sorted({*before, "report.html"}) == sorted(p.name for p in run.folder.iterdir())
        assert "3 of 10 images are done, 7 are missing." in text
        page = Page(text)
        assert page.index["rows"]["index"] == [0, 4, 5]
        assert len(page.data["cards"]) == 3
    resumed = open_run(tmp_path / "run", config)
    assert resumed.resumed == {0, 2}  # its report is no obstacle to the rest
    resumed.lock.release()


def test_other_data_than_the_runs_are_refused(run):
    before = write(run)
    with pytest.raises(InputError, match="the data have none of them"):
        write(run, references=Images("val"))
    with pytest.raises(InputError, match="expected the images of the run"):
        write(run, Images("val"))
    with pytest.raises(InputError, match="expected the folder of a run"):
        write(run / "parts")
    assert (run / "report.html").read_text() == before
    assert not list(run.glob(".*.tmp"))


def test_one_explanation_as_a_figure(run, tmp_path):
    figure = card_figure(read_run(run), 1, Images("test"), Images("train"), VIEW, max_edits=3)
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
