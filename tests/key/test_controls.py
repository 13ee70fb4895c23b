"""The oracle, and networks that forget from the top down."""

import itertools

import jax.numpy as jnp
import networks
import numpy as np
import pytest
from cases import Given, samples

import fgvce_jax as fg
from fgvce_jax.key import Samples
from fgvce_jax.key.controls import CONTROLS, randomised
from fgvce_jax.models import named


def test_weights_are_fresh_from_the_head_down():
    clf = networks.resnet()
    before = {name: np.asarray(leaf) for name, leaf in named(clf).items()}
    stages, fresh = [], []
    for stage, other in randomised(clf):
        stages.append(stage)
        after = named(other)
        fresh.append({n for n in before if not np.array_equal(before[n], after[n])})
    assert stages == ["head", "layer3", "layer2", "layer1", "all"]
    assert fresh[0] == {"fc.kernel", "fc.bias"}
    for low, high in itertools.pairwise(fresh):
        assert low < high
    for stage, names in zip(stages[1:4], fresh[1:4], strict=True):
        assert any(name.startswith(stage) for name in names)
        lower = [s for s in stages[1:4] if s < stage]
        assert not any(name.startswith(s) for name in names for s in lower)
    assert fresh[-1] == set(before) - {"mean", "std"}
    # No branch of them is switched off by a scale of 0.
    assert all(np.asarray(leaf).any() for name, leaf in named(other).items() if "scale" in name)


def test_a_users_own_functions_have_no_stages():
    clf = fg.Classifier(lambda x: x, lambda h: h.mean((-3, -2)), 3, 4)
    with pytest.raises(fg.InputError, match="functions of the user's own"):
        next(randomised(clf))


def case(count=1):
    """Cells are the image's own pixels, 2 x 2 with 3 channels, and logits are their sums."""
    clf = fg.Classifier(lambda x: x, fg.PooledLinear(4 * jnp.eye(3), jnp.zeros(3)), 3, 2)
    image, twin = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 128  # class 0
    twin[:] = image
    twin[0, 1], twin[1, 0] = (0, 230, 0), (0, 200, 0)  # changed most, and second
    twin[1, 1, 0] = 100  # changed a little: less than half
    change = np.linalg.norm((twin - np.float32(image)) / 255, axis=-1)
    images, twins, changes = (np.repeat(x[None], count, axis=0) for x in (image, twin, change))
    batch = samples(count, n=2, images=images, twins=twins, change=changes)
    own = np.float32([np.eye(3)[k] * np.ones((2, 2, 1)) for k in range(3)])
    bank = fg.build_bank(clf, own, np.arange(3), fg.BankConfig(per_class=1, top_m=1))
    return Given(clf, bank), batch


def test_the_oracle_takes_the_twins_cells():
    network, batch = case()
    maps, edits = CONTROLS["oracle"].answer(network, batch)
    np.testing.assert_array_equal(edits.edit_cell, [[1, 2, -1, -1]])
    expected = batch.pixels.copy()
    expected[0, 0, 1], expected[0, 1, 0] = batch.twin_pixels[0, 0, 1], batch.twin_pixels[0, 1, 0]
    np.testing.assert_array_equal(edits.cells, expected)
    # 128 + 128 for class 0, 230 + 200 for class 1.
    assert (edits.num_edits[0], edits.flipped[0]) == (2, True)
    np.testing.assert_array_equal(maps, batch.change)


def test_random_cells_do_not_depend_on_the_batch():
    network, batch = case(6)
    maps, edits = CONTROLS["random_cells"].answer(network, batch)
    assert len({tuple(order) for order in maps.reshape(6, 4).tolist()}) > 1
    for i, order in enumerate(maps.reshape(6, 4)):
        assert edits.edit_cell[i, 0] == order.argmax()
        one = Samples(*(leaf[i : i + 1] for leaf in batch))
        alone = CONTROLS["random_cells"].answer(network, one).maps
        np.testing.assert_array_equal(alone[0], maps[i])


def test_candidates_of_a_random_class_are_of_neither():
    """Of three classes the one that is left; its cells never make Q the prediction."""
    network, batch = case()
    edits = CONTROLS["random_class"].answer(network, batch).edits
    replaced = np.asarray(edits.cells).reshape(-1, 3)[np.asarray(edits.edit_cell[0])]
    np.testing.assert_array_equal(replaced[0], [0, 0, 1])
    assert not edits.flipped[0]
