"""A training on disk: its whole state after every epoch, and the folder that it ends as.

Until a training is finished, all of it lies in the hidden folder `.NAME.training` beside its `out`
folder, which appears in one rename: `out` is either not there or whole.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import orbax.checkpoint as ocp

from fgvce_jax.errors import InputError
from fgvce_jax.files import writing
from fgvce_jax.models import Classifier, save_classifier
from fgvce_jax.train.config import TrainConfig

_CONFIG, _LOG = "train.json", "log.jsonl"
_State = TypeVar("_State")


class EpochRecord(NamedTuple):
    """One epoch, a line of `log.jsonl`.

    Attributes:
        epoch: From 1.
        steps: Steps made since the start of the training.
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


def is_finished(config: TrainConfig, out: Path) -> bool:
    """Whether `out` holds this training; False where it is still to be made or continued.

    InputError where `out` or the state beside it is something else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected a folder")
    if not out.exists() or not any(out.iterdir()):
        _check_same(config, _state_folder(out))
        return False
    if not (out / _CONFIG).exists():
        raise InputError(f"{out}: holds something else, expected a new folder")
    _check_same(config, out)
    return True


@contextmanager
def open_state(config: TrainConfig, out: Path) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of the training that will be `out`, in a folder made for it where needed.

    An `InputError` in the block takes the folder away again: the training cannot succeed. After
    any other end, such as a kill, the state stays and the training can be continued.
    """
    folder = _state_folder(out)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(out):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CONFIG).write_text(_to_json(config))
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    try:
        with ocp.CheckpointManager(folder / "epochs", options=options) as checkpoints:
            yield checkpoints
    except InputError:
        shutil.rmtree(folder)
        for path in made[1:]:
            path.rmdir()
        raise


def publish(
    config: TrainConfig, classifier: Classifier, history: list[EpochRecord], out: Path
) -> None:
    """Make `out` the finished training, and remove its state."""
    staged = _state_folder(out) / "finished"
    shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed here
    save_classifier(classifier, staged)
    (staged / _CONFIG).write_text(_to_json(config))
    lines = (json.dumps(record._asdict()) + "\n" for record in history)
    (staged / _LOG).write_text("".join(lines))
    staged.rename(out)
    discard_state(out)


def discard_state(out: Path) -> None:
    """Remove the state beside `out`, if there is any."""
    shutil.rmtree(_state_folder(out), ignore_errors=True)


def _state_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.training")


def _check_same(config: TrainConfig, folder: Path) -> None:
    path = folder / _CONFIG
    if path.exists() and path.read_text() != _to_json(config):
        raise InputError(f"{folder}: holds a training with another config, expected a new --out")


def _to_json(config: TrainConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def save(checkpoints: ocp.CheckpointManager, state: Any, history: list[EpochRecord]) -> None:
    """Keep the state, a pytree, and the records after an epoch, in place of the last one's."""
    # A list of leaves, since Orbax would hand the pytree back as nested dicts.
    leaves = ocp.args.StandardSave(jax.tree.leaves(state))
    records: Any = [record._asdict() for record in history]
    args = ocp.args.Composite(leaves=leaves, history=ocp.args.JsonSave(records))
    checkpoints.save(len(history), args=args)


def restore(checkpoints: ocp.CheckpointManager, state: _State) -> tuple[_State, list[EpochRecord]]:
    """The last whole epoch's state and all records; `state` and none where there is no epoch."""
    if checkpoints.latest_step() is None:
        return state, []
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, jax.tree.leaves(state))
    leaves, records = ocp.args.StandardRestore(shapes), ocp.args.JsonRestore()
    args = ocp.args.Composite(leaves=leaves, history=records)
    restored: Any = checkpoints.restore(checkpoints.latest_step(), args=args)
    state = jax.tree.unflatten(jax.tree.structure(state), restored.leaves)
    return state, [EpochRecord(**record) for record in restored.history]
