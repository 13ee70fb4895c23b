"""The most memory that this process held during a block, as Linux counts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def status_mib(name: str) -> float:
    """A size of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


@contextmanager
def peak_growth() -> Iterator[list[float]]:
    """A list that holds, after the block, the MiB by which memory rose above that before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, growth = status_mib("VmRSS"), []
    yield growth
    growth.append(status_mib("VmHWM") - before)
