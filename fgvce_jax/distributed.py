"""Several processes as one run: they meet once, then each writes its share of the parts.

JAX's coordination service ends every process that is connected to it with a crash report when one
of them dies. So the processes are connected only until the run's folder is open. After that each
writes its own parts there, gives signs of life, and watches the folder.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from fgvce_jax.config import DistributedConfig
from fgvce_jax.errors import InputError, Unfinished


@dataclass(frozen=True)
class Processes:
    """This process, `index` among `count` that wait for each other up to `timeout_s` seconds.

    Process 0 opens the run and puts the results together.
    """

    index: int = 0
    count: int = 1
    timeout_s: float = 300

    @property
    def primary(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0

    def share(self, items: range) -> range:
        """This process's items: every `count`-th, so that shares differ by one at most."""
        return items[self.index :: self.count]

    def disconnect(self) -> None:
        """Return when every process has come here, each on its own from now on."""
        if self.count > 1:
            with _deadline(self.timeout_s):
                jax.distributed.shutdown()  # a barrier, by default

    @contextmanager
    def alive(self, folder: Path) -> Iterator[None]:
        """While the block runs, the others can see in `folder` that this process does."""
        if self.count == 1:
            yield
            return
        sign, over = folder / f".process-{self.index}.tmp", threading.Event()

        def beat() -> None:
            while not over.wait(self.timeout_s / 4):
                sign.touch()

        sign.touch()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            sign.unlink(missing_ok=True)

    def wait_for_parts(self, folder: Path, done: Callable[[], frozenset[int]], count: int) -> None:
        """Return when all parts are there; Unfinished where their processes fall silent."""
        everything = frozenset(range(count))
        others = [i for i in range(self.count) if i != self.index]
        if missing := self._watch(folder, lambda: everything - done(), others):
            raise Unfinished(
                f"distributed: no sign of life within {self.timeout_s:g} s and {len(missing)} of "
                f"{count} parts are missing, from part {min(missing)} (process "
                f"{min(missing) % self.count} of {self.count})"
            )

    def wait_for_results(self, folder: Path, finished: Callable[[], bool]) -> None:
        """Return when process 0 has put the parts together; Unfinished where it falls silent."""
        if self._watch(folder, lambda: not finished(), [0]):
            raise Unfinished(
                f"distributed: no sign of life within {self.timeout_s:g} s of the process that "
                f"puts the parts together (process 0 of {self.count})"
            )

    def _watch(self, folder: Path, missing: Callable[[], Any], watched: Sequence[int]) -> Any:
        """The result of `missing` once it is false or the watched processes are silent."""

        def look() -> tuple[Any, list[float]]:
            signs = []
            for i in watched:
                with suppress(FileNotFoundError):  # also where its process removes it just now
                    signs.append((folder / f".process-{i}.tmp").stat().st_mtime)
            return missing(), signs

        seen, since = look(), time.monotonic()
        while seen[0] and time.monotonic() - since <= self.timeout_s:
            time.sleep(0.1)
            if (now := look()) != seen:
                seen, since = now, time.monotonic()
        return seen[0]


def join(config: DistributedConfig) -> Processes:
    """Connect to the other processes; call it before anything touches a device.

    A process that is not there within the timeout ends this one, with exit code 2.
    """
    explicit = (config.coordinator, config.num_processes, config.process_id)
    if not config.cluster and None in explicit:
        if explicit == (None, None, None):
            return Processes()
        raise InputError(
            "distributed: expected coordinator, num_processes and process_id together, or cluster"
        )
    with _deadline(config.timeout_s):
        jax.distributed.initialize(
            *explicit,
            # Longer than the deadline, which ends the process in better words.
            initialization_timeout=config.timeout_s + 60,
            shutdown_timeout_seconds=config.timeout_s + 60,
        )
        return Processes(jax.process_index(), jax.process_count(), config.timeout_s)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End the process, with exit code 2 and a line of explanation, if the block takes longer.

    JAX itself ends it with a crash report when its own timeout runs out, and nothing that the
    block could catch.
    """

    def give_up() -> None:
        why = f"distributed: not every process was there within {seconds:g} s"
        print(f"fgvce: error: {why}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
