"""The examples of the API reference run from top to bottom of a page, and give what they say."""

import doctest
import re
from pathlib import Path

import pytest

import fgvce_jax

API = Path(__file__).parents[1] / "docs" / "api"
PAGES = [page for page in sorted(API.glob("*.md")) if ">>>" in page.read_text()]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_give_what_they_say(page):
    # The fences end an example's output, as a blank line would.
    text = re.sub(r"^```\w*$", "", page.read_text(), flags=re.M)
    case = doctest.DocTestParser().get_doctest(text, {}, page.stem, str(page), 0)
    printed = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(case, out=printed.append)
    assert runner.failures == 0, "".join(printed)
    assert runner.tries > 2


def test_every_name_of_the_package_itself_has_an_example():
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"^::: fgvce_jax[\w.]*\.(\w+)\n\n```pycon", page.read_text(), re.M)
    }
    assert set(fgvce_jax.__all__) <= shown
