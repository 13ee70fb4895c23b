import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import fgvce_jax as fg
from fgvce_jax.methods.scores import pick
from fgvce_jax.metrics import score


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_shapes_are_held_within_a_signature(wrap):
    values = jnp.ones((2, 3))
    assert wrap(pick)(values, jnp.zeros(2, int)).shape == (2,)
    with pytest.raises(TypeCheckError, match="classes"):
        wrap(pick)(values, jnp.zeros(3, int))
    with pytest.raises(TypeCheckError, match="classes"):
        wrap(pick)(values, jnp.zeros(2))


def test_a_sum_of_axes_is_held():
    with pytest.raises(TypeCheckError):
        score(jnp.zeros(4), jnp.zeros(5))


def test_a_pytree_may_hold_anything():
    head = fg.PooledLinear(jnp.ones((2, 3)), jnp.zeros(3))
    assert jax.tree.map(jnp.shape, head).kernel == (2, 3)
    assert jax.vmap(lambda h, cells: h(cells), (None, 0))(head, jnp.ones((5, 4, 4, 2))).shape == (
        5,
        3,
    )
