"""A user's own method, by its name."""

import sys

import numpy as np
import pytest
from cases import Given, samples

from fgvce_jax.errors import InputError
from fgvce_jax.key import KeyConfig
from fgvce_jax.key.explainers import EDITS, of_ones_own
from fgvce_jax.key.rows import explainer
from fgvce_jax.methods import METHODS

MODULE = """
import numpy as np
def maps(clf, images, classes):
    return np.ones((len(images), 4, 4)) * classes[:, None, None]
def asks(clf, images, classes, contrast_classes, *, bank):
    return np.full((len(images), 2, 2), contrast_classes[0] + bank)
def flat(clf, images, classes):
    return np.ones(3)
number = 5
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)  # of an earlier test
    return "my_methods"


BATCH = samples(2, predicted=np.array([3, 4]), target=np.array([7, 8]))
NETWORK = Given(None, 10)


def test_a_function_of_the_current_folder_is_asked_for_what_it_takes(module):
    found = of_ones_own(f"{module}:maps").answer(NETWORK, BATCH)
    assert found.edits is None
    np.testing.assert_array_equal(found.maps[:, 0, 0], [3, 4])
    found = of_ones_own(f"{module}:asks").answer(NETWORK, BATCH)
    assert found.maps[0, 0, 0] == 17


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:f", "expected package.module:function"),
        ("{}:nothing", "expected package.module:function"),
        ("{}:number", "expected a function, got int"),
        (":f", "expected package.module:function"),
    ],
)
def test_what_cannot_be_called(module, name, message):
    with pytest.raises(InputError, match=f"^methods {name.format(module)}: {message}"):
        of_ones_own(name.format(module))


def test_an_answer_of_another_shape_is_refused(module):
    with pytest.raises(InputError, match=r"maps \[2, m, m\] or a Counterfactual, got \[3\]"):
        of_ones_own(f"{module}:flat").answer(NETWORK, BATCH)


def test_a_changed_file_is_another_row(module, tmp_path):
    row = of_ones_own(f"{module}:maps")
    before = row.code()
    (tmp_path / "my_methods.py").write_text(MODULE + "\n# another\n")
    assert row.code() != before


def test_every_row_has_a_name():
    for name in [*METHODS, *EDITS, "oracle", "random_cells", "random_class"]:
        assert len(explainer(name, KeyConfig()).code()) == 16
    with pytest.raises(InputError, match="did you mean gradcam"):
        explainer("gradcan", KeyConfig())
