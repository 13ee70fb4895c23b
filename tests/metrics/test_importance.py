import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import zoom
from scipy.stats import spearmanr

from fgvce_jax.metrics import logit_drops, part_sums, single_deletion

SIZE = 4


def masks():
    """Four parts of 4 x 4 pixels: the top left corner, the right half, nothing, the bottom left."""
    out = np.zeros((4, SIZE, SIZE), bool)
    out[0, :2, :2] = out[1, :, 2:] = out[3, 2:, :2] = True
    return jnp.array(out)


def test_drops_by_hand():
    logits = jnp.array([1.0, 5.0, -2.0])
    ablated = jnp.array([[9.0, 4.0, 0.0], [9.0, 5.5, 0.0], [9.0, -3.0, 0.0]])
    np.testing.assert_array_equal(logit_drops(logits, ablated, 1), [1, -0.5, 8])
    np.testing.assert_array_equal(logit_drops(logits, ablated, jnp.array(2)), [-2, -2, -2])


def test_sums_by_hand():
    # Along an axis the weights of a 2 x 2 map's second cell are 0, 1/4, 3/4 and 1.
    values = jnp.array([[0.0, 0.0], [0.0, 16.0]])
    # 16 u_i u_j: 1/4 * 1/4 in the corner; 2 * 7/4 on the right; 7/4 * 1/4 at the bottom left.
    np.testing.assert_allclose(part_sums(values, masks()), [1, 56, 0, 7], rtol=1e-6)
    np.testing.assert_allclose(part_sums(-values, masks()), [-1, -56, 0, -7], rtol=1e-6)


def test_a_map_of_pixels_is_summed_as_it_is():
    values = np.arange(16, dtype=np.float32).reshape(SIZE, SIZE)
    expected = [(values * mask).sum() for mask in np.asarray(masks())]
    np.testing.assert_allclose(part_sums(jnp.array(values), masks()), expected)


def test_single_deletion_by_hand():
    values = jnp.array([[0.0, 0.0], [0.0, 16.0]])  # 1, 56 and 7; the third part is hidden
    for drops, expected in (
        ([1, 3, 50, 2], 1),
        ([3, 1, 50, 2], -1),
        ([1, 2, -50, 3], 0.5),  # 1 3 2 against 1 2 3: 1 - 6 * 2 / (3 * 8)
        ([0, 0, 7, 5], 0),  # 1.5 1.5 3 against 1 3 2
    ):
        ours = single_deletion(jnp.array(drops, jnp.float32), values, masks())
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_single_deletion_of_a_batch():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 5, 5)).astype(np.float32)
    drops = rng.integers(-2, 3, (8, 6)).astype(np.float32)
    owner = rng.integers(0, 9, (8, 20, 20))  # three of nine are background; a part may be hidden
    owner[2:, :][owner[2:, :] == 4] = 8
    parts = owner[:, None] == np.arange(6)[:, None, None]
    ours = jax.jit(jax.vmap(single_deletion))(*map(jnp.array, (drops, values, parts)))
    for i in range(8):
        upsampled = zoom(values[i].astype(float), 4, order=1, mode="nearest", grid_mode=True)
        sums = (upsampled * parts[i]).sum((1, 2))
        seen = parts[i].any((1, 2))
        assert seen.sum() == (6 if i < 2 else 5)
        np.testing.assert_allclose(ours[i], spearmanr(drops[i][seen], sums[seen])[0], atol=1e-5)


def test_nothing_to_rank():
    values = jnp.array([[0.0, 0.0], [0.0, 16.0]])
    drops = jnp.arange(4.0)
    assert np.isnan(single_deletion(drops, values, masks().at[:3].set(False)))
    assert np.isnan(single_deletion(drops, jnp.zeros((2, 2)), masks()))
