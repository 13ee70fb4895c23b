"""The command line as a user meets it: real digits, a folder of images, and what goes wrong."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fgvce_jax import load_classifier
from fgvce_jax.cli import main
from fgvce_jax.data import open_dataset
from fgvce_jax.results import read_run

SMALL = ["--bank.per_class", "3", "--bank.top_m", "4", "--batch_size", "16"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A digits classifier that two epochs leave imperfect."""
    out = tmp_path_factory.mktemp("digits") / "checkpoint"
    assert (
        main(["train", "--config", "configs/digits.yaml", "--epochs", "2", "--out", str(out)]) == 0
    )
    return str(out)


@pytest.fixture(scope="module")
def digits_run(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint, "--part_size", "150"]
    assert main(["explain", *arguments, *SMALL, "--out", str(out)]) == 0
    return out


def test_the_mistakes_on_real_digits_are_explained(digits_run, checkpoint):
    results = read_run(digits_run)
    test = open_dataset("digits", "test")
    clf = load_classifier(checkpoint)
    images = np.stack([test[i].image for i in range(len(test))])
    predicted = np.asarray(clf(images.astype(np.float32) / 255).argmax(-1))
    wrong = np.flatnonzero(predicted != test.labels)
    assert len(wrong) >= 3  # something to explain

    table = results.table
    assert table["index"].to_pylist() == wrong.tolist()
    assert table["predicted"].to_pylist() == predicted[wrong].tolist()
    assert table["target"].to_pylist() == test.labels[wrong].tolist()
    assert results.info["counts"]["correct"] == len(test) - len(wrong)
    assert np.mean(table["flipped"].to_pylist()) > 0.9

    references = open_dataset("digits", "train")
    for row in table.to_pylist():
        assert row["num_edits"] == len(row["edits"]) == len(row["p_target"]) - 1
        for edit in row["edits"]:
            assert references.labels[edit["candidate_index"]] == row["target"]
            assert references.ids[edit["candidate_index"]] == edit["candidate_image"]
    assert results.maps["dominant"].shape == (len(wrong), 4, 4)
    page = (digits_run / "report.html").read_text()
    assert all(id in page for id in table["id"].to_pylist())


def test_the_same_run_again_is_redone_and_another_is_refused(digits_run, checkpoint, capsys):
    before = read_run(digits_run).table.drop_columns(["time_s"])
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint, "--part_size", "150"]
    assert main(["explain", *arguments, *SMALL, "--out", str(digits_run)]) == 0
    assert read_run(digits_run).table.drop_columns(["time_s"]).equals(before)
    other = [*SMALL, "--search.sigma", "0", "--out", str(digits_run)]
    assert main(["explain", *arguments, *other]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "sigma" in error
    assert "0.8" in error


def test_the_search_is_chosen_on_the_command_line(checkpoint, tmp_path, capsys):
    """Its options reach the run; the bank's sigma is the search's where only that is given."""
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint, "--limit", "150"]
    options = ["--search.sigma", "0", "--search.evidence", "margin", "--search.shortlist", "2"]
    run = ["explain", *arguments, *options, *SMALL, "--quiet", "--out", str(tmp_path / "run")]
    assert main(run) == 0
    out, err = capsys.readouterr()
    assert err == ""
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["bank"]["sigma"] == config["search"]["sigma"] == 0
    assert config["search"]["evidence"] == "margin"
    assert config["search"]["shortlist"] == 2
    rows = read_run(tmp_path / "run").table.num_rows
    assert rows > 0
    assert re.search(rf"misclassified +{rows}\n", out)

    other = ["--bank.sigma", "0.8", "--out", str(tmp_path / "other")]
    assert main(["explain", *arguments, *options, *other]) == 2
    assert "bank.sigma: expected the search's, 0" in capsys.readouterr().err


def test_a_report_is_written_again(digits_run):
    assert main(["report", str(digits_run)]) == 0  # and tells how long the first one took
    before = (digits_run / "report.html").read_text()
    (digits_run / "report.html").unlink()
    assert main(["report", str(digits_run)]) == 0
    assert (digits_run / "report.html").read_text() == before


def test_a_folder_of_images_with_bad_files(checkpoint, tmp_path):
    """The bad ones are named, skipped and counted; the others are explained."""
    for split, count in (("train", 120), ("test", 80)):
        digits = open_dataset("digits", split)
        for i in range(count):
            example = digits[i]
            folder = tmp_path / "images" / split / str(example.label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example.image).resize((48, 48)).save(folder / f"{i:04d}.png")
    bad = tmp_path / "images" / "test" / "3"
    (bad / "empty.png").write_bytes(b"")
    reference = tmp_path / "images" / "train" / "5"
    first = min(reference.iterdir())  # of its class, so it is asked for
    first.write_bytes(b"")
    (bad / "corrupt.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    Image.new("RGB", (1, 1)).save(bad / "dot.png")

    out = tmp_path / "run"
    arguments = ["--data.name", "folder", "--data.path", str(tmp_path / "images")]
    arguments += ["--model.checkpoint", checkpoint, "--out", str(out), *SMALL]
    assert main(["explain", *arguments]) == 0
    info = json.loads((out / "run.json").read_text())
    assert info["counts"]["skipped"] == 3
    assert info["counts"]["read"] == 80
    assert info["classes"] == {str(k): str(k) for k in range(10)}
    (unread,) = info["skipped_references"]
    assert unread["id"].endswith(first.name)
    assert unread["why"].startswith("the file is empty")
    few = info["classes_with_few_references"]
    assert all(0 < count < 3 for count in few.values())
    names = " ".join(entry["id"] for entry in info["skipped"])
    assert all(name in names for name in ("empty.png", "corrupt.jpg", "dot.png"))
    results = read_run(out)
    assert results.info["counts"]["misclassified"] == results.table.num_rows > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.name", "cats"], "'cats': unknown; expected one of birds"),
        (["--data.name", "folder", "--data.path", "{tmp}/nowhere"], "nowhere"),
        (["--data.name", "folder", "--data.path", "{tmp}"], "no image"),
        (["--data.name", "birds"], "expected those of the classifier, which has 10"),
        (["--data.name", "digits", "--model.checkpoint", "{tmp}/nothing"], "nothing"),
        (
            ["--model.checkpoint", "null", "--model.arch", "resnet51", "--model.weights", "x"],
            "resn",
        ),
        (["--data.name", "digits", "--model.checkpoint", "null"], "expected --model.checkpoint"),
        (["--data.name", "digits", "--split", "dev"], "'dev'"),
        (["--data.name", "digits", "--bank.top_m", "1000"], "top_m 1000: expected 1 to 16"),
        (["--data.name", "digits", "--ray.workers", "2"], "expected a cluster's address beside"),
        (["--data.name", "digits", "--ray", "ray://there:1"], "auto, local or HOST:PORT"),
        (["--data.name", "digits", "--ray", "local", "--ray.workers", "0"], "workers: expected 1"),
        (["--data.name", "digits", "--time_limit", "-5"], "time_limit: expected seconds, more"),
        (["--data.name", "digits", "--time_limit", "soon"], "--time_limit: "),
        (["--data.name", "digits", "--model.cut", "layer77"], "cut 'layer77': expected one of"),
        (["--data.name", "digits", "--model.arch", "vgg16"], "a small_resnet, not vgg16"),
        (["--data.name", "digits", "--model.weights", "x.pth"], "a checkpoint or weights, got bo"),
        (["--data.name", "digits", "--model.resize_to", "16"], "at least the image size, 32"),
        (["--data.name", "digits", "--bank_file", "{tmp}/no/bank.npz"], "an existing folder"),
        (["--config", "{tmp}/nowhere.yaml"], "nowhere.yaml: no such file, nor a preset"),
        (["--config", "{tmp}/list.yaml"], "list.yaml: expected fields and their values"),
        (["--config", "{tmp}/open.yaml"], "open.yaml: cannot be read as YAML"),
        (["--config={tmp}/noise.yaml"], "noise.yaml: cannot be read as YAML"),
        (["--config", "{tmp}/flat.yaml"], "a value in the place of a section"),
        (["--config", "{tmp}/other.yaml"], "does not accept option 'banana'"),
        (["--batch_size", "many"], "--batch_size: Expected int. Got value: many"),
        (["--bank.per_clas", "3"], "--bank.per_clas 3"),
        (["--bank.reference", "al"], "--bank.reference: Expected one of 'class', 'all'"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_left(
    checkpoint, tmp_path, capsys, arguments, message
):
    out = tmp_path / "out"
    files = {"list": "- 2", "open": "a: [", "flat": "bank: 3", "other": "banana: 3"}
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "noise.yaml").write_bytes(bytes(range(128, 256)))
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    common = ["--model.checkpoint", checkpoint, "--limit", "20", "--out", str(out)]
    assert main(["explain", *common, *arguments]) == 2
    *bars, line = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert all(bar.startswith("Collecting references") for bar in bars)
    assert message in line
    assert line.startswith("fgvce: error:")
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--limit", "0"),
        ("--batch_size", "-1"),
        ("--part_size", "0"),
        ("--bank.per_class", "0"),
        ("--search.sigma", "-0.5"),
        ("--search.max_iterations", "0"),
        ("--dtype", "int8"),
        ("--bank.size", "3"),
    ],
)
def test_an_option_out_of_range_is_refused(option, value, capsys, tmp_path):
    assert main(["explain", option, value, "--out", str(tmp_path / "out")]) == 2
    assert option.lstrip("-").split(".")[-1] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shipped_presets_are_found_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "configs/digits.yaml", "--epochs", "-1"]) == 2
    assert "epochs: expected more than 0, got -1" in capsys.readouterr().err
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.yaml").write_text("batch_size: 0")  # one's own comes first
    assert main(["train", "--config", "configs/digits.yaml"]) == 2
    assert "batch_size: expected more than 0, got 0" in capsys.readouterr().err


def test_confused_pairs_and_a_gallery(checkpoint, digits_run, tmp_path):
    """Correctly classified images against the class most confused with theirs."""
    out = tmp_path / "pairs"
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint, "--limit", "100"]
    arguments += ["--pairs", "confusion", "--methods", "gradcam,scout,fgvce_invariant", *SMALL]
    assert main(["explain", *arguments, "--out", str(out)]) == 0
    results = read_run(out)
    test = open_dataset("digits", "test")
    clf = load_classifier(checkpoint)
    images = np.stack([test[i].image for i in range(100)]).astype(np.float32) / 255
    logits = np.asarray(clf(images))
    predicted, labels = logits.argmax(-1), test.labels[:100]

    right = np.flatnonzero(predicted == labels)
    assert results.table["index"].to_pylist() == right.tolist()
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for row in results.table.to_pylist():
        c = row["predicted"]
        said = np.bincount(predicted[labels == c], minlength=10).astype(float)
        said += probabilities[labels == c].sum(0) / 1000
        said[c] = -1
        assert row["target"] == said.argmax()
    from fgvce_jax.methods import METHODS

    expected = METHODS["gradcam"](clf, images[right], predicted[right])
    np.testing.assert_allclose(results.maps["gradcam"], expected, atol=1e-5)
    expected = METHODS["scout"](
        clf, images[right], predicted[right], contrast_classes=np.array(results.table["target"])
    )
    np.testing.assert_allclose(results.maps["scout"], expected, atol=1e-5)
    assert "scout" in (out / "report.html").read_text()


@pytest.mark.parametrize("objective", ["calm_em", "calm_ml"])
def test_calm_needs_a_head_that_can_be_trained(checkpoint, tmp_path, capsys, objective):
    explain = ["explain", "--data.name", "digits", "--limit", "40", "--methods", "[calm]", *SMALL]
    own = ["--model.checkpoint", checkpoint, "--out", str(tmp_path / "own")]
    assert main([*explain, *own]) == 2
    assert "fgvce train --head calm_em" in capsys.readouterr().err

    train = ["train", "--config", "configs/digits.yaml", "--epochs", "2", "--head", objective]
    assert main([*train, "--out", str(tmp_path / "calm")]) == 0
    calm = ["--model.checkpoint", str(tmp_path / "calm"), "--out", str(tmp_path / "run")]
    assert main([*explain, *calm]) == 0
    results = read_run(tmp_path / "run")
    clf = load_classifier(str(tmp_path / "calm"))
    test = open_dataset("digits", "test")
    rows = results.table["index"].to_pylist()
    assert 0 < len(rows) < 40 * 0.8  # two epochs teach it something
    images = np.stack([test[i].image for i in rows]).astype(np.float32) / 255
    predicted = np.asarray(results.table["predicted"])
    p = np.exp(np.asarray(clf(images)))[np.arange(len(rows)), predicted]
    np.testing.assert_allclose(results.maps["calm"].sum((1, 2)), p, atol=1e-4)


def test_an_unknown_method_lists_the_known_ones(checkpoint, tmp_path, capsys):
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint]
    arguments += ["--methods", "[gradcan]", "--out", str(tmp_path / "out")]
    assert main(["explain", *arguments]) == 2
    assert "'gradcan': expected one of gbp, ig" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_batch_that_does_not_fit_says_what_would(checkpoint, tmp_path, capsys):
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint]
    huge = ["--batch_size", "1000000", "--out", str(tmp_path / "out")]
    assert main(["explain", *arguments, *huge]) == 2
    error = capsys.readouterr().err
    assert "batch_size 1000000: a forward pass needs about" in error
    assert "GiB are free; try" in error
    assert not (tmp_path / "out").exists()


def test_a_bank_is_shared_and_rebuilt_when_it_does_not_fit(checkpoint, tmp_path, capsys):
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint, "--limit", "40"]
    arguments += ["--batch_size", "16", "--bank.top_m", "4"]
    arguments += ["--bank_file", str(tmp_path / "bank.npz")]
    three = [*arguments, "--bank.per_class", "3"]
    assert main(["explain", *three, "--out", str(tmp_path / "a")]) == 0
    assert "Collecting references" in capsys.readouterr().err
    assert main(["explain", *three, "--limit", "50", "--out", str(tmp_path / "b")]) == 0
    assert "Collecting references" not in capsys.readouterr().err
    two = [*arguments, "--bank.per_class", "2", "--out", str(tmp_path / "c")]
    assert main(["explain", *two]) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert "made with per_class 3, expected 2; building it again" in error
    candidates = read_run(tmp_path / "c").table["edits"].to_pylist()
    assert max(len({e["candidate_image"] for e in edits}) for edits in candidates) <= 2


def test_a_file_that_is_no_bank_is_not_overwritten(checkpoint, tmp_path, capsys):
    file = tmp_path / "thesis.npz"
    np.savez(file, chapter=np.arange(3))
    before = file.read_bytes()
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint, "--limit", "20"]
    for _ in range(2):
        out = ["--bank_file", str(file), "--out", str(tmp_path / "out")]
        assert main(["explain", *arguments, *SMALL, *out]) == 2
        assert "thesis.npz: holds something else, expected a bank" in capsys.readouterr().err
        assert file.read_bytes() == before
        assert not (tmp_path / "out").exists()
        file.write_text("text")
        before = b"text"


def test_methods_with_nothing_misclassified(checkpoint, tmp_path):
    """A run, the same run again, and its report."""
    test = open_dataset("digits", "test")
    clf = load_classifier(checkpoint)
    images = np.stack([test[i].image for i in range(40)]).astype(np.float32) / 255
    right = np.asarray(clf(images).argmax(-1)) == test.labels[:40]
    count = int(np.argmin(right))  # up to the first mistake
    assert count > 0
    out = tmp_path / "run"
    arguments = ["--data.name", "digits", "--model.checkpoint", checkpoint]
    arguments += ["--limit", str(count), "--methods", "gradcam,scout", *SMALL, "--out", str(out)]
    for _ in range(2):
        assert main(["explain", *arguments]) == 0
    assert main(["report", str(out)]) == 0
    results = read_run(out)
    assert results.info["counts"]["misclassified"] == 0
    assert {name: len(results.maps[name]) for name in ("gradcam", "scout", "dominant")} == {
        "gradcam": 0,
        "scout": 0,
        "dominant": 0,
    }


def test_a_damaged_run_json_is_one_line(digits_run, tmp_path, capsys):
    shutil.copytree(digits_run, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"format": ')
    for command in ("report", "evaluate"):
        assert main([command, str(tmp_path / "run")]) == 2
        assert "run.json: cannot be read as JSON" in capsys.readouterr().err.splitlines()[-1]


def test_a_dataset_without_keypoints_cannot_be_evaluated(digits_run, capsys):
    assert main(["evaluate", str(digits_run)]) == 2
    assert "has no keypoints" in capsys.readouterr().err


def test_nan_logits_are_named(checkpoint, tmp_path, capsys):
    from dataclasses import replace

    from fgvce_jax.models import save_classifier

    clf = load_classifier(checkpoint)
    broken = replace(clf, head=replace(clf.head, bias=clf.head.bias.at[1].set(np.nan)))
    save_classifier(broken, tmp_path / "broken")
    arguments = ["--data.name", "digits", "--model.checkpoint", str(tmp_path / "broken")]
    assert main(["explain", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert "NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
