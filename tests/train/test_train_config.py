import pytest

from fgvce_jax.errors import InputError
from fgvce_jax.train import TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"warmup_epochs": 11.0},
        {"weight_decay": -0.1},
        {"label_smoothing": 1.0},
        {"head": "calm"},
        {"optimizer": "lion"},
        {"milestones": (6, 3)},
        {"milestones": (0,)},
        {"seed": -1},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainConfig(**wrong)
