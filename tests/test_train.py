import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fgvce_jax.train as train_module
from fgvce_jax.cli import main
from fgvce_jax.config import ModelConfig
from fgvce_jax.data.augment import AugmentConfig, augment
from fgvce_jax.data.example import Example
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.heads import Dense, PooledLinear
from fgvce_jax.models import ModelSpec, build, load_classifier, save_classifier
from fgvce_jax.train import (
    Rendered,
    TrainConfig,
    TrainState,
    cross_entropy,
    decay_mask,
    evaluate,
    fresh_head,
    initial_classifier,
    learning_rate_schedule,
    make_optimizer,
    make_step,
    train,
    trainable,
)

SIZE = 16
NAMES = ("red", "green", "none")


class Killed(BaseException):
    """Stands for the process ending: nothing catches it."""


class Planted:
    """Noise with a red square, a green one, or none: the class."""

    in_memory = True
    class_names, keypoint_names, part_names = NAMES, (), ()

    def __init__(self, size, seed):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(size, dtype=np.int32) % 3
        self.ids = [str(i) for i in range(size)]
        self.pixels = rng.integers(0, 60, (size, SIZE, SIZE, 3), dtype=np.uint8)
        for label in (0, 1):
            self.pixels[self.labels == label, 4:12, 4:12, label] += 150
        self.reads_left = math.inf

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads_left -= 1
        if self.reads_left < 0:
            raise Killed
        return Example(self.pixels[index], int(self.labels[index]), self.ids[index])


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
    monkeypatch.setattr(train_module, "open_dataset", lambda name, split, path: made[split])
    return made


@pytest.fixture(scope="module")
def tiny():
    spec = ModelSpec(widths=(8,), blocks=(1,), stem_stride=2)
    return build(spec, 3, SIZE, jax.random.key(0), class_names=NAMES)


def arrays(classifier):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(classifier)]


# --- schedule, decay, loss ----------------------------------------------------------------------


def test_schedule_by_hand():
    schedule = learning_rate_schedule(TrainConfig(epochs=5, warmup_epochs=1, learning_rate=0.1), 10)
    expected = {0: 0.0, 5: 0.05, 10: 0.1, 20: 0.05 * (1 + math.cos(math.pi / 4)), 30: 0.05, 50: 0.0}
    for step, value in expected.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-7)


def test_schedule_without_warmup_starts_at_the_top():
    schedule = learning_rate_schedule(TrainConfig(epochs=2, warmup_epochs=0, learning_rate=0.1), 4)
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(4)) == pytest.approx(0.05)


@pytest.mark.parametrize("warmup", [0, 1])
def test_schedule_in_steps(warmup):
    config = TrainConfig(epochs=9, warmup_epochs=warmup, learning_rate=0.1, milestones=(3, 6))
    schedule = learning_rate_schedule(config, 10)
    assert float(schedule(5)) == pytest.approx(0.05 if warmup else 0.1)
    for step, value in {10: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001}.items():
        assert float(schedule(step)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_shrinks_kernels_alone(tiny, name):
    config = TrainConfig(
        optimizer=name, learning_rate=0.1, weight_decay=0.5, warmup_epochs=0, epochs=100
    )
    optimizer = make_optimizer(config, 100)
    weights = jax.tree.map(jnp.ones_like, trainable(tiny))
    zeros = jax.tree.map(jnp.zeros_like, weights)
    updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(weights), weights)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        decays = "kernel" in jax.tree_util.keystr(path)
        np.testing.assert_allclose(update, -0.1 * 0.5 if decays else 0, rtol=1e-5)
    assert sum(jax.tree.leaves(decay_mask(weights))) == 4  # stem, two of the block, the head


def test_cross_entropy_by_hand(tiny):
    images = np.random.default_rng(0).random((6, SIZE, SIZE, 3), np.float32)
    labels = np.array([0, 1, 2, 0, 1, 1])
    loss, (moved, logits) = cross_entropy(tiny, images, labels, label_smoothing=0.3)
    logits = np.float64(logits)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.full((6, 3), 0.1) + 0.7 * np.eye(3)[labels]
    assert float(loss) == pytest.approx(-(targets * log_p).sum(-1).mean(), rel=1e-5)
    before, after = arrays(tiny.features.stats), arrays(moved.features.stats)
    assert all(not np.allclose(a, b) for a, b in zip(before, after, strict=True))
    for a, b in zip(arrays(trainable(tiny)), arrays(trainable(moved)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_is_one_of_gradient_descent(tiny):
    def linear(classifier, images, labels):
        cells = classifier.features(images)
        logits = classifier.head(cells)
        return logits.mean(), (classifier, logits)

    copy = jax.tree.map(jnp.array, tiny)
    images = np.random.default_rng(0).integers(0, 255, (4, SIZE, SIZE, 3), dtype=np.uint8)
    pooled = np.asarray(tiny.features(images / np.float32(255))).mean((0, 1, 2))
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
    assert 0 <= int(metrics["correct"]) <= 4


# --- augmentation -------------------------------------------------------------------------------


def ramp(side=32):
    """Red grows to the right, green downwards, by one unit a pixel."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return jnp.stack([x, y, np.full_like(x, 7)], -1)


def variants(config, image, count=32):
    keys = jax.random.split(jax.random.key(0), count)
    one = partial(augment, config)
    return np.asarray(jax.jit(jax.vmap(one, (0, None)))(keys, image))


def test_no_augmentation_is_none():
    image = ramp()
    assert (variants(AugmentConfig(flip=False), image, 2) == np.asarray(image)).all()


def test_flip_gives_both_ways_alike():
    image = np.asarray(ramp())
    out = variants(AugmentConfig(flip=True), image)
    flipped = (out == image[:, ::-1]).all((1, 2, 3))
    same = (out == image).all((1, 2, 3))
    assert np.logical_xor(flipped, same).all()
    assert 8 <= sum(flipped) <= 24


def test_padded_crop_is_a_shift_that_repeats_the_edge():
    out = variants(AugmentConfig(flip=False, crop_padding=3), ramp())
    shifts = out[:, 15, 15, :2] - 15
    x = np.clip(np.arange(32) + shifts[:, :1], 0, 31)
    np.testing.assert_array_equal(out[:, 15, :, 0], x)
    assert set(shifts.ravel()) == {-3, -2, -1, 0, 1, 2, 3}


def test_colour_jitter_stays_in_range_and_moves_colours_alone():
    image = (ramp() / 32).at[:8].set(0.5)
    out = variants(AugmentConfig(flip=False, colour_jitter=0.3), image)
    assert out.min() >= 0
    assert out.max() <= 1
    assert np.std(out.mean((1, 2, 3))) > 0.03
    assert np.ptp(out[:, :8], axis=(1, 2)).max() < 1e-6


@pytest.mark.parametrize(
    "wrong", [{"crop_padding": -1}, {"crop_scale": 0.0}, {"colour_jitter": 1.0}]
)
def test_augmentation_refuses(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        AugmentConfig(**wrong)


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run: its classifier and folder."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    made = {"train": Planted(100, 0), "test": Planted(30, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "open_dataset", lambda name, split, path: made[split])
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
    assert evaluate(classifier, Planted(50, 7), 16) > 0.9
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
    accuracy = log_of(tmp_path / "run")[-1]["test_accuracy"]
    assert accuracy * 29 == pytest.approx(round(accuracy * 29))


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
        loss, aux = cross_entropy(classifier, images, labels)
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


# --- fine-tuning --------------------------------------------------------------------------------


def test_fine_tuning_keeps_the_backbone_and_starts_the_head_anew(tiny, tmp_path):
    save_classifier(tiny, tmp_path / "checkpoint")
    config = TrainConfig(model=ModelConfig(checkpoint=str(tmp_path / "checkpoint")))
    same = initial_classifier(config, ("a", "b", "c"))
    np.testing.assert_array_equal(same.head.kernel, tiny.head.kernel)
    assert same.class_names == ("a", "b", "c")
    more = initial_classifier(config, ("a", "b", "c", "d"))
    assert more.num_classes == 4
    assert more.head.kernel.shape == (8, 4)
    for a, b in zip(arrays(more.features), arrays(tiny.features), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fresh_head_of_a_dense_one_replaces_its_last_layer():
    ones = jnp.ones
    head = Dense(ones((2, 2, 3, 5)), ones(5), ((ones((5, 6)), ones(6)), (ones((6, 9)), ones(9))))
    fresh = fresh_head(head, 4, jax.random.key(0))
    assert fresh.layers[0] is head.layers[0]
    assert fresh.kernel is head.kernel
    kernel, bias = fresh.layers[1]
    assert kernel.shape == (6, 4)
    assert 0.002 < float(kernel.std()) < 0.02
    assert (bias == 0).all()
    with pytest.raises(InputError, match="uncut"):
        fresh_head(partial(jnp.mean), 4, jax.random.key(0))


def test_a_model_is_a_checkpoint_or_weights():
    with pytest.raises(InputError, match="expected a checkpoint or weights, got both a and b"):
        ModelConfig(checkpoint="a", arch="vgg16", weights="b")


def test_models_that_cannot_be_trained_are_refused():
    with pytest.raises(InputError, match="expected arch or checkpoint"):
        initial_classifier(TrainConfig(), NAMES)
    cut = ModelConfig(arch="resnet50", cut="layer4.0")
    with pytest.raises(InputError, match=r"model\.cut 'layer4\.0'"):
        initial_classifier(TrainConfig(model=cut), NAMES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"warmup_epochs": 11.0},
        {"weight_decay": -0.1},
        {"label_smoothing": 1.0},
        {"optimizer": "lion"},
        {"milestones": (6, 3)},
        {"milestones": (0,)},
        {"seed": -1},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainConfig(**wrong)


# --- drawn datasets and presets -----------------------------------------------------------------


def test_rendered_holds_what_the_dataset_draws():
    class Drawn(Planted):
        def images(self, indices):
            return self.pixels[np.asarray(indices)]

    dataset, counts = Drawn(250, 0), []
    rendered = Rendered(dataset, counts.append)
    assert counts == [100, 100, 50]
    assert len(rendered) == 250
    for index in (0, 99, 100, 249):
        example = rendered[index]
        np.testing.assert_array_equal(example.image, dataset.pixels[index])
        assert (example.label, example.id) == (index % 3, str(index))


def test_digits_preset_in_a_reduced_size(tmp_path):
    preset = Path(__file__).parents[1] / "configs" / "digits.yaml"
    out = tmp_path / "digits"
    assert main(["train", "--config", str(preset), "--epochs", "6", "--out", str(out)]) == 0
    assert log_of(out)[-1]["test_accuracy"] > 0.9
    assert isinstance(load_classifier(out).head, PooledLinear)
