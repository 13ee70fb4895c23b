"""A run on a Ray cluster whose workers are killed, and what that costs.

    python tests/lost_workers.py [--lost 10] [--json FILE]

explains digits in one process, then on a cluster of three nodes of one processor each: undisturbed;
with workers that are killed (SIGKILL) one after the other at random moments of a part; with a node
that is taken away and one that is added; with a driver that is killed and started again; and with
one worker that is ten times as slow. `test_cluster.py` does so in a reduced size.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ray_run import (
    environment,
    explain_digits,
    kill_a_busy_worker,
    save_classifier_of_digits,
    three_nodes,
    timeless_differences,
    wait_for_parts,
)

from fgvce_jax.results import read_run

PAUSE_S = 1.0
IMAGES, PART = 300, 5
DRIVER = """
import sys
from functools import partial
from pathlib import Path
from fgvce_jax import run
from fgvce_jax.cli import main
from ray_run import open_slowly
slow = Path(sys.argv[2]) if sys.argv[2] else None
run.open_worker = partial(open_slowly, float(sys.argv[1]), slow=slow)
raise SystemExit(main(sys.argv[3:]))
"""


class Driver(subprocess.Popen):
    """The process of a run."""

    def check(self) -> None:
        """Wait for its end; RuntimeError where it failed."""
        if self.wait() != 0:
            raise RuntimeError(f"exit code {self.returncode}")


class Study:
    """Runs of the same images, each disturbed in its own way and compared with one process."""

    def __init__(self, folder: Path, cluster: Any):
        self.cluster, self.folder, self.alone = cluster, folder, folder / "alone"
        save_classifier_of_digits(folder / "digits")
        self.arguments = [
            *explain_digits(folder / "digits"),
            *("--limit", str(IMAGES), "--part_size", str(PART), "--quiet"),
        ]
        self.rows: list[dict[str, Any]] = []
        self.start([*self.arguments, "--out", str(self.alone)], pause=0).check()

    def start(self, arguments: list[str], pause: float = PAUSE_S, slow: str = "") -> Driver:
        """The driver of a run whose parts take `pause` seconds longer."""
        slow = str(self.folder / slow) if slow else ""
        command = [sys.executable, "-c", DRIVER, str(pause), slow, *arguments]
        return Driver(command, env=os.environ | environment(), stdout=subprocess.DEVNULL)

    def measure(
        self, name: str, disturb: Callable[[Path, Driver], None] | None = None, slow: str = ""
    ) -> None:
        """Add a row: a run in which `disturb` happens, and which is started again if it ends it."""
        out = self.folder / name.replace(" ", "-")
        there = [*self.arguments, "--ray", self.cluster.address, "--out", str(out)]
        driver = self.start(there, slow=slow)
        wait_for_parts(driver, out, 1)
        begun = time.perf_counter()
        if disturb is not None:
            disturb(out, driver)
        if driver.poll() == -signal.SIGKILL:
            driver = self.start(there)
        driver.check()
        seconds, info = time.perf_counter() - begun, read_run(out).info
        differences = timeless_differences(out, self.alone)
        row = {"name": name, "workers": info["workers"], "seconds": seconds}
        self.rows.append(row | {"differences": differences})
        print(self.rows[-1])


def kill_workers(out: Path, driver: Driver, count: int) -> None:
    """Kill a busy worker `count` times, each after another two parts and a moment of a part."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        done = len(list((out / "parts").glob("part-*")))
        wait_for_parts(driver, out, min(done + 2, IMAGES // PART - 1))
        time.sleep(rng.uniform(0, PAUSE_S))
        kill_a_busy_worker(driver)


def main() -> None:
    """Do it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lost", type=int, default=10, help="Workers that are killed.")
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    options = parser.parse_args()

    def exchange_nodes(out: Path, driver: Driver) -> None:
        wait_for_parts(driver, out, 10)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        wait_for_parts(driver, out, 25)
        cluster.add_node(num_cpus=1)

    def kill_driver(out: Path, driver: Driver) -> None:
        wait_for_parts(driver, out, 20)
        driver.kill()
        driver.wait()

    with tempfile.TemporaryDirectory() as folder, three_nodes() as cluster:
        study = Study(Path(folder), cluster)
        study.measure("undisturbed")
        study.measure(
            f"{options.lost} workers killed", lambda *run: kill_workers(*run, options.lost)
        )
        study.measure("one node taken away, one added", exchange_nodes)
        study.measure("the driver killed, and started again", kill_driver)
        study.measure("one worker ten times as slow", slow="slow")
        counts = read_run(study.alone).info["counts"]
    if options.json:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from benchmarks.provenance import stamp

        figures = {
            "provenance": stamp(),
            "counts": counts,
            "parts": IMAGES // PART,
            "pause_s": PAUSE_S,
            "lost": options.lost,
            "share_s": 10 * PAUSE_S * IMAGES / PART / 3,
            "runs": study.rows,
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(any(row["differences"] for row in study.rows))


if __name__ == "__main__":
    main()
