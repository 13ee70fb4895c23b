"""A run killed at any moment and resumed ends with what an uninterrupted one gives."""

import pytest
import whole_split
from whole_split import Explaining, differences, kill_and_resume

from fgvce_jax.results import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole_split")
    whole_split.prepare_cub(folder, None)
    whole_split.fit_classifier(folder)
    return folder


def test_twenty_kills_change_nothing(folder):
    explaining = Explaining(folder, "--part_size=4", "--batch_size=8")
    explaining.run(folder / "whole")
    counts = read_run(folder / "whole").info["counts"]
    assert (counts["images"], counts["skipped"]) == (48, 1)
    assert counts["explained"] >= 5
    assert differences(folder / "whole", folder / "whole") == []

    seconds = explaining.run(folder / "again")  # with compiled programs at hand
    assert differences(folder / "again", folder / "whole") == []
    continued = kill_and_resume(explaining, folder / "killed", 20, seconds)
    assert continued >= 1
    assert differences(folder / "killed", folder / "whole") == []
