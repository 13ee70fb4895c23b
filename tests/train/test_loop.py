import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from planted import NAMES, SIZE, Killed, Planted, arrays, tiny_classifier

from fgvce_jax.cli import main
from fgvce_jax.config import ModelConfig
from fgvce_jax.data.augment import AugmentConfig
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.heads import CalmHead, PooledLinear
from fgvce_jax.models import load_classifier
from fgvce_jax.train import TrainConfig, accuracy, loop, train
from fgvce_jax.train.step import TrainState, cross_entropy, make_step, through_backbone, trainable

CONFIG = TrainConfig(
    model=ModelConfig(
        arch="small_resnet", widths=(8,), blocks=(1,), stem_stride=2, image_size=SIZE
    ),
    augment=AugmentConfig(flip=False, crop_padding=1),
    epochs=3,
    batch_size=16,
    learning_rate=3e-2,
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The same step is compiled by every run; keep it in JAX's compilation cache."""
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def splits(monkeypatch):
    """The planted train and test splits, in the place of a named dataset."""
    made = {"train": Planted(100, 0), "test": Planted(30, 1)}
    monkeypatch.setattr(loop, "open_dataset", lambda name, split, path, **_: made[split])
    return made


# --- the step, the accuracy ---------------------------------------------------------------------


def test_a_step_is_one_of_gradient_descent():
    tiny = tiny_classifier()

    def linear(classifier, images, labels):
        cells = classifier.features(images)
        logits = classifier.head(cells)
        return logits.mean(), (classifier, logits)

    copy = jax.tree.map(jnp.array, tiny)
    images = np.random.default_rng(0).integers(0, 255, (4, SIZE, SIZE, 3), dtype=np.uint8)
    cells = tiny.features(images / jnp.float32(255))
    pooled = np.asarray(cells).mean((0, 1, 2))
    optimizer = optax.sgd(0.5)
    step = make_step(optimizer, linear, AugmentConfig(flip=False))
    state = TrainState(copy, optimizer.init(trainable(copy)), jnp.int32(0))
    state, metrics = step(state, images, np.zeros(4, np.int32), jax.random.key(0))
    head = state.classifier.head
    np.testing.assert_allclose(head.bias, tiny.head.bias - 0.5 / 3, rtol=1e-5)
    np.testing.assert_allclose(
        head.kernel, tiny.head.kernel - 0.5 * pooled[:, None] / 3, rtol=1e-4, atol=1e-6
    )
    assert int(state.step) == 1
    answers = np.asarray(tiny.head(cells)).argmax(-1)
    assert int(metrics["correct"]) == (answers == 0).sum()


@pytest.mark.parametrize("batch_size", [16, 50])
def test_accuracy_is_the_share_of_right_answers(batch_size):
    classifier, images = tiny_classifier(), Planted(50, 7)
    answers = np.asarray(classifier(jnp.float32(images.pixels) / 255)).argmax(-1)
    assert accuracy(classifier, images, batch_size) == (answers == images.labels).mean()


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run: its classifier and folder."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    made = {"train": Planted(100, 0), "test": Planted(30, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_dataset", lambda name, split, path, **_: made[split])
        return train(CONFIG, out), out


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_learns_the_planted_classes(finished):
    classifier, out = finished
    log = log_of(out)
    assert [record["epoch"] for record in log] == [1, 2, 3]
    assert log[-1]["steps"] == 3 * (100 // 16)
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert log[-1]["test_accuracy"] > 0.9
    assert accuracy(classifier, Planted(50, 7), 16) > 0.9
    assert [path.name for path in out.parent.iterdir()] == ["whole"]


def test_the_folder_is_a_classifier(finished):
    classifier, out = finished
    loaded = load_classifier(str(out))
    assert loaded.class_names == NAMES
    for a, b in zip(arrays(classifier), arrays(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unreadable_images_are_named_once_and_left_out(splits, tmp_path, monkeypatch, capsys):
    def read(self, index, original=Planted.__getitem__):
        if index == 4:
            raise UnreadableImage(f"{len(self)}/4.png", "truncated")
        return original(self, index)

    monkeypatch.setattr(Planted, "__getitem__", read)
    train(CONFIG, tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("skipped image 100/4.png: truncated") == 1
    assert said.count("skipped image 30/4.png: truncated") == 1
    share = log_of(tmp_path / "run")[-1]["test_accuracy"]
    assert share * 29 == pytest.approx(round(share * 29))


@pytest.mark.parametrize("reads", [50, 96 + 30 + 40, 2 * (96 + 30) + 96 + 10])
def test_a_killed_run_continues_to_the_same_weights(finished, splits, tmp_path, reads, capsys):
    """Killed in the middle of the first epoch, of the second, and in the last one's test."""
    budget = iter(range(reads))

    def read(self, index, original=Planted.__getitem__):
        if next(budget, None) is None:
            raise Killed
        return original(self, index)

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Planted, "__getitem__", read)
        with pytest.raises(Killed):
            train(CONFIG, out)
    assert not out.exists()
    capsys.readouterr()
    classifier = train(CONFIG, out)
    assert ("continuing after epoch" in capsys.readouterr().err) == (reads > 96 + 30)
    for a, b in zip(arrays(classifier), arrays(finished[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    timed = ("images_per_second", "seconds")
    same = [
        [{k: v for k, v in record.items() if k not in timed} for record in log_of(folder)]
        for folder in (out, finished[1])
    ]
    assert same[0] == same[1]


def test_a_finished_run_is_left_alone(finished, capsys):
    _, out = finished
    before = (out / "log.jsonl").stat().st_mtime_ns
    classifier = train(CONFIG, out)  # opens no dataset
    assert "finished" in capsys.readouterr().err
    assert (out / "log.jsonl").stat().st_mtime_ns == before
    for a, b in zip(arrays(classifier), arrays(finished[0]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_left_by_a_kill_after_the_last_rename_is_removed(finished):
    _, out = finished
    left = out.with_name(".whole.training")
    left.mkdir()
    train(CONFIG, out)
    assert not left.exists()


def test_another_config_in_the_state_is_refused(splits, tmp_path):
    splits["train"].reads_left = 50
    with pytest.raises(Killed):
        train(CONFIG, tmp_path / "run")
    with pytest.raises(InputError, match=r"\.run\.training: holds a training with another config"):
        train(dataclasses.replace(CONFIG, seed=1), tmp_path / "run")


def test_another_config_in_the_folder_is_refused(finished):
    _, out = finished
    with pytest.raises(InputError, match="another config"):
        train(dataclasses.replace(CONFIG, seed=1), out)


def test_a_folder_of_other_things_is_refused(splits, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="something else"):
        train(CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_nothing(splits, tmp_path):
    def explodes(classifier, images, labels):
        loss, aux = through_backbone(cross_entropy)(classifier, images, labels)
        return loss / 0, aux

    with pytest.raises(InputError, match=r"inf at step 1: try a learning_rate below 0\.03"):
        train(CONFIG, tmp_path / "a" / "b" / "run", loss=explodes)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(splits, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=r"file/run: cannot be written \(Not a directory\)"):
        train(CONFIG, tmp_path / "file" / "run")


def test_too_large_a_batch_is_refused(splits, tmp_path):
    config = dataclasses.replace(CONFIG, batch_size=101)
    with pytest.raises(InputError, match="at most 100"):
        train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("head", ["calm_em", "calm_ml"])
def test_calms_head_is_trained_in_the_place_of_the_networks_own(splits, tmp_path, head):
    train(dataclasses.replace(CONFIG, head=head), tmp_path / "run")
    assert isinstance(load_classifier(tmp_path / "run").head, CalmHead)
    log = log_of(tmp_path / "run")
    assert log[-1]["train_loss"] < log[0]["train_loss"]


def test_digits_preset_in_a_reduced_size(tmp_path):
    preset = Path(__file__).parents[2] / "configs" / "digits.yaml"
    out = tmp_path / "digits"
    assert main(["train", "--config", str(preset), "--epochs", "6", "--out", str(out)]) == 0
    assert log_of(out)[-1]["test_accuracy"] > 0.9
    assert isinstance(load_classifier(out).head, PooledLinear)
