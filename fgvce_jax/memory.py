"""How much memory a compiled program needs, and how much there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax


def program_bytes(compiled: Any) -> int:
    """Bytes of a compiled program on one device: arguments, results and temporaries."""
    analysis = compiled.memory_analysis()
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def available_bytes() -> int | None:
    """Bytes free for a program on the first local device; None where that is not known.

    An accelerator's own limit; for a CPU the machine's available memory.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
