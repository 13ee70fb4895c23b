import jax.numpy as jnp
import numpy as np
import pytest
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.rise import rise


def test_a_method_is_found_by_name():
    assert METHODS["rise"].load() is rise
    assert len(METHODS) == len(set(METHODS)) == 23
    assert [method.name for method in METHODS.values()] == list(METHODS)


def test_every_method_is_called_alike(case):
    """Whatever it needs: what it does not need is not taken."""
    model, images, predicted, contrast, best, all_cells = case
    options = {"rise": {"num_masks": 8}, "ep": {"iterations": 2}}
    for name, method in METHODS.items():
        if name in (
            "gbp",
            "fgcam",
            "calm",
            "legrad",
            "rollout",
        ):  # they want a network of this package's layers
            continue
        bank = all_cells if "all_cells" in method.needs else best
        maps = method(
            model.clf, images[:2], predicted[:2], contrast[:2], bank=bank, **options.get(name, {})
        )
        direct = {"contrast_classes": contrast[:2]} if "contrast" in method.needs else {}
        if method.needs - {"contrast"}:
            direct["bank"] = bank
        own = method.load()(model.clf, images[:2], predicted[:2], **direct, **options.get(name, {}))
        np.testing.assert_array_equal(maps, own, err_msg=name)


@pytest.fixture(scope="module")
def case():
    model = tiny()
    images, predicted, contrast = problems(model, count=40)
    best = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=3))
    every = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=None))
    return model, images, predicted, contrast, best, every


@pytest.mark.parametrize("name", [n for n, method in METHODS.items() if method.needs])
def test_what_a_method_needs_is_named(name, case):
    model, images, predicted, contrast, best, _ = case
    with pytest.raises(fg.InputError, match=f"^{name}: expected contrast_classes"):
        METHODS[name](model.clf, images[:2], predicted[:2])
    if METHODS[name].needs - {"contrast"}:
        with pytest.raises(fg.InputError, match=f"^{name}: expected a bank of"):
            METHODS[name](model.clf, images[:2], predicted[:2], contrast[:2])
    if "all_cells" in METHODS[name].needs:
        with pytest.raises(fg.InputError, match=f"^{name}: expected a bank of all cells, built"):
            METHODS[name](model.clf, images[:2], predicted[:2], contrast[:2], bank=best)


def test_an_unknown_option_is_answered_with_the_known_ones(case):
    model, images, predicted, contrast, *_ = case
    message = r"^scout: unknown option 'sp'; expected reading, sp_sigma$"
    with pytest.raises(fg.InputError, match=message):
        METHODS["scout"](model.clf, images[:2], predicted[:2], contrast[:2], sp=0.8)


def test_an_unknown_name_is_answered_with_the_known_ones():
    message = r"^method 'gradcan': expected one of gbp, ig, rise, .* \(did you mean gradcam\?\)$"
    for kind in (fg.InputError, KeyError):
        with pytest.raises(kind, match=message):
            METHODS["gradcan"]
    assert "gradcan" not in METHODS
    assert METHODS.get("gradcan") is None
    assert "gradcam" in METHODS


def test_which_class_the_maps_explain():
    of_q = [name for name, method in METHODS.items() if method.explains == "Q"]
    assert of_q == ["cve", "cve_semantic", "fgvce_dominant", "fgvce_matched_dominant"]
    assert {method.explains for method in METHODS.values()} == {"P", "Q"}


@pytest.mark.parametrize("name", ["rise", "scorecam", "ep", "cve", "cve_semantic"])
@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_of_nothing_is_refused(name, chunk):
    model = tiny()
    images, predicted, contrast = problems(model, count=40)
    arguments, options = [images[:2], predicted[:2]], {}
    if name.startswith("cve"):
        options["bank"] = fg.build_bank(
            model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=None)
        )
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
