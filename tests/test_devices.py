"""One run on several devices of a machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from ray_run import explain_digits, save_classifier_of_digits

from fgvce_jax.cli import main
from fgvce_jax.results import read_run

ROOT = Path(__file__).parents[1]
PROGRAM = "import sys; from fgvce_jax.cli import main; raise SystemExit(main(sys.argv[1:]))"


def test_many_devices_give_what_one_gives(tmp_path):
    """A run on 4 virtual devices, with batches that do not divide evenly by them."""
    alone, many = tmp_path / "alone", tmp_path / "many"
    save_classifier_of_digits(tmp_path / "digits")
    here = [*explain_digits(tmp_path / "digits"), "--batch_size", "10"]
    assert main([*here, "--out", str(alone)]) == 0
    command = [sys.executable, "-c", PROGRAM, *here, "--out", str(many)]
    flags = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, env=flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one, four = read_run(alone), read_run(many)
    assert four.info["device"].startswith("4 x")
    exact = ["id", "target", "predicted", "flipped", "num_edits"]
    assert one.table.select(exact).equals(four.table.select(exact))
    np.testing.assert_allclose(one.maps["dominant"], four.maps["dominant"], atol=1e-5)
