"""The networks that the documentation lists are those whose logits are held to torch's."""

import itertools
import re
from pathlib import Path

import test_convnext
import test_models
import test_vision_transformers

from fgvce_jax.models.spec import NETWORKS

PAGE = Path(__file__).parents[2] / "docs" / "classifiers.md"


def values(test, name):
    """What a test's parameter of this name takes."""
    for mark in test.pytestmark:
        names, rows = mark.args[:2]
        names = names.split(",") if isinstance(names, str) else names
        if name in names:
            place = names.index(name)
            return [row[place] if len(names) > 1 else row for row in rows]
    raise AssertionError(f"{test} has no {name}")


def held_to_torch():
    """By the tests of logits, one of each family in a file."""
    yield "resnet50"  # test_resnet50_by_torchvisions_names
    yield "efficientnet_lite0"  # test_efficientnet.py
    yield from values(test_models.test_other_resnets, "arch")
    vgg = test_models.test_vgg
    for arch, normed in itertools.product(values(vgg, "arch"), values(vgg, "normed")):
        yield f"{arch}_bn" if normed else arch
    yield from values(test_convnext.test_logits, "arch")
    yield from test_vision_transformers.FULL


def test_the_page_lists_what_is_tested():
    text = PAGE.read_text()
    table = text[text.index("| family | networks |") :]
    table = table[: table.index("\n\n")]
    listed = re.findall(r"`(\w+)`", table)
    assert len(listed) == len(set(listed))
    assert set(listed) - {"_cls"} == set(NETWORKS) == set(held_to_torch())
