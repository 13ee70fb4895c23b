"""The classifier, the explanations and other methods' maps over a dataset."""

from dataclasses import replace

import numpy as np
import pytest
from methods.tiny import CLASSES, PATCH, N, problems, tiny
from networks import resnet, some_images

import fgvce_jax as fg
from fgvce_jax.data.example import Example
from fgvce_jax.errors import UnreadableImage
from fgvce_jax.explain import Explanation
from fgvce_jax.inference import (
    Explainer,
    Predictor,
    confusion_votes,
    image_result,
    most_confused,
)
from fgvce_jax.method_maps import check_methods, method_maps
from fgvce_jax.methods import METHODS, cve
from fgvce_jax.results import CORE_MAPS, Edit


def test_no_map_is_asked_for_twice():
    names = ["gradcam", "fgvce_dominant", "cve", "gradcam", "ce"]
    assert check_methods(names, tiny().clf) == ("gradcam", "fgvce_dominant", "cve", "ce")


def test_what_the_classifier_lacks_is_said_before_anything_is_computed():
    model = tiny()
    with pytest.raises(fg.InputError, match=r"calm: .*fgvce train --head calm_em"):
        check_methods(["gradcam", "calm"], resnet())
    with pytest.raises(fg.InputError, match="fgcam: needs the layers"):
        check_methods(["fgcam"], model.clf)
    with pytest.raises(fg.InputError, match="'gradcan': expected one of"):
        check_methods(["gradcam", "gradcan"], model.clf)


@pytest.fixture(scope="module")
def case():
    model = tiny()
    images, predicted, _ = problems(model, count=60)
    bank = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=None))
    targets = np.int32([k for k in range(5) if k not in bank.missing()])
    contrast = np.int32([targets[targets != p][0] for p in predicted[:6]])
    return model, images, predicted, contrast, bank


def test_maps_are_the_methods_own_at_the_size_of_the_cells(case):
    model, images, predicted, contrast, bank = case
    names = ("gradcam", "ig", "scout", "cve")
    maps = method_maps(names, model.clf, images[:6], predicted[:6], contrast, N, all_cells=bank)
    assert tuple(maps) == names
    assert {values.shape for values in maps.values()} == {(6, N, N)}
    arguments = model.clf, images[:6], predicted[:6]
    pixels = np.asarray(METHODS["ig"](*arguments))
    cells = pixels.reshape(6, N, 3, N, 3).mean((2, 4))
    np.testing.assert_allclose(maps["ig"], cells, rtol=1e-4, atol=1e-6)
    expected = METHODS["scout"](*arguments, contrast)
    np.testing.assert_allclose(maps["scout"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["cve", "cve_semantic"])
def test_exhaustive_methods_search_all_cells_of_the_references(case, name):
    model, images, predicted, contrast, bank = case
    arguments = images[:6], predicted[:6], contrast, N
    maps = method_maps([name], model.clf, *arguments, all_cells=bank)
    search = getattr(cve, f"{name}_counterfactuals")
    found = search(model.clf, images[:6], contrast, bank=bank)
    for b in range(6):
        made = np.asarray(found.edit_cell[b])
        gains = np.diff(found.p_target[b])[made >= 0]
        np.testing.assert_allclose(maps[name][b].ravel()[made[made >= 0]], gains, atol=1e-6)
    best = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=3))
    for missing in (best, None):
        with pytest.raises(fg.InputError, match=f"{name}: expected a bank of all cells"):
            method_maps([name], model.clf, *arguments, bank=bank, all_cells=missing)


def test_the_trace_is_of_one_image_of_the_classifiers_size():
    clf = resnet(size=32)
    images, classes = some_images(2, 32)
    names = check_methods(["gradcam", "fgcam", "gbp"], clf)
    maps = method_maps(names, clf, images, classes, classes, 4)
    assert {values.shape for values in maps.values()} == {(2, 4, 4)}


# --- explanations over a dataset ----------------------------------------------------------------


class Images:
    """Random images whose labels are wrong for about half of them; number 5 cannot be read."""

    in_memory = True
    class_names = tuple("abcde")
    keypoint_names = part_names = ()

    def __init__(self, model, count, broken=5):
        rng = np.random.default_rng(3)
        self.images = rng.integers(0, 256, (count, N * PATCH, N * PATCH, 3), np.uint8)
        self.floats = self.images.astype(np.float32) / 255
        self.logits = np.array([model.head(model.features(image)) for image in self.floats])
        self.predicted = self.logits.argmax(-1).astype(np.int32)
        wrong = rng.random(count) < 0.5
        self.labels = ((self.predicted + wrong * rng.integers(1, CLASSES, count)) % CLASSES).astype(
            np.int32
        )
        self.ids, self.broken = [f"{i}.png" for i in range(count)], broken

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        if index == self.broken:
            raise UnreadableImage(self.ids[index], "torn")
        return Example(self.images[index], int(self.labels[index]), self.ids[index])


@pytest.fixture(scope="module")
def explained():
    """A tiny classifier, 40 images, a bank of 40 others, and the explainer of the two."""
    model = tiny()
    dataset, references = Images(model, 40), Images(model, 80, broken=None)
    bank = fg.build_bank(
        model.clf, references.floats, references.labels, fg.BankConfig(per_class=2, top_m=3)
    )
    predictor = Predictor(model.clf, batch_size=4)
    explainer = Explainer(predictor, fg.SearchConfig(), bank, references.ids)
    return model, dataset, references, bank, explainer


def test_a_part_is_explained_as_its_images_are(explained):
    model, dataset, references, bank, explainer = explained
    part, steps = range(3, 33), []
    results = explainer(dataset, dataset.labels, part, steps.append)
    assert [r.index for r in results] == list(part)
    assert sum(steps) == len(part)
    wrong = [i for i in part if dataset.predicted[i] != dataset.labels[i] and i != 5]
    assert len(wrong) > 8  # more than two batches
    expected = fg.explain(model.clf, bank, dataset.floats[wrong], dataset.labels[wrong])
    for r in results:
        assert (r.id, r.label) == (dataset.ids[r.index], dataset.labels[r.index])
        if r.index == 5:
            assert (r.status, r.why) == ("skipped", "torn")
            continue
        assert r.predicted == dataset.predicted[r.index]
        if r.index not in wrong:
            assert r.status == "unexplained"
            continue
        b = wrong.index(r.index)
        missing = r.label in bank.missing()
        assert r.status == ("no_reference" if missing else "explained")
        assert r.target == r.label
        assert r.flipped == bool(expected.flipped[b])
        assert [e.cell for e in r.edits] == expected.edit_cell[b][: len(r.edits)].tolist()
        assert len(r.edits) == expected.num_edits[b]
        for edit in r.edits:
            assert references.labels[edit.candidate_index] == r.target
            assert references.ids[edit.candidate_index] == edit.candidate_image
        for name in CORE_MAPS:
            np.testing.assert_allclose(r.maps[name], getattr(expected, name)[b], atol=1e-6)
        np.testing.assert_allclose(r.logits, dataset.logits[r.index], atol=1e-4)
        changes = np.reshape(r.logit_changes, (len(r.edits), CLASSES))
        p = np.exp(np.cumsum([r.logits, *changes], axis=0))
        p /= p.sum(1, keepdims=True)
        np.testing.assert_allclose(p[:, r.target], r.p_target, atol=1e-5)
        np.testing.assert_allclose(p[:, r.predicted], r.p_predicted, atol=1e-5)
        assert len(r.nearest) == bank.references.sum()
        assert set(r.nearest) <= set(references.labels.tolist())


def test_the_maps_of_an_explanation_are_not_computed_again(explained, monkeypatch):
    model, dataset, _, bank, explainer = explained
    names = ("gradcam", "fgvce_dominant", "fgvce_invariant")
    config = fg.SearchConfig(max_iterations=1)
    both = Explainer(explainer.predictor, config, bank, explainer.reference_ids, names)
    results = [r for r in both(dataset, dataset.labels, range(10)) if r.maps]
    indices = [r.index for r in results]
    expected = METHODS["gradcam"](model.clf, dataset.floats[indices], dataset.predicted[indices])
    for r, gradcam in zip(results, expected, strict=True):
        assert len(r.edits) <= 1  # of the run's own search
        np.testing.assert_allclose(r.maps["gradcam"], gradcam, atol=1e-5)
        np.testing.assert_array_equal(r.maps["fgvce_dominant"], r.maps["dominant"])
        np.testing.assert_array_equal(r.maps["fgvce_invariant"], r.maps["invariant"])


def test_the_most_confused_classes(explained):
    _, dataset, _, _, explainer = explained
    count = 30
    split = explainer.predictor, dataset, dataset.labels
    votes = [confusion_votes(*split, part) for part in (range(7), range(7, count))]
    np.testing.assert_array_equal(votes[0] + votes[1], confusion_votes(*split, range(count)))
    found = most_confused(votes[0] + votes[1])
    exponentials = np.exp(dataset.logits)
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    seen = np.array([i for i in range(count) if i != 5])
    for k in range(CLASSES):
        of_class = seen[dataset.labels[seen] == k]
        others = [c for c in range(CLASSES) if c != k]
        votes = [
            (np.sum(dataset.predicted[of_class] == c), probabilities[of_class, c].sum())
            for c in others
        ]
        assert found[k] == others[max(range(len(others)), key=votes.__getitem__)]


def test_correct_images_are_asked_about_the_class_confused_with_theirs(explained):
    _, dataset, _, bank, explainer = explained
    confused = np.int32([1, 3, 3, 1, 0])  # with references: 0, 1 and 3
    pairs = Explainer(
        explainer.predictor,
        fg.SearchConfig(),
        bank,
        explainer.reference_ids,
        confused_with=confused,
    )
    results = pairs(dataset, dataset.labels, range(20))
    for r in results:
        if r.status in ("explained", "no_reference"):
            assert r.predicted == r.label
            assert r.target == confused[r.label]
        elif r.status == "unexplained":
            assert r.predicted != r.label
    assert sum(r.status == "explained" for r in results) > 3


def test_explained_takes_candidates_to_their_images():
    maps = {name: np.full((2, 2), 1.0 * k) for k, name in enumerate(CORE_MAPS)}
    one = Explanation(
        predicted=np.int32(4),
        target=np.int32(2),
        flipped=np.bool_(True),
        num_edits=np.int32(2),
        edit_cell=np.array([3, 0, -1, -1]),
        edit_candidate=np.array([1, 2, -1, -1]),
        edit_similarity=np.array([0.5, 0.25, 0, 0], np.float32),
        p_predicted=np.array([0.5, 0.375, 0.25, 0.25, 0.25], np.float32),
        p_target=np.array([0.125, 0.25, 0.75, 0.75, 0.75], np.float32),
        **maps,
    )
    candidates = np.array([7, 9, 8, -1]), np.array([2, 3, 1, -1])
    ids = [f"r{i}" for i in range(10)]
    got = image_result(5, "x", 2, one, candidates, ids, 0.1, {"gradcam": np.eye(2)})
    assert got.edits == (Edit(3, "r9", 9, 3, 0.5), Edit(0, "r8", 8, 1, 0.25))
    assert got.p_predicted == [0.5, 0.375, 0.25]
    assert got.p_target == [0.125, 0.25, 0.75]
    assert (got.status, got.predicted, got.target, got.flipped) == ("explained", 4, 2, True)
    assert set(got.maps) == {*CORE_MAPS, "gradcam"}
    assert got.maps["dominant"].tolist() == [[1, 1], [1, 1]]

    none = np.full(4, -1)
    one = replace(one, num_edits=np.int32(0))
    got = image_result(5, "x", 2, one, (none, none), ids, 0.1)
    assert (got.status, got.edits, got.p_target) == ("no_reference", (), [0.125])
