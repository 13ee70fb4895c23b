"""The report in a browser: Debian's Chromium, driven by Playwright."""

import csv
import io
import json
import re
import shutil
from itertools import combinations
from pathlib import Path

import axe_core_python
import jax
import numpy as np
import pytest
from methods.tiny import CHANNELS, problems, tiny
from methods.tiny import N as TINY_N
from playwright.sync_api import expect, sync_playwright
from report.runs import CLASSES, VIEW, Images, make_run, mistake

import fgvce_jax as fg
from fgvce_jax.logit_changes import logit_changes
from fgvce_jax.report import write_comparison, write_report
from fgvce_jax.results import CORE_MAPS, Edit, ImageResult, read_run

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text("utf-8")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        assert path, "expected Debian's chromium (apt-get install chromium)"
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a report at an address; a console error or a request beyond its folder fails."""
    contexts, wrong = [], []

    def visit(path, at="", *, width=1240, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        inside = (path.as_uri(), f"{path.parent.as_uri()}/report-data/", "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(inside) or wrong.append(r.url))
        page.goto(f"{path.as_uri()}{at}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


def records():
    """60 mistakes of 4 pairs; every fifth is not flipped, every seventh ends with p(Q) = 0.4."""
    names = [(1, 0), (2, 1), (3, 4), (0, 1)]
    found = []
    for k in range(60):
        predicted, label = names[min(k % 7, 3)]
        cells = [(k + 5 * t) % 49 for t in range(1 + k % 11)]
        one = mistake(k, label, predicted, cells, flipped=k % 5 != 0, classes=5)
        if k % 7 == 0:
            one.p_target[-1] = 0.4
        found.append(one)
    return [*found, mistake(60, 2, 0, [], flipped=False, classes=5)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("browser") / "run", records())
    return write_report(folder, Images("test"), Images("train"), VIEW)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The same in the form that a large run's report has."""
    folder = make_run(tmp_path_factory.mktemp("browser") / "large", records())
    return write_report(folder, Images("test"), Images("train"), VIEW, in_one_file=10)


def cards(page):
    return page.locator(".card")


def shown(page):
    return page.locator(".card").evaluate_all("all => all.map(card => card.dataset.id)")


@pytest.mark.parametrize("form", ["report", "large"])
def test_cards_are_built_as_they_come_into_view(visit, request, form):
    page = visit(request.getfixturevalue(form))
    expect(page.locator("#shown")).to_have_text("61 of 61 cards")
    built = page.locator(".card[data-built=yes]")
    last = cards(page).last
    expect(last).not_to_have_attribute("data-built", "yes")
    last.scroll_into_view_if_needed()
    expect(last).to_have_attribute("data-built", "yes")
    expect(last.locator("h3")).to_contain_text("owl's cousin")
    assert built.count() < 61


def test_of_many_cards_only_those_near_the_view_exist(visit, tmp_path):
    few = [mistake(k, 0, 1, [k % 49]) for k in range(410)]
    folder = make_run(tmp_path / "run", few)
    page = visit(write_report(folder, Images("test", 410), Images("train"), VIEW))
    expect(page.locator("#shown")).to_have_text("410 of 410 cards")
    assert cards(page).count() < 300
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.locator(".card[data-n='409']")
    expect(last).to_have_attribute("data-built", "yes")
    assert cards(page).count() < 300
    page.evaluate("scrollTo(0, 0)")
    edge = page.locator(".card[data-n='99']")
    edge.focus()
    for key, n in (("j", "100"), ("j", "101"), ("k", "100"), ("k", "99")):
        page.keyboard.press(key)
        expect(page.locator(".card:focus")).to_have_attribute("data-n", n)
    page.locator("#q").fill("<409>")
    assert shown(page) == ["test/<409>.png"]


def test_names_are_shown_as_they_are(visit, report):
    page = visit(report, "#pair=3-4")
    title = page.locator("#pair-title bdi")
    assert title.all_text_contents() == [CLASSES[3], CLASSES[4]]
    page = visit(report)
    assert '<script>alert("wren")</script>' in page.locator("#pairs").text_content()
    assert "owl's cousin" in page.locator("#pairs").text_content()  # no underscore


def test_search_filters_and_order(visit, report):
    page = visit(report)
    everything = records()
    wanted = [r for r in everything if {1, 0} == {r.predicted, r.label}]
    page.locator("#q").fill("FINCH wren")
    expect(page.locator("#shown")).to_have_text(f"{len(wanted)} of 61 cards")
    assert shown(page) == [r.id for r in wanted]
    page.locator("#unflipped").check()
    assert shown(page) == [r.id for r in wanted if not r.flipped]
    page.locator("#q").fill("")
    page.locator("#least").fill("4")
    page.locator("#most").fill("9")
    page.locator("#sort").select_option("-edits")
    found = [r for r in everything if not r.flipped and 4 <= len(r.edits) <= 9]
    assert shown(page) == [r.id for r in sorted(found, key=lambda r: -len(r.edits))]
    page.locator("#unflipped").uncheck()
    page.locator("#unlikely").check()
    found = [r for r in everything if r.p_target[-1] < 0.5 and 4 <= len(r.edits) <= 9]
    assert sorted(shown(page)) == sorted(r.id for r in found)
    before = shown(page)
    page.reload()  # the address holds all of it
    assert shown(page) == before
    page.locator("#q").fill("no such bird")
    expect(page.locator("#none")).to_contain_text("No card")
    page.get_by_role("button", name="reset").click()
    expect(page.locator("#shown")).to_have_text("61 of 61 cards")


def test_the_slider_moves_the_maps_the_mark_and_the_cells(visit, report):
    page = visit(report, "#card=test/<10>.png")
    card = cards(page)
    slider = card.locator("input[type=range]")
    map_of_p = card.locator(".views figure").nth(1).locator(".map")
    at_the_end = map_of_p.get_attribute("href")
    assert card.locator(".frames .off").count() == 0
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert card.locator(".views .frames .off").count() == 8
    expect(card.locator(".made")).to_contain_text("3 of 11 edits: P 0.5955 Q 0.3182")
    assert map_of_p.get_attribute("href") != at_the_end
    x, y = (float(card.locator(".curve circle.q").get_attribute(k)) for k in ("cx", "cy"))
    assert (x, y) == pytest.approx((350 * 3 / 11, 150 * (1 - 0.318182)), abs=0.01)
    slider.fill("11")
    assert map_of_p.get_attribute("href") == at_the_end


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A report of a model at hand, with the model, its feature maps and each card's edits."""
    model = tiny(sharpness=3.0)
    images, predicted, _ = problems(model, count=40)
    bank = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=3, top_m=3))
    known = np.setdiff1d(np.arange(5), bank.missing())
    targets = np.int32([known[known != p][0] for p in predicted[:6]])
    out = jax.device_get(fg.explain(model.clf, bank, images[:6], targets))
    edits = out.edit_cell, out.edit_candidate
    cells = model.clf.features(images[:6])
    logits, changes = logit_changes(model.clf.head, bank.for_targets(targets), cells, *edits)
    found = []
    for b, count in enumerate(out.num_edits.tolist()):
        made = [Edit(int(c), "train/<0>.png", 0, 0, 0.5) for c in out.edit_cell[b, :count]]
        target, maps = int(targets[b]), {name: getattr(out, name)[b] for name in CORE_MAPS}
        p = [np.asarray(p[b, : count + 1]).tolist() for p in (out.p_predicted, out.p_target)]
        kept = np.asarray(logits[b]), np.asarray(changes[b, :count]).ravel()
        names = b, f"test/<{b}>.png", target, "explained", int(out.predicted[b]), target
        found.append(ImageResult(*names, None, True, tuple(made), *p, 0.1, *kept, (), maps))
    folder = make_run(tmp_path_factory.mktemp("browser") / "explained", found)
    path = write_report(folder, Images("test"), Images("train"), VIEW)

    def probabilities(b, kept):
        edited = model.features(images[b]).reshape(TINY_N * TINY_N, CHANNELS)
        for t in kept:
            offered = bank.cells[bank.group[targets[b]]]
            edited[out.edit_cell[b, t]] = offered[out.edit_candidate[b, t]]
        z = model.head(edited.reshape(TINY_N, TINY_N, CHANNELS))
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        return p[int(out.predicted[b])], p[targets[b]]

    return path, probabilities, out.num_edits


def test_undoing_single_edits_gives_the_probabilities_of_the_model(visit, explained):
    path, probabilities, counts = explained
    b = int(np.argmax(counts))
    count = int(min(counts[b], 8))
    assert count >= 3
    page = visit(path, f"#card=test/<{b}>.png")
    boxes = cards(page).locator(".edits input[type=checkbox]")
    compared = 0
    for left_out in [*combinations(range(count), 1), *combinations(range(count), 2)][:12]:
        for t in left_out:
            boxes.nth(t).uncheck()
        made = cards(page).locator(".made")
        shown = [float(made.locator(f".{of}").get_attribute(f"data-{of}")) for of in "pq"]
        kept = [t for t in range(int(counts[b])) if t not in left_out]
        assert shown == pytest.approx(probabilities(b, kept), abs=1e-4)
        compared += 1
        for t in left_out:
            boxes.nth(t).check()
    assert compared >= 6


def test_without_a_linear_head_the_switch_is_absent_and_says_why(visit, tmp_path):
    one = mistake(0, 0, 1, [3, 4])
    one = ImageResult(**(vars(one) | {"logits": (), "logit_changes": ()}))
    why = "the head (Dense) is not linear in the cells, so edits interact"
    folder = make_run(tmp_path / "run", [one], {"edits_interact": why})
    page = visit(write_report(folder, Images("test"), Images("train"), VIEW))
    card = cards(page)
    expect(card).to_contain_text(f"Single edits cannot be undone here: {why}.")
    assert card.locator("input[type=checkbox]").count() == 0
    card.locator("input[type=range]").fill("1")
    expect(card.locator(".made")).to_contain_text("1 of 2 edits: P 0.4250 Q 0.5000")


def test_a_link_or_a_reload_shows_the_same_card(visit, report):
    page = visit(report, "#q=finch&sort=-edits")
    cards(page).nth(2).scroll_into_view_if_needed()
    cards(page).nth(2).locator("h3 a").click()
    expect(page.locator("#place")).to_contain_text("3 of")
    [id] = shown(page)
    page.reload()
    assert shown(page) == [id]
    again = visit(report, page.url[page.url.index("#") :])
    assert shown(again) == [id]
    page.go_back()
    assert len(shown(page)) > 3
    page = visit(report, "#card=nothing")
    expect(page.locator("#place")).to_have_text("This report has no card of that name.")
    page = visit(report, "#pair=7-8")
    expect(page.locator("#pair")).to_contain_text("no such pair")


def test_keys(visit, report):
    page = visit(report)
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("jk")  # letters, not steps
    expect(page.locator("#q")).to_have_value("jk")
    page.locator("#q").fill("")
    page.keyboard.press("Escape")
    for key, at in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(cards(page).nth(at)).to_be_focused()
    page = visit(report, "#card=test/<4>.png")
    page.keyboard.press("j")
    expect(cards(page)).to_have_attribute("data-id", "test/<5>.png")
    page.keyboard.press("k")
    expect(cards(page)).to_have_attribute("data-id", "test/<4>.png")
    page.keyboard.press("Escape")
    expect(page.locator("#shown")).to_have_text("61 of 61 cards")


def test_every_control_is_reached_by_the_tab_key_and_its_focus_is_seen(visit, report):
    page = visit(report, "#card=test/<4>.png")
    expect(cards(page)).to_have_attribute("data-built", "yes")
    controls = page.evaluate("""() => [...document.querySelectorAll(
        "a[href], button, input, select, summary")].filter(e => e.checkVisibility()).length""")
    reached = set()
    for _ in range(controls + 2):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("""() => {
            const at = document.activeElement;
            const {outlineStyle, outlineWidth} = getComputedStyle(at);
            const all = [...document.querySelectorAll("*")];
            return [all.indexOf(at), at.tagName, outlineStyle, outlineWidth].join(" ");
        }""")
        )
    stops = [line.split() for line in reached if "BODY" not in line and "PRE" not in line]
    assert len({stop[0] for stop in stops}) >= controls
    assert {tuple(stop[2:]) for stop in stops} == {("solid", "3px")}


def test_suspect_labels_are_listed_and_filtered_by(visit, tmp_path):
    sure, unsure = mistake(0, 0, 1, [3, 4]), mistake(1, 0, 1, [5])
    sure.p_predicted[0], sure.p_target[0] = 0.98, 0.001
    unsure.p_predicted[0], unsure.p_target[0] = 0.4, 0.35
    folder = make_run(tmp_path / "run", [sure, unsure])
    page = visit(write_report(folder, Images("test"), Images("train"), VIEW))
    listed = page.locator("#suspect-labels")
    expect(listed).to_contain_text("1 suspect label among 2 mistakes")
    assert listed.locator("li").count() == 1
    listed.scroll_into_view_if_needed()
    expect(listed.locator("li img")).to_have_attribute("src", re.compile("^data:image"))
    listed.get_by_role("link", name="all of them").click()
    assert shown(page) == [sure.id]
    expect(cards(page).locator(".suspect")).to_contain_text("Is the label wrong?")
    expect(cards(page).locator(".suspect")).to_contain_text("P is 980 times as probable as Q")


VIEWS = {"overview": "", "pair": "#pair=3-4", "card": "#card=test/<10>.png"}


@pytest.mark.parametrize("at", VIEWS)
@pytest.mark.parametrize("width", [420, 320])
def test_a_narrow_screen_needs_no_horizontal_scroll(visit, report, at, width):
    page = visit(report, VIEWS[at], width=width)
    cards(page).first.scroll_into_view_if_needed()
    expect(cards(page).first).to_have_attribute("data-built", "yes")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    curve = page.locator(".curve").first.bounding_box()
    assert curve["x"] >= 0
    assert curve["x"] + curve["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("at", VIEWS)
def test_no_serious_violation_of_the_accessibility_guidelines(visit, report, at, scheme):
    page = visit(report, VIEWS[at], scheme=scheme)
    cards(page).first.scroll_into_view_if_needed()
    expect(cards(page).first).to_have_attribute("data-built", "yes")
    if at == "overview":
        page.locator("#q").fill("8")  # few cards: axe looks at all of them
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert not [(v["id"], v["nodes"][0]["html"][:200]) for v in grave]


def test_two_clicks_from_the_matrix_to_the_cause(visit, report):
    page = visit(report)
    page.locator("#find-pair").fill("cousin finch")
    assert page.locator("#pairs tbody tr").count() == 1
    page.locator("#matrix").get_by_role("link", name="owl's cousin, not finch & co").click()
    pair = page.locator("#pair")
    expect(pair).to_contain_text("References used most")
    mine = [r for r in records() if (r.predicted, r.label) == (2, 1)]
    expect(pair).to_contain_text(f"{len(mine)} images")
    expect(pair).to_contain_text("labelled finch & co and predicted as owl's cousin")
    expect(pair).to_contain_text("The other way round: none")
    counts = sorted(len(r.edits) for r in mine)
    expect(pair).to_contain_text(f"Edits: median {np.median(counts):g}.")
    assert shown(page) == [r.id for r in mine]
    cells = np.zeros((7, 7))
    for record in mine:
        for edit in record.edits:
            cells[divmod(edit.cell, 7)] += 1
    middle = cells[2:5, 2:5].sum() / cells.sum()  # the middle third of each side: cells 2, 3, 4
    text = pair.locator(".shares li", has=page.locator("b", has_text=re.compile("^middle$")))
    found = [int(n) for n in re.findall(r"(\d+) %", text.text_content())]
    assert found == [round(100 * middle), round(100 * 9 / 49)]
    box = page.locator("h2#pair-title").bounding_box()
    assert box["y"] > 0


def test_where_the_time_went_is_said(visit, tmp_path):
    spent = {"start": 0.01, "reading": 1.25, "forward": 2.0, "report": 0.5}
    kept = {"seconds": spent, "total": 4.0, "images": 80}
    folder = make_run(tmp_path / "run", [mistake(1, 0, 1, [3])], {"timings": kept})
    page = visit(write_report(folder, Images("test"), Images("train"), VIEW))
    said = (
        "50 ms an image over everything: 4.0 s for 80 images (reading 1.3 s, forward 2.0 s, report"
    )
    expect(page.locator("#times")).to_contain_text(f"{said} 500 ms). A search alone takes 4.0 ms")


ODD = ('"quoted" & <b>bold</b>\'s #card=%2F?.png', "صورة الغراب.png", "y" * 300, "a\nb\tc.png")


def test_ids_of_every_kind_are_found_linked_and_shown(visit, tmp_path):
    class Odd(Images):
        def __init__(self):
            super().__init__("test")
            self.ids = ODD

        def __len__(self):
            return len(self.ids)

    found = [ImageResult(**(vars(mistake(k, 0, 1, [3])) | {"id": id})) for k, id in enumerate(ODD)]
    path = write_report(make_run(tmp_path / "run", found), Odd(), Images("train"), VIEW)
    for k, id in enumerate(ODD):
        page = visit(path, width=420)
        page.locator(f".card[data-n='{k}']").scroll_into_view_if_needed()
        page.locator(f".card[data-n='{k}'] h3 a").click()
        assert shown(page) == [id]
        page.reload()
        assert shown(page) == [id]
        expect(cards(page)).to_have_attribute("data-built", "yes")
        assert cards(page).locator(".id").text_content() == id
        assert cards(page).locator(".id b").count() == 0  # text, no markup
        assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_the_first_title_stays_clear_of_the_toolbar(visit, report):
    page = visit(report)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.wait_for_timeout(200)
    tools, title = (page.locator(s).bounding_box() for s in ("#tools", ".card:focus"))
    assert title["y"] >= tools["y"] + tools["height"] - 1


def test_a_picture_is_enlarged(visit, report):
    page = visit(report, "#card=test/<10>.png")
    page.get_by_role("button", name="enlarge reference train/<1>.png").click()
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("Edit 2: cell")
    assert dialog.locator("svg").bounding_box()["width"] > 400
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()


def test_taking_away(visit, report, tmp_path):
    page = visit(report, "#card=test/<10>.png")

    def saved(control):
        with page.expect_download() as download:
            control.click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    [mine] = [r for r in records() if r.index == 10]
    card = json.loads(saved(cards(page).get_by_role("button", name="JSON", exact=True)).read_text())
    assert card["id"] == mine.id
    assert card["predicted"] == CLASSES[mine.predicted]
    assert [e["cell"] for e in card["edits"]] == [e.cell for e in mine.edits]
    assert card["edits"][2]["candidate_image"] == "train/<2>.png"
    np.testing.assert_array_equal(np.reshape(card["maps"]["invariant"], (7, 7)), np.eye(7))
    picture = saved(cards(page).get_by_role("button", name="PNG", exact=True)).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    page = visit(report, "#q=wren&sort=edits")
    table = saved(page.get_by_role("button", name="CSV")).read_bytes().decode()
    lines = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [line["id"] for line in lines] == shown(page)
    assert {line["target"] for line in lines} <= set(CLASSES)


def test_what_is_shown_can_be_printed(visit, report):
    page = visit(report, "#q=cousin")
    page.evaluate("globalThis.print = () => { globalThis.printed = true; }")
    page.get_by_role("button", name="print").click()
    page.wait_for_function("globalThis.printed")
    assert page.locator(".card:not([data-built=yes])").count() == 0
    page.emulate_media(media="print")
    assert not page.locator("#tools").is_visible()


def test_images_that_are_gone_say_so(visit, tmp_path):
    folder = make_run(tmp_path / "run", [mistake(0, 0, 1, [3, 4])])
    page = visit(write_report(folder, None, None, VIEW))
    expect(cards(page).locator(".views .missing")).to_contain_text("are gone")
    assert cards(page).locator(".curve").is_visible()


def test_runs_side_by_side(visit, tmp_path):
    ours, theirs = mistake(0, 0, 1, [3, 4]), mistake(0, 0, 2, [5])
    runs = [
        read_run(make_run(tmp_path / name, [one, mistake(1, 3, 4, [6])]))
        for name, one in (("a", ours), ("b", theirs))
    ]
    path = write_comparison(runs, ["a", "b"], tmp_path / "compare.html", Images("test"), VIEW)
    page = visit(path, width=420)
    page.locator("#q").fill("finch")
    assert shown(page) == [ours.id]
    cards(page).first.scroll_into_view_if_needed()
    columns = cards(page).locator(".run")
    expect(columns).to_have_count(2)
    expect(columns.nth(0)).to_contain_text("predicts finch & co, 2 edits")
    expect(columns.nth(1)).to_contain_text("predicts owl's cousin, 1 edit")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
