import hashlib
import json
from dataclasses import replace

import networks
import numpy as np
import pytest

import fgvce_jax as fg
from fgvce_jax.config import DataConfig, ModelConfig
from fgvce_jax.data import open_dataset
from fgvce_jax.data.labels import dataset_fingerprint, match_labels
from fgvce_jax.errors import InputError
from fgvce_jax.imagenet import imagenet_classes
from fgvce_jax.models import open_classifier, save_classifier
from fgvce_jax.models.checkpoint import read_class_names


def classifier(num_classes, names=()):
    return fg.Classifier(lambda images: images, lambda cells: cells, num_classes, 32, names)


def folder(root, *classes):
    """A dataset with one image of each class, in the folder's own order; none is ever decoded."""
    for name in classes:
        (root / "test" / name).mkdir(parents=True, exist_ok=True)
        (root / "test" / name / "1.png").touch()
    dataset = open_dataset("folder", "test", root)
    assert dataset.labels.tolist() == list(range(len(classes)))
    return dataset


def write(path, text):
    path.write_text(text)
    return path


def error_of(*arguments):
    with pytest.raises(InputError) as error:
        match_labels(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_without_one_class_of_an_unnamed_classifier_is_refused(tmp_path):
    """Trained on kite, owl, wren: without kite, owl would be taken for class 0."""
    message = error_of(folder(tmp_path, "owl", "wren"), classifier(3))
    assert message == (
        "class names: expected those of the classifier, which has 3 classes without names, for a "
        "dataset of 2 classes ('owl', 'wren'); give --model.class_names names.txt, or port it "
        "with --class_names"
    )
    more = folder(tmp_path, "ant", "owl", "wren", "yak")
    assert "dataset of 4 classes ('ant', 'owl', 'wren')" in error_of(more, classifier(3))


def test_named_classes_are_matched_by_name(tmp_path):
    dataset = folder(tmp_path, "kite", "owl", "wren")
    clf = classifier(5, ("wren", "eagle", "kite", "gull", "owl"))
    matched = match_labels(dataset, clf)
    assert matched.labels.dtype == np.int32
    assert matched.labels.tolist() == [2, 4, 0]
    assert matched.class_names == clf.class_names
    assert matched.classes == {"kite": 2, "owl": 4, "wren": 0}
    assert matched.note == "3 of the classifier's 5 classes: kite, owl, wren"


def test_labels_follow_the_images_and_not_the_classes(tmp_path):
    folder(tmp_path, "kite", "owl")
    for name in ("2", "3"):
        (tmp_path / "test" / "kite" / f"{name}.png").touch()
    dataset = open_dataset("folder", "test", tmp_path)
    assert match_labels(dataset, classifier(2, ("owl", "kite"))).labels.tolist() == [1, 1, 1, 0]


def test_an_unknown_class_is_named_with_the_nearest_names(tmp_path):
    clf = classifier(4, ("Wood Warbler", "Hooded Warbler", "Ovenbird", "House Wren"))
    message = error_of(folder(tmp_path, "Hooded Warblr", "Ovenbird", "wren"), clf)
    assert message.startswith(
        "class 'Hooded Warblr' of the dataset (and 1 more of 3): expected one of the classifier's 4"
    )
    assert message.index("'Hooded Warbler'") < message.index("'Wood Warbler'")
    assert "Ovenbird" not in message
    assert "--data.class_map" in message


def test_where_no_name_is_near_the_first_ones_are_shown(tmp_path):
    clf = classifier(4, ("one", "two", "three", "four"))
    assert "4 classes, such as 'one', 'two', 'three'" in error_of(folder(tmp_path, "zzzzzz"), clf)


def test_a_name_that_the_classifier_has_twice(tmp_path):
    """ImageNet has two cranes."""
    clf = classifier(3, ("crane", "owl", "crane"))
    dataset = folder(tmp_path, "crane", "owl")
    assert "'crane'" in error_of(dataset, clf)
    assert "classes 0, 2" in error_of(dataset, clf)
    chosen = write(tmp_path / "map.yaml", "crane: 2\n")
    assert match_labels(dataset, clf, chosen).labels.tolist() == [2, 1]


def test_numbers_are_matched_by_number(tmp_path):
    """A folder sorts its classes as text, 10 before 2."""
    dataset = folder(tmp_path, *sorted(str(k) for k in range(12)))
    assert dataset.class_names[:4] == ("0", "1", "10", "11")
    matched = match_labels(dataset, classifier(12))
    assert matched.labels.tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert matched.class_names == tuple(str(k) for k in range(12))
    assert "12 class names are numbers" in matched.note
    digits = open_dataset("digits", "test")
    matched = match_labels(digits, classifier(10))
    np.testing.assert_array_equal(matched.labels, digits.labels)
    assert matched.note is None


@pytest.mark.parametrize("names", [("1", "2", "3"), ("00", "01", "02"), ("kite", "owl", "wren")])
def test_an_unnamed_classifier_takes_as_many_names_in_order(tmp_path, names):
    matched = match_labels(folder(tmp_path, *names), classifier(3))
    assert matched.labels.tolist() == [0, 1, 2]
    assert matched.class_names == names
    assert matched.note == (
        "the classifier's 3 classes have no names and take those of the dataset, in order: "
        f"0 = {names[0]}, 1 = {names[1]}, 2 = {names[2]}"
    )


def test_of_many_pairs_the_first_are_shown(tmp_path):
    dataset = folder(tmp_path, *"abcdefg")
    note = match_labels(dataset, classifier(7)).note
    assert "7 classes" in note
    assert note.endswith("0 = a, 1 = b, 2 = c, ...")


def test_some_of_an_unnamed_classifiers_numbers(tmp_path):
    matched = match_labels(folder(tmp_path, "0", "2"), classifier(3))
    assert matched.labels.tolist() == [0, 2]
    assert matched.note.endswith("numbers and taken as the classifier's: 0 = 0, 2 = 2")
    assert "--class_names" in error_of(folder(tmp_path / "others", "2", "3"), classifier(3))


# --- a few of ImageNet's classes, called as people call them ------------------------------------


def imagenet(*extra):
    return classifier(1000 + len(extra), (*read_class_names("imagenet"), *extra))


def test_imagenets_table():
    """The order that classifiers are trained in: ids ascend, known classes are in their places."""
    table = imagenet_classes()
    ids, names = list(table), list(table.values())
    assert len(ids) == len(set(names)) == 1000
    assert ids == sorted(ids)
    known = {0: "tench", 217: "English springer", 482: "cassette player", 574: "golf ball"}
    assert {k: names[k] for k in known} == known
    assert table["n03888257"] == "parachute"
    assert read_class_names("imagenet") == tuple(names)
    assert ModelConfig(class_names="imagenet").class_names == "imagenet"


@pytest.mark.parametrize(
    "names",
    [
        ("n01440764", "n02102040", "n03888257"),
        ("tench", "English springer", "parachute"),
        ("tench", "english_springer", "Parachute"),
        ("0", "217", "701"),
        ("n01440764", "English-Springer", "701"),
    ],
)
def test_a_folder_of_a_few_of_imagenets_classes(tmp_path, names):
    matched = match_labels(folder(tmp_path, *sorted(names)), imagenet())
    assert [matched.classes[name] for name in names] == [0, 217, 701]
    assert sorted(matched.labels.tolist()) == [0, 217, 701]
    assert len(matched.class_names) == 1000
    note = matched.note
    assert note.startswith("3 of the classifier's 1000 classes: ")
    for name, full in zip(names, ("tench", "English springer", "parachute"), strict=True):
        assert (name if name == full else f"{name} = {full}") in note.partition(": ")[2].split(", ")


def test_a_classifier_that_names_its_classes_by_id(tmp_path):
    clf = classifier(2, ("n02102040", "n01440764"))
    assert match_labels(folder(tmp_path, "tench"), clf).labels.tolist() == [1]


def test_a_name_comes_before_an_id_and_a_number(tmp_path):
    clf = imagenet("n01440764", "217")
    assert match_labels(folder(tmp_path, "217", "n01440764"), clf).labels.tolist() == [1001, 1000]


@pytest.mark.parametrize("name", ["1000", "-1", "0217", "n99999999", "²"])
def test_what_is_no_class_of_imagenet(tmp_path, name):
    assert f"class {name!r} of the dataset: expected one" in error_of(
        folder(tmp_path, name), imagenet()
    )


def test_an_id_without_a_class_is_shown_the_names_nearest_to_its_name(tmp_path):
    clf = classifier(2, ("springer spaniel", "owl"))
    assert "such as 'springer spaniel'" in error_of(folder(tmp_path, "n02102040"), clf)


def test_ids_for_a_classifier_without_names(tmp_path):
    message = error_of(folder(tmp_path, "n01440764", "n02102040"), classifier(1000))
    assert "--model.class_names imagenet" in message


def test_of_a_thousand_folders_one_is_a_class(tmp_path):
    names = [f"holiday {k}" for k in range(999)]
    message = error_of(folder(tmp_path, *sorted([*names, "tench"])), imagenet())
    assert message.startswith("class 'holiday 0' of the dataset (and 998 more of 1000): expected")
    assert len(message) < 300


# --- a mapping of the user's ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("map.yaml", "kite: wren\n'owl': 0\n"),
        ("map.json", json.dumps({"kite": "wren", "owl": 0}, indent="\t")),
        ("map.json", '{"kite": "wren", "owl": "0"}'),
    ],
)
def test_a_mapping_wins_and_names_do_the_rest(tmp_path, file, text):
    """By name, kite would be class 1."""
    dataset = folder(tmp_path, "gull", "kite", "owl")
    clf = classifier(4, ("eagle", "kite", "wren", "gull"))
    matched = match_labels(dataset, clf, write(tmp_path / file, text))
    assert matched.labels.tolist() == [3, 2, 0]
    assert matched.class_names == clf.class_names


def test_a_mapping_for_an_unnamed_classifier(tmp_path):
    dataset = folder(tmp_path, "owl", "wren")
    chosen = write(tmp_path / "map.yaml", "owl: 2\nwren: 1\n")
    matched = match_labels(dataset, classifier(3), chosen)
    assert matched.labels.tolist() == [2, 1]
    assert matched.class_names == ("0", "1", "2")
    chosen = write(tmp_path / "map.yaml", "owl: 1\nwren: 0\n")
    matched = match_labels(dataset, classifier(2), chosen)
    assert matched.labels.tolist() == [1, 0]
    assert matched.class_names == ("wren", "owl")
    message = error_of(dataset, classifier(3), write(tmp_path / "map.yaml", "owl: 2\n"))
    assert "no entry for class 'wren'" in message


def test_a_class_without_an_entry_is_found_as_any_other(tmp_path):
    dataset = folder(tmp_path, "02", "owl")
    message = error_of(
        dataset, classifier(3, ("a", "b", "c")), write(tmp_path / "map.yaml", "owl: 2")
    )
    assert "no entry for class '02': expected one of the classifier's 3 classes" in message


def test_a_folder_may_have_a_finer_class(tmp_path):
    dataset = folder(tmp_path, "barn owl", "eagle owl", "wren")
    chosen = write(tmp_path / "map.yaml", "barn owl: owl\neagle owl: owl\n")
    matched = match_labels(dataset, classifier(2, ("owl", "wren")), chosen)
    assert matched.labels.tolist() == [0, 0, 1]


def test_names_in_a_mapping_are_text(tmp_path):
    """YAML reads 001, no and 1.0 as other values."""
    dataset = folder(tmp_path, "001", "1.0", "no")
    chosen = write(tmp_path / "map.yaml", "001: on\n1.0: 1e3\nno: 2\n")
    matched = match_labels(dataset, classifier(3, ("on", "1e3", "off")), chosen)
    assert matched.labels.tolist() == [0, 1, 2]


def test_a_name_comes_before_a_number(tmp_path):
    chosen = write(tmp_path / "map.yaml", "a: 1\nb: 0\n")
    matched = match_labels(folder(tmp_path, "a", "b"), classifier(2, ("1", "x")), chosen)
    assert matched.labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owll: owl", "map.yaml: class 'owll': expected one of the dataset's 2 classes, such as"),
        ("owl: wrenn", "map.yaml: class 'wrenn': expected one of the classifier's 3 classes, such"),
        ("owl: 3", "map.yaml: class '3': expected one of the classifier's 3 classes, such as"),
        ("owl: -1", "map.yaml: class '-1': expected one of the classifier's 3 classes, such as"),
        ("owl: wren\nowl: kite", "map.yaml: class 'owl': expected once"),
        ("owl: [wren]", "map.yaml: expected a class name or a number for each class"),
        ("- owl", "map.yaml: expected a class name or a number for each class"),
        ("", "map.yaml: expected a class name or a number for each class"),
        ("owl: {", "map.yaml: cannot be read"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path, text, expected):
    dataset = folder(tmp_path, "owl", "wren")
    chosen = write(tmp_path / "map.yaml", text)
    message = error_of(dataset, classifier(3, ("kite", "owl", "wren")), chosen)
    assert message.startswith(f"class_map {tmp_path}")
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"owl": "wren", "owl": "kite"}', "class 'owl': expected once"),
        ('{"owl": true}', "expected a class name or a number for each class"),
        ('{"owl": {"a": 1}}', "expected a class name or a number for each class"),
        ('[["owl", "wren"]]', "expected a class name or a number for each class"),
        ('{"owl": ', "cannot be read"),
    ],
)
def test_a_wrong_json_mapping_is_named(tmp_path, text, expected):
    chosen = write(tmp_path / "map.json", text)
    dataset = folder(tmp_path, "owl", "wren")
    assert expected in error_of(dataset, classifier(3, ("kite", "owl", "wren")), chosen)


def test_a_mapping_that_is_not_there(tmp_path):
    dataset = folder(tmp_path, "owl")
    message = error_of(dataset, classifier(1, ("owl",)), tmp_path / "none.yaml")
    assert message.startswith(f"class_map {tmp_path / 'none.yaml'}: cannot be read (")


# --- names for a checkpoint without them ----------------------------------------------------------


def test_names_that_the_config_gives_a_checkpoint(tmp_path):
    save_classifier(networks.resnet(classes=3), tmp_path / "checkpoint")
    dataset = folder(tmp_path / "birds", "owl", "wren")
    names = write(tmp_path / "names.txt", "kite\nowl\nwren\n")
    config = ModelConfig(checkpoint=str(tmp_path / "checkpoint"))
    assert "--model.class_names" in error_of(dataset, open_classifier(config))
    clf = open_classifier(replace(config, class_names=str(names)))
    assert clf.class_names == ("kite", "owl", "wren")
    assert match_labels(dataset, clf).labels.tolist() == [1, 2]
    write(names, "kite\nowl\n")
    with pytest.raises(InputError, match="class_names: expected 3 names, got 2"):
        open_classifier(replace(config, class_names=str(names)))


def test_a_file_has_one_name_in_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ModelConfig(class_names="names.txt").class_names == str(tmp_path / "names.txt")
    assert DataConfig(class_map="map.yaml").class_map == str(tmp_path / "map.yaml")


# --- fingerprint --------------------------------------------------------------------------------


def test_the_fingerprint_depends_on_ids_and_labels_alone():
    ids, labels = ("a/1.png", "b/1.png"), np.array([0, 2], np.int32)
    expected = hashlib.sha256(b"['a/1.png', 'b/1.png']" + bytes([0, 0, 0, 0, 2, 0, 0, 0]))
    assert dataset_fingerprint(ids, labels) == expected.hexdigest()[:16]
    assert dataset_fingerprint(list(ids), labels.astype(np.int64)) == expected.hexdigest()[:16]
    assert dataset_fingerprint(ids, labels[::-1]) != expected.hexdigest()[:16]
