"""Training and fine-tuning with optax: warm-up, then cosine decay or steps, weight decay, label
smoothing.

A step is a pure function of the training state and a batch, an epoch's batches are a function of
(seed, epoch), and the augmentation's randomness one of (seed, step); so a run that was killed
continues from its last whole epoch to exactly the weights it would have reached.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jaxtyping import Array, Float, Int, Key, UInt8

from fgvce_jax.config import DataConfig, ModelConfig
from fgvce_jax.data import open_dataset
from fgvce_jax.data.augment import AugmentConfig, augment
from fgvce_jax.data.example import Dataset, Example
from fgvce_jax.data.pipeline import batches, training_batches, warn_skipped
from fgvce_jax.errors import InputError, UnreadableImage
from fgvce_jax.heads import CalmHead, Dense, PooledLinear
from fgvce_jax.methods.calm import expectation_maximisation, marginal_likelihood
from fgvce_jax.models import (
    Classifier,
    ModelSpec,
    build,
    load_classifier,
    open_classifier,
    save_classifier,
)
from fgvce_jax.models.spec import require_spec
from fgvce_jax.progress import notify, stage

_CONFIG, _LOG = "train.json", "log.jsonl"


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: Which images; the `train` split is trained on, the `test` split measured after every
            epoch.
        model: Which classifier: an architecture from scratch, or with weights (or a checkpoint) to
            fine-tune. Where the weights have another number of classes, the last layer starts anew.
        head: "own" trains the architecture's head by cross-entropy; "calm_em" and "calm_ml" put
            CALM's head in its place and train it by expectation-maximisation or by marginal
            likelihood, so that the method `calm` can be used.
        augment: How training images are varied.
        epochs: Passes over the train split.
        batch_size: Images in one step.
        optimizer: adamw, or sgd with momentum 0.9.
        learning_rate: The highest, reached after the warm-up.
        milestones: Epochs after each of which the learning rate falls to a tenth; without any it
            goes down to 0 along a cosine.
        warmup_epochs: Epochs over which the learning rate rises from 0, a fraction allowed.
        weight_decay: Of kernels; biases and normalisation layers have none. Times the learning
            rate with adamw, added to the gradient with sgd.
        label_smoothing: Probability mass spread evenly over the classes, in [0, 1).
        seed: Of the initial weights, the order of images and the augmentation.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    head: Literal["own", "calm_em", "calm_ml"] = "own"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 10
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more, got {self.seed}")
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise InputError(
                f"warmup_epochs: expected 0 to {self.epochs} (epochs), got {self.warmup_epochs}"
            )
        if list(self.milestones) != sorted({m for m in self.milestones if m > 0}):
            raise InputError(
                f"milestones: expected epochs in ascending order, got {list(self.milestones)}"
            )
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay: expected 0 or more, got {self.weight_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing: expected in [0, 1), got {self.label_smoothing}")
        if self.optimizer not in ("adamw", "sgd"):
            raise InputError(f"optimizer: expected adamw or sgd, got {self.optimizer!r}")


# --- the step -----------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    Attributes:
        classifier: Weights and BatchNorm statistics.
        opt_state: The optimizer's.
        step: Steps made, int32.
    """

    classifier: Classifier
    opt_state: optax.OptState
    step: Int[Array, ""]


Loss = Callable[[Classifier, Any, Any], tuple[Any, tuple[Classifier, Any]]]
"""(classifier, images [B, S, S, 3] in [0, 1], labels [B]) -> (loss, (classifier with its BatchNorm
statistics moved on, logits [B, K]))."""


def cross_entropy(
    classifier: Classifier,
    images: Float[Array, "B S S 3"],
    labels: Int[Array, " B"],
    *,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], tuple[Classifier, Float[Array, "B K"]]]:
    """Mean cross-entropy against labels smoothed as in Szegedy et al. 2016; a `Loss`."""
    cells, features = classifier.features.train(images)
    logits = classifier.head(cells)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    return loss, (replace(classifier, features=features), logits)


def loss_of(config: TrainConfig) -> Loss:
    """The loss that trains the config's head."""
    return {
        "own": partial(cross_entropy, label_smoothing=config.label_smoothing),
        "calm_em": expectation_maximisation,
        "calm_ml": marginal_likelihood,
    }[config.head]


def trainable(classifier: Classifier) -> tuple[Any, Any]:
    """The weights that gradients are taken of: the backbone's parameters and the head."""
    return classifier.features.params, classifier.head


def with_trainable(classifier: Classifier, weights: tuple[Any, Any]) -> Classifier:
    """`classifier` with `weights`, as `trainable` gives them, in place of its own."""
    params, head = weights
    return replace(classifier, features=replace(classifier.features, params=params), head=head)


def decay_mask(weights: Any) -> Any:
    """True for the kernels among `weights`; False for biases and normalisation, which are 1-D."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)


def learning_rate_schedule(config: TrainConfig, steps_per_epoch: int) -> optax.Schedule:
    """Step -> learning rate: linearly up from 0, then down along a half cosine or in steps."""
    total, peak = config.epochs * steps_per_epoch, config.learning_rate
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    if config.milestones:
        drops = {epoch * steps_per_epoch - warmup: 0.1 for epoch in config.milestones}
        decay = optax.piecewise_constant_schedule(peak, drops)
    else:
        decay = optax.cosine_decay_schedule(peak, total - warmup)
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of `config` with its schedule and its weight decay."""
    schedule = learning_rate_schedule(config, steps_per_epoch)
    if config.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay, mask=decay_mask)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.sgd(schedule, momentum=0.9),
    )


def make_step(
    optimizer: optax.GradientTransformation, loss: Loss, augmentation: AugmentConfig
) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
    """The jitted step: (state, images, labels, key) -> (state, metrics).

    Images are uint8 [B, S, S, 3], labels int32 [B]; `key` is the run's, and the step folds its
    number in. The state passed in is donated. Metrics are scalars on the device: the batch's mean
    `loss` and how many of it were `correct`.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState, images: UInt8[Array, "B S S 3"], labels: Int[Array, " B"], key: Key
    ):
        keys = jax.random.split(jax.random.fold_in(key, state.step), len(images))
        images = jax.vmap(partial(augment, augmentation))(keys, images / jnp.float32(255))

        def of_weights(weights):
            return loss(with_trainable(state.classifier, weights), images, labels)

        weights = trainable(state.classifier)
        (value, (moved, logits)), grads = jax.value_and_grad(of_weights, has_aux=True)(weights)
        updates, opt_state = optimizer.update(grads, state.opt_state, weights)
        classifier = with_trainable(moved, optax.apply_updates(weights, updates))
        correct = (logits.argmax(-1) == labels).sum()
        state = TrainState(classifier, opt_state, state.step + 1)
        return state, {"loss": value, "correct": correct}

    return step


@jax.jit
def count_correct(
    classifier: Classifier, images: UInt8[Array, "B S S 3"], labels: Int[Array, " B"]
) -> Int[Array, ""]:
    """How many of a batch are classified as labelled, in inference mode; label -1 never is."""
    return (classifier(images / jnp.float32(255)).argmax(-1) == labels).sum()


# --- data ---------------------------------------------------------------------------------------


class Rendered:
    """A dataset that draws its images, drawn once and kept in memory (uint8, so 20,000 images of
    112 x 112 take 750 MB); a `Dataset`.

    Args:
        dataset: A dataset with `images(indices)`, uint8 [B, S, S, 3].
        advance: Told after every chunk how many images were drawn.
    """

    in_memory = True
    _CHUNK = 100

    def __init__(self, dataset: Any, advance: Callable[[int], None]):
        self.class_names = dataset.class_names
        self.keypoint_names = self.part_names = ()
        self.labels, self.ids = dataset.labels, dataset.ids
        self._images = np.empty((len(dataset), *dataset[0].image.shape), np.uint8)
        for start in range(0, len(dataset), self._CHUNK):
            chunk = range(start, min(start + self._CHUNK, len(dataset)))
            self._images[start : start + len(chunk)] = dataset.images(chunk)
            advance(len(chunk))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        return Example(self._images[index], int(self.labels[index]), self.ids[index])


def _open(config: DataConfig, split: str) -> Dataset:
    dataset = open_dataset(config.name, split, config.path)
    if not callable(getattr(dataset, "images", None)):
        return dataset
    with stage(f"drawing {split} images", len(dataset)) as advance:
        return Rendered(dataset, advance)


def _say_once() -> Callable[[UnreadableImage], None]:
    """Names an image that is left out, the first time only: every epoch meets it again."""
    said: set[str] = set()

    def on_skip(error: UnreadableImage) -> None:
        if error.id not in said:
            said.add(error.id)
            notify(f"skipped {error}")

    return on_skip


def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    batch_size: int,
    on_skip: Callable[[UnreadableImage], None] = warn_skipped,
    num_workers: int = 0,
) -> float:
    """Accuracy on the readable images of `dataset`, in [0, 1]; `on_skip` is told of the others."""
    correct, seen = [], 0
    size = (classifier.image_size, classifier.resize_to)
    options = {"num_workers": num_workers, "on_skip": on_skip}
    for batch in batches(dataset, np.arange(len(dataset)), batch_size, *size, **options):
        missing = batch_size - len(batch.label)  # one shape, one compilation
        images = np.pad(batch.image, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(batch.label, (0, missing), constant_values=-1)
        correct.append(count_correct(classifier, images, labels))
        seen += len(batch.label)
    return int(sum(correct)) / max(seen, 1)


# --- the classifier to start from ---------------------------------------------------------------


def initial_classifier(config: TrainConfig, class_names: Sequence[str]) -> Classifier:
    """The classifier of `config.model` for these classes, before the first step.

    Fresh from an architecture alone; otherwise with its weights, and with a fresh last layer where
    they have another number of classes.

    Raises:
        InputError: Neither an architecture nor a checkpoint, a cut, or weights that do not fit.
    """
    model, key = config.model, jax.random.key(config.seed)
    head = "own" if config.head == "own" else "calm"
    if model.cut is not None:
        raise InputError(f"model.cut {model.cut!r}: expected none in training; cut when explaining")
    if model.arch is None and model.checkpoint is None:
        raise InputError("model: expected arch or checkpoint, got neither")
    if model.checkpoint is None and model.weights is None:
        spec = ModelSpec(
            model.arch, widths=model.widths, blocks=model.blocks, stem_stride=model.stem_stride
        )
        size = model.image_size or (112 if model.arch == "small_resnet" else 224)
        spec = replace(spec, head=head)
        return build(
            spec, len(class_names), size, key, class_names=class_names, resize_to=model.resize_to
        )
    classifier = open_classifier(model)
    same_head = require_spec(classifier).head == head
    if same_head and classifier.num_classes == len(class_names):
        return replace(classifier, class_names=tuple(class_names))
    return replace(
        classifier,
        head=fresh_head(classifier.head, len(class_names), key)
        if head == "own"
        else CalmHead.create(key, _channels(classifier), len(class_names)),
        spec=replace(require_spec(classifier), head=head),
        num_classes=len(class_names),
        class_names=tuple(class_names),
    )


def _channels(classifier: Classifier) -> int:
    """C of the cells."""
    image = jax.ShapeDtypeStruct((1, classifier.image_size, classifier.image_size, 3), jnp.float32)
    return jax.eval_shape(classifier.features, image).shape[-1]


def fresh_head(head: Any, num_classes: int, key: Key[Array, ""]) -> Any:
    """`head` with its last layer drawn anew (normal, deviation 0.01) for `num_classes` classes."""

    def layer(inputs: int) -> tuple[Array, Array]:
        return 0.01 * jax.random.normal(key, (inputs, num_classes)), jnp.zeros(num_classes)

    if isinstance(head, PooledLinear):
        return PooledLinear(*layer(len(head.kernel)))
    if isinstance(head, Dense):
        return replace(head, layers=(*head.layers[:-1], layer(len(head.layers[-1][0]))))
    raise InputError(
        f"head {type(head).__name__}: expected an uncut model's to train on {num_classes} classes"
    )


# --- the run ------------------------------------------------------------------------------------


class EpochRecord(NamedTuple):
    """A line of `log.jsonl`.

    Attributes:
        epoch: From 1.
        steps: Steps made since the beginning.
        learning_rate: Of the epoch's last step.
        train_loss: Mean over the epoch, label smoothing included.
        train_accuracy: Of augmented images, each as it was met.
        test_accuracy: After the epoch.
        images_per_second: Of the training steps.
        seconds: The epoch and its test.
    """

    epoch: int
    steps: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    images_per_second: float
    seconds: float


def train(config: TrainConfig, out: str | Path, loss: Loss | None = None) -> Classifier:
    """Train a classifier and leave it in `out`, a folder that `load_classifier` reads.

    The folder appears when the training is finished, and holds `train.json` (the config) and
    `log.jsonl` (an `EpochRecord` a line) as well. Until then the whole state goes to the hidden
    folder `.NAME.training` beside it after every epoch; after a kill the same call continues from
    there, to exactly the weights of an uninterrupted run. Where the same training is already
    finished, its classifier is loaded and returned.

    Args:
        config: What to train.
        out: A new folder, or that of the same training.
        loss: What is minimised; by default what `config.head` asks for.

    Raises:
        InputError: The folder holds something else, data, model or weights do not fit, or the loss
            became NaN or infinite; then nothing of the training is left.
    """
    out = Path(out).expanduser().absolute()
    state = out.with_name(f".{out.name}.training")
    if _is_finished(config, out):
        shutil.rmtree(state, ignore_errors=True)
        notify(f"{out}: this training is finished")
        return load_classifier(out)
    _check_same(config, state)
    train_set, test_set = (_open(config.data, split) for split in ("train", "test"))
    classifier = initial_classifier(config, train_set.class_names)
    if len(train_set) < config.batch_size:
        raise InputError(f"batch_size {config.batch_size}: expected at most {len(train_set)}")
    made = [path for path in (state, *state.parents) if not path.exists()]
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / _CONFIG).write_text(_to_json(config))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    loss = loss or loss_of(config)
    try:
        classifier, history = _epochs(config, classifier, train_set, test_set, loss, state)
    except InputError:
        shutil.rmtree(state)
        for path in made[1:]:
            path.rmdir()
        raise
    _publish(config, classifier, history, state, out)
    return classifier


def _epochs(
    config: TrainConfig,
    classifier: Classifier,
    train_set: Dataset,
    test_set: Dataset,
    loss: Loss,
    folder: Path,
) -> tuple[Classifier, list[EpochRecord]]:
    """The epochs that are still to be made; the classifier after the last, and all records."""
    steps = len(train_set) // config.batch_size
    optimizer = make_optimizer(config, steps)
    schedule = learning_rate_schedule(config, steps)
    step = make_step(optimizer, loss, config.augment)
    key = jax.random.key(config.seed, impl="threefry2x32")
    state = TrainState(classifier, optimizer.init(trainable(classifier)), jnp.int32(0))
    size = (classifier.image_size, classifier.resize_to)
    on_skip = _say_once()
    with _checkpoints(folder) as checkpoints:
        state, history = _restore(checkpoints, state)
        if history:
            notify(f"continuing after epoch {len(history)} of {config.epochs}")
        for epoch in range(len(history), config.epochs):
            start = time.perf_counter()
            stream = training_batches(
                train_set,
                config.batch_size,
                *size,
                num_workers=config.data.num_workers,
                seed=config.seed,
                epoch=epoch,
                crop_scale=config.augment.crop_scale,
                on_skip=on_skip,
            )
            losses, correct = [], []
            with stage(f"epoch {epoch + 1} of {config.epochs}", steps) as advance:
                for batch in stream:
                    state, metrics = step(state, batch.image, batch.label, key)
                    if losses:  # the step before, while this one runs
                        _check_finite(losses[-1], epoch * steps + len(losses), config)
                    losses.append(metrics["loss"])
                    correct.append(metrics["correct"])
                    advance(1)
                _check_finite(losses[-1], (epoch + 1) * steps, config)
            trained = time.perf_counter() - start
            accuracy = evaluate(
                state.classifier, test_set, config.batch_size, on_skip, config.data.num_workers
            )
            history.append(
                EpochRecord(
                    epoch=epoch + 1,
                    steps=(epoch + 1) * steps,
                    learning_rate=float(schedule((epoch + 1) * steps - 1)),
                    train_loss=float(np.mean(losses)),
                    train_accuracy=int(sum(correct)) / (steps * config.batch_size),
                    test_accuracy=accuracy,
                    images_per_second=steps * config.batch_size / trained,
                    seconds=time.perf_counter() - start,
                )
            )
            _save(checkpoints, state, history)
            notify(_line(history[-1], config.epochs))
    return state.classifier, history


def _check_finite(loss: Any, step: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"loss is {float(loss)} at step {step}: try a learning_rate below "
            f"{config.learning_rate:g} or more warmup_epochs than {config.warmup_epochs:g}"
        )


def _line(record: EpochRecord, epochs: int) -> str:
    return (
        f"epoch {record.epoch}/{epochs}: loss {record.train_loss:.3f}, "
        f"train {record.train_accuracy:.1%}, test {record.test_accuracy:.1%}, "
        f"{record.images_per_second:.0f} images/s"
    )


# --- what lies on disk --------------------------------------------------------------------------


def _to_json(config: TrainConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def _check_same(config: TrainConfig, folder: Path) -> None:
    path = folder / _CONFIG
    if path.exists() and path.read_text() != _to_json(config):
        raise InputError(f"{folder}: holds a training with another config, expected a new --out")


def _is_finished(config: TrainConfig, out: Path) -> bool:
    """Whether `out` holds this training; False where it is a new or empty folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected a folder")
    if not out.exists() or not any(out.iterdir()):
        return False
    if not (out / _CONFIG).exists():
        raise InputError(f"{out}: holds something else, expected a new folder")
    _check_same(config, out)
    return True


def _publish(
    config: TrainConfig,
    classifier: Classifier,
    history: list[EpochRecord],
    state: Path,
    out: Path,
) -> None:
    """The finished folder, in one rename."""
    staged = state / "finished"
    shutil.rmtree(staged, ignore_errors=True)
    save_classifier(classifier, staged)
    (staged / _CONFIG).write_text(_to_json(config))
    lines = (json.dumps(record._asdict()) + "\n" for record in history)
    (staged / _LOG).write_text("".join(lines))
    staged.rename(out)
    shutil.rmtree(state)


def _checkpoints(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(folder / "epochs", options=options)


def _save(
    checkpoints: ocp.CheckpointManager, state: TrainState, history: list[EpochRecord]
) -> None:
    leaves = ocp.args.StandardSave(jax.tree.leaves(state))
    records = ocp.args.JsonSave([record._asdict() for record in history])
    checkpoints.save(len(history), args=ocp.args.Composite(leaves=leaves, history=records))


def _restore(
    checkpoints: ocp.CheckpointManager, state: TrainState
) -> tuple[TrainState, list[EpochRecord]]:
    """The last whole epoch's state and all records; `state` and none where there is no epoch."""
    if checkpoints.latest_step() is None:
        return state, []
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, jax.tree.leaves(state))
    restored = checkpoints.restore(
        checkpoints.latest_step(),
        args=ocp.args.Composite(
            leaves=ocp.args.StandardRestore(shapes), history=ocp.args.JsonRestore()
        ),
    )
    state = jax.tree.unflatten(jax.tree.structure(state), restored.leaves)
    return state, [EpochRecord(**record) for record in restored.history]
