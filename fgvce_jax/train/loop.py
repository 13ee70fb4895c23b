"""Training and fine-tuning: a run from its config to its folder, its epochs, their measure.

A step is a pure function of the training state and a batch, an epoch's batches are a function of
(seed, epoch), and the augmentation's randomness one of (seed, step); so a run that was killed
continues from its last whole epoch to exactly the weights it would have reached.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Float, Int, UInt8

from fgvce_jax.config import DataConfig
from fgvce_jax.data import open_dataset
from fgvce_jax.data.cache import CachedDataset
from fgvce_jax.data.example import Dataset
from fgvce_jax.data.pipeline import Batch, batches, training_batches, warn_skipped
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.models import Classifier, load_classifier
from fgvce_jax.models.initial import initial_classifier
from fgvce_jax.progress import notify, stage
from fgvce_jax.train import disk
from fgvce_jax.train.config import TrainConfig
from fgvce_jax.train.disk import EpochRecord
from fgvce_jax.train.step import (
    Loss,
    TrainState,
    learning_rate_schedule,
    loss_of,
    make_optimizer,
    make_step,
    trainable,
)


def train(config: TrainConfig, out: str | Path, loss: Loss | None = None) -> Classifier:
    """Train a classifier and leave it in `out`, a folder that `load_classifier` reads.

    The folder appears when the training is finished, and holds `train.json` (the config) and
    `log.jsonl` (an `EpochRecord` a line) as well. Until then the whole state goes to the hidden
    folder `.NAME.training` beside it after every epoch; after a kill the same call continues from
    there, to exactly the weights of an uninterrupted run. Where the same training is already
    finished, its classifier is loaded and returned.

    Args:
        config: The training.
        out: A new folder, or that of the same training.
        loss: The loss to minimise; by default the one that trains `config.head`.

    Raises:
        InputError: The folder holds something else, data, model or weights do not fit, or the loss
            became NaN or infinite; then nothing of the training is left.
    """
    out = Path(out).expanduser().absolute()
    if disk.is_finished(config, out):
        disk.discard_state(out)  # of a process that was killed just before it did so
        notify(f"{out}: this training is finished")
        return load_classifier(out)
    train_set, test_set = (_open(config.data, split) for split in ("train", "test"))
    head, key = "own" if config.head == "own" else "calm", jax.random.key(config.seed)
    classifier = initial_classifier(config.model, train_set.class_names, key, head)
    if len(train_set) < config.batch_size:
        raise InputError(f"batch_size {config.batch_size}: expected at most {len(train_set)}")
    loss = loss or loss_of(config)
    with disk.open_state(config, out) as checkpoints:
        classifier, history = _epochs(config, classifier, train_set, test_set, loss, checkpoints)
    disk.publish(config, classifier, history, out)
    return classifier


def _epochs(
    config: TrainConfig,
    classifier: Classifier,
    train_set: Dataset,
    test_set: Dataset,
    loss: Loss,
    checkpoints: ocp.CheckpointManager,
) -> tuple[Classifier, list[EpochRecord]]:
    """The epochs that are still to be made; the classifier after the last, and all records."""
    steps = len(train_set) // config.batch_size
    schedule = learning_rate_schedule(config, steps)
    optimizer = make_optimizer(config, schedule)
    step = make_step(optimizer, loss, config.augment)
    # Threefry by name: the same augmentation, whatever generator JAX has as its default.
    step = partial(step, key=jax.random.key(config.seed, impl="threefry2x32"))
    workers, on_skip = config.data.num_workers, _notify_once()
    stream = partial(
        training_batches,
        train_set,
        config.batch_size,
        classifier.image_size,
        classifier.resize_to,
        num_workers=workers,
        seed=config.seed,
        crop_scale=config.augment.crop_scale,
        on_skip=on_skip,
    )
    state = TrainState(classifier, optimizer.init(trainable(classifier)), jnp.int32(0))
    state, history = disk.restore(checkpoints, state)
    if history:
        notify(f"continuing after epoch {len(history)} of {config.epochs}")
    for epoch in range(len(history), config.epochs):
        start = time.perf_counter()
        with stage(f"epoch {epoch + 1} of {config.epochs}", steps) as advance:
            state, losses, correct = _epoch(config, step, state, stream(epoch=epoch), advance)
        trained = time.perf_counter() - start
        tested = accuracy(state.classifier, test_set, config.batch_size, on_skip, workers)
        record = EpochRecord(
            epoch=epoch + 1,
            steps=(epoch + 1) * steps,
            learning_rate=float(np.asarray(schedule((epoch + 1) * steps - 1))),
            train_loss=float(np.mean(losses)),
            train_accuracy=int(sum(correct)) / (steps * config.batch_size),
            test_accuracy=tested,
            images_per_second=steps * config.batch_size / trained,
            seconds=time.perf_counter() - start,
        )
        history.append(record)
        disk.save(checkpoints, state, history)
        notify(
            f"epoch {record.epoch}/{config.epochs}: loss {record.train_loss:.3f}, "
            f"train {record.train_accuracy:.1%}, test {record.test_accuracy:.1%}, "
            f"{record.images_per_second:.0f} images/s"
        )
    return state.classifier, history


def _epoch(
    config: TrainConfig,
    step: Callable[..., tuple[TrainState, dict[str, Array]]],
    state: TrainState,
    stream: Iterable[Batch],
    advance: Callable[[int], None],
) -> tuple[TrainState, list[Array], list[Array]]:
    """One epoch's steps: the state after the last, every step's loss and its correct answers."""
    before, losses, correct = int(state.step), [], []
    for batch in stream:
        state, metrics = step(state, batch.image, batch.label)
        # The loss of the step before: this one's would keep the host waiting for the device.
        if losses:
            _check_finite(losses[-1], before + len(losses), config)
        losses.append(metrics["loss"])
        correct.append(metrics["correct"])
        advance(1)
    _check_finite(losses[-1], before + len(losses), config)
    return state, losses, correct


@jax.jit
def count_correct(
    classifier: Classifier, images: UInt8[Array, "B S S 3"], labels: Int[Array, "B"]
) -> Int[Array, ""]:
    """How many of a batch are classified as labelled, in inference mode; label -1 never is."""
    return (classifier(images / jnp.float32(255)).argmax(-1) == labels).sum()


def accuracy(
    classifier: Classifier,
    dataset: Dataset,
    batch_size: int,
    on_skip: Callable[[UnreadableImage], None] = warn_skipped,
    num_workers: int = 0,
) -> float:
    """Share of `dataset`'s readable images that are classified as labelled, in [0, 1].

    `on_skip` is called with the error of every other image.
    """
    correct, seen, indices = [], 0, np.arange(len(dataset))
    sizes = batch_size, classifier.image_size, classifier.resize_to
    for batch in batches(dataset, indices, *sizes, num_workers=num_workers, on_skip=on_skip):
        missing = (0, batch_size - len(batch.label))  # one shape, one compilation
        images = np.pad(batch.image, (missing, (0, 0), (0, 0), (0, 0)))
        labels = np.pad(batch.label, missing, constant_values=-1)
        correct.append(count_correct(classifier, images, labels))
        seen += len(batch.label)
    return int(sum(correct)) / max(seen, 1)


def _check_finite(loss: Float[Array, ""], step: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"loss is {float(loss)} at step {step}: try a learning_rate below "
            f"{config.learning_rate:g} or more warmup_epochs than {config.warmup_epochs:g}"
        )


def _open(config: DataConfig, split: str) -> Dataset:
    """A split of the dataset; in memory where its images are drawn and not read."""
    dataset = open_dataset(config.name, split, config.path, max_pixels=config.max_pixels)
    if not callable(getattr(dataset, "images", None)):
        return dataset
    with stage(f"drawing {split} images", len(dataset)) as advance:
        return CachedDataset(dataset, advance)


def _notify_once() -> Callable[[UnreadableImage], None]:
    """Names an image that is left out, the first time only: every epoch meets it again."""
    named: set[str] = set()

    def on_skip(error: UnreadableImage) -> None:
        if error.id not in named:
            named.add(error.id)
            notify(f"skipped {error}")

    return on_skip
