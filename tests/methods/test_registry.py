import pytest

import fgvce_jax as fg
from fgvce_jax.methods import METHODS, find_method
from fgvce_jax.methods.rise import rise


def test_a_method_is_found_by_name():
    assert find_method("rise") is METHODS["rise"] is rise
    assert len(METHODS) == len(set(METHODS)) == 18


def test_every_name_leads_to_a_function():
    for name in METHODS:
        assert callable(METHODS[name]), name


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(fg.InputError, match=r"'gradcan'.*gbp, ig, rise.*did you mean gradcam"):
        find_method("gradcan")
    assert "gradcan" not in METHODS
