"""Planted problems: every image takes 3 to 8 edits, whatever kind of head and context it has."""

import jax
import numpy as np
import pytest
from tiny_transformers import tiny_transformers

from benchmarks.speed.planted import plant, planted, searching
from fgvce_jax.config import BankConfig
from fgvce_jax.heads import PoolNormLinear
from fgvce_jax.models.classifier import FeatureMap, feature_map_of


@pytest.mark.parametrize(("arch", "size"), [("vit_s_16", 48), ("dinov2_s_14", 48)])
def test_a_transformers_searches_are_real_work(arch, size, monkeypatch):
    tiny_transformers(monkeypatch)
    clf, images, labels, bank = planted(arch, 6, classes=96, image_size=size)
    out = searching(clf.head, bank, feature_map_of(clf, images), labels)()
    assert out.flipped.all()
    assert ((out.num_edits >= 3) & (out.num_edits <= 8)).all()
    np.testing.assert_array_equal(out.predicted, clf(images).argmax(-1))  # the context is its own


def test_behind_a_pool_and_a_norm():
    key, shape = jax.random.key(0), (6, 5, 5, 16)
    cells = jax.random.normal(key, shape) + 3 * jax.random.normal(jax.random.key(1), (6, 1, 1, 16))
    kernel = jax.random.normal(jax.random.key(2), (16, 96))
    head = PoolNormLinear(np.ones(16), np.zeros(16), kernel, np.zeros(96))
    config = BankConfig(per_class=5, top_m=4, sigma=0.8)
    _, _, _, edits = plant(head, FeatureMap(cells), config, 96)
    assert ((edits >= 3) & (edits <= 8)).all()
