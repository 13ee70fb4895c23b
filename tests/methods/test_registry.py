import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS, explains
from fgvce_jax.methods.rise import rise


def test_a_method_is_found_by_name():
    assert METHODS["rise"] is rise
    assert len(METHODS) == len(set(METHODS)) == 18


def test_every_name_leads_to_a_jitted_function():
    for name in METHODS:
        assert isinstance(METHODS[name], type(jax.jit(abs))), name


def test_an_unknown_name_is_answered_with_the_known_ones():
    message = r"^method 'gradcan': expected one of gbp, ig, rise, .* \(did you mean gradcam\?\)$"
    for kind in (fg.InputError, KeyError):
        with pytest.raises(kind, match=message):
            METHODS["gradcan"]
    assert "gradcan" not in METHODS
    assert METHODS.get("gradcan") is None
    assert "gradcam" in METHODS


def test_what_the_maps_explain():
    of_q = [name for name in METHODS if explains(name) == "Q"]
    assert of_q == ["cve", "cve_semantic", "fgvce_dominant"]
    assert {explains(name) for name in METHODS} == {"P", "Q"}


@pytest.mark.parametrize("name", ["rise", "scorecam", "ep", "cve", "cve_semantic"])
@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_of_nothing_is_refused(name, chunk):
    model = tiny()
    images, predicted, contrast = problems(model, count=40)
    arguments, options = [images[:2], predicted[:2]], {}
    if name.startswith("cve"):
        options["bank"] = fg.build_bank(model.clf, images, predicted, per_class=2, top_m=None)
        arguments.append(contrast[:2])
    with pytest.raises(fg.InputError, match=f"chunk {chunk}: expected 1 or more"):
        METHODS[name](model.clf, *arguments, chunk=chunk, **options)


def test_an_unknown_rule_of_integration_is_answered_with_the_known_ones():
    model = tiny()
    images, predicted, _ = problems(model, count=1)
    with pytest.raises(fg.InputError, match="rule 'foo': expected one of middle, gauss_legendre"):
        METHODS["ig"](model.clf, images, predicted, rule="foo")


@pytest.mark.parametrize("name", ["ce", "scout", "cce"])
def test_sp_is_a_factor_of_the_map(name):
    """Contributions of P, clipped and divided by their maximum; without SP there is none."""
    model = tiny()
    arguments = problems(model, count=3)
    plain, sharp = (METHODS[name](model.clf, *arguments, sp_sigma=sigma) for sigma in (None, 0.8))
    weight = jnp.maximum(METHODS["contributions"](model.clf, *arguments[:2]), 0)
    weight = weight / weight.max((1, 2), keepdims=True)
    np.testing.assert_allclose(sharp, plain * weight, rtol=1e-5, atol=1e-6)
    assert np.asarray(plain).any()
