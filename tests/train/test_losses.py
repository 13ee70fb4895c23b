from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import SIZE, arrays, tiny_classifier

from fgvce_jax.train.step import cross_entropy, through_backbone, trainable


def test_cross_entropy_by_hand():
    tiny = tiny_classifier()
    images = jax.random.uniform(jax.random.key(0), (6, SIZE, SIZE, 3))
    labels = jnp.array([0, 1, 2, 0, 1, 1])
    loss = through_backbone(partial(cross_entropy, label_smoothing=0.3))
    loss, (moved, logits) = loss(tiny, images, labels)
    logits = np.float64(logits)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.full((6, 3), 0.1) + 0.7 * np.eye(3)[labels]
    assert float(loss) == pytest.approx(-(targets * log_p).sum(-1).mean(), rel=1e-5)
    before, after = arrays(tiny.features.stats), arrays(moved.features.stats)
    assert all(not np.allclose(a, b) for a, b in zip(before, after, strict=True))
    for a, b in zip(arrays(trainable(tiny)), arrays(trainable(moved)), strict=True):
        np.testing.assert_array_equal(a, b)
