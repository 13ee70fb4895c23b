"""An explanation for people: its text, its card as HTML and as a figure, and when there is none."""

import base64
import io
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import fgvce_jax as fg
from fgvce_jax.pictures import patch

NAMES = ("ant <b>", "bee & co", "cow")


@pytest.fixture(scope="module")
def explained():
    """(explanation of a batch, its classifier, its bank, images, labels, reference images)."""
    rng = np.random.default_rng(3)
    clf = networks.resnet(classes=3)
    size = clf.image_size
    references = rng.random((40, size, size, 3), np.float32)
    labels = np.asarray(clf(references).argmax(-1))
    spread = np.asarray(clf(references))
    clf = replace(clf, head=replace(clf.head, bias=clf.head.bias - jnp.asarray(spread.mean(0))))
    clf = replace(clf, class_names=NAMES)
    labels = np.asarray(clf(references).argmax(-1))
    assert len(set(labels.tolist())) == 3
    bank = fg.build_bank(clf, references, labels, fg.BankConfig(per_class=3, top_m=2))
    images = rng.random((4, size, size, 3), np.float32)
    targets = (np.asarray(clf(images).argmax(-1)) + np.array([0, 1, 1, 2])) % 3
    out = fg.explain(clf, bank, images, targets, fg.SearchConfig(max_iterations=3))
    assert out.num_edits.tolist()[1] > 0
    return out, clf, bank, images, references


def test_the_text_of_one(explained):
    out, _, _, _, _ = explained
    one = out[1]
    p, q = NAMES[one.predicted], NAMES[one.target]
    first, second, third = repr(one).splitlines()
    assert first == f"predicted {p} ({one.p_predicted[0]:.2f}), not {q} ({one.p_target[0]:.2f})"
    count, n = int(one.num_edits), len(one.invariant)
    how = "flipped by" if one.flipped else "not flipped by"
    assert second.startswith(f"{how} {count} edit{'s' * (count > 1)} of {n * n} cells: {q} ")
    assert second.endswith(f"-> {one.p_predicted[count]:.2f}")
    cells = [(cell // n, cell % n) for cell in one.edit_cell[:count].tolist()]
    assert third == f"cells replaced, by row and column: {', '.join(map(str, cells))}"


def test_the_text_of_one_that_needed_no_edit(explained):
    same = explained[0][0]
    assert same.flipped
    assert same.num_edits == 0
    assert repr(same).endswith("the class asked about: no edit needed")


def test_the_text_of_a_batch(explained):
    out = explained[0]
    flipped = int((out.flipped & (out.num_edits > 0)).sum())
    lines = repr(out).splitlines()
    assert lines[0] == (
        f"4 images, 3 predicted as another class than the target, {flipped} of them flipped"
    )
    assert len(lines) == 3
    assert len(repr(out)) < 300


def test_parts_of_a_batch_hold_the_same_numbers(explained):
    out = explained[0]
    assert len(out) == 4
    jax.tree.map(np.testing.assert_array_equal, out[-1], jax.tree.map(lambda x: x[3], out))
    some = out[1:3]
    assert (len(some), some[1].target) == (2, out.target[2])
    assert repr(some[1]) == repr(out[2])
    with pytest.raises(IndexError):
        out[4]
    with pytest.raises(TypeError):
        len(out[0])


def test_classifier_and_bank_in_a_line(explained):
    _, clf, bank, _, _ = explained
    assert repr(clf).startswith("Classifier: ")
    assert "3 classes (ant <b>, bee & co, cow), images of" in repr(clf)
    channels = bank.cells.shape[-1]
    assert repr(bank) == (
        f"Bank: 18 cells of {channels} channels, from 9 reference images of 3 of 3 classes"
    )
    seen = []
    jax.eval_shape(lambda *given: seen.append(repr(given)), bank, explained[0])
    assert "Bank" in seen[0]  # placeholders print as well
    assert "Explanation" in seen[0]


def pixels(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def test_the_card_as_html(explained):
    out, _, bank, images, references = explained
    page, one = out[1]._repr_html_(), out[1]
    assert "&lt;b&gt;" in page or "&amp;" in page
    assert "<b>" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)  # it needs nothing else
    for curve in (one.p_predicted, one.p_target):
        assert f">{curve[int(one.num_edits)]:.2f}</text>" in page
    sources = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    count, n = int(one.num_edits), len(one.invariant)
    assert len(sources) == 5 + 2 * count  # image; image and map, twice; pairs
    shown = np.round(images[1] * 255).astype(np.uint8)
    assert np.abs(pixels(sources[0]).astype(int) - shown).mean() < 20  # lossy
    image, cell = bank.provenance(int(one.target))
    k = int(one.edit_candidate[0])
    reference = np.round(references[image[k]] * 255).astype(np.uint8)
    expected = [patch(shown, int(one.edit_cell[0]), n), patch(reference, int(cell[k]), n)]
    for found, crop in zip(sources[5:7], expected, strict=True):
        assert np.abs(pixels(found).astype(int) - np.asarray(crop)).mean() < 20


def test_a_batch_shows_cards_of_what_was_asked(explained):
    page = explained[0]._repr_html_()
    assert page.count("fgvce-card") == 3
    assert "no edit needed" not in page
    assert "no edit needed" in explained[0][0]._repr_html_()


def test_the_card_as_a_figure(explained):
    out, _, _, images, references = explained
    one = out[1]
    figure = one.plot(max_edits=2)
    FigureCanvasAgg(figure).draw()
    count, n = int(one.num_edits), len(one.invariant)
    shown = np.round(images[1] * 255).astype(np.uint8)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), shown)
    curves = [line.get_ydata() for line in figure.axes[3].lines]
    np.testing.assert_allclose(curves[0], one.p_predicted[: count + 1])
    np.testing.assert_allclose(curves[1], one.p_target[: count + 1])
    assert len(figure.axes) == 4 + 2 * min(count, 2)
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == [str(k + 1) for k in range(count)]
    row, column = divmod(int(one.edit_cell[0]), n)
    corner = figure.axes[0].patches[0].get_xy()
    assert corner == pytest.approx((column * len(shown) / n, row * len(shown) / n))
    image, _ = explained[2].provenance(int(one.target))
    reference = np.round(references[image[int(one.edit_candidate[0])]] * 255)
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), reference)


def test_without_pictures_there_are_numbers(explained):
    out, clf, bank, images, _ = explained
    bare = jax.tree.map(lambda leaf: leaf, out)
    assert repr(bare[1]).startswith(f"predicted class {int(out.predicted[1])} (")
    assert bare._repr_html_() is None
    with pytest.raises(fg.InputError, match="one that `explain` returned"):
        bare[1].plot()
    with pytest.raises(fg.InputError, match="expected one, as out"):
        out.plot()
    moved = fg.explain(clf, jax.device_put(bank), images, out.target)  # without its references
    assert moved[1].card().edits[0].reference is None
    assert moved[1]._repr_html_().count("<img") == 5 + len(moved[1].card().edits)


def test_a_reference_that_is_gone_is_named(explained):
    _, clf, _, images, references = explained
    labels = np.asarray(clf(references).argmax(-1))
    there = [True]

    def load(indices):
        if there:
            yield indices, references[indices]

    bank = fg.build_bank(clf, load, labels, fg.BankConfig(per_class=3, top_m=2))
    out = fg.explain(clf, bank, images[1:2], explained[0].target[1:2])
    there.clear()
    with pytest.raises(fg.InputError, match=r"reference image \d+: cannot be read any more"):
        out[0].plot()
