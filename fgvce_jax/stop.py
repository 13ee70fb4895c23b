"""An early end that was asked for, by SIGTERM (a scheduler wants its machine back) or by a time
limit. What is in hand is finished first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fgvce_jax.errors import InputError, Stopped


class Stop:
    """Turns SIGTERM, and the end of a time limit, into `Stopped` while its `with` block runs.

    It is raised where the program stands, or at the end of the `deferred` block that it is in.
    Outside the main thread, to which signals belong, nothing is ever asked for.

    Attributes:
        asked: Why the program should end; None as long as it may go on.
    """

    def __init__(self, time_limit: float | None = None):
        """`time_limit` is in seconds from the start of the `with` block; None for no limit."""
        if time_limit is not None and not 0 < time_limit < threading.TIMEOUT_MAX:
            raise InputError(f"time_limit: expected seconds, more than 0, got {time_limit}")
        self._limit, self.asked = time_limit, None
        self._over = self._deferred = False
        self._timer: threading.Timer | None = None
        self._before: Any = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
            if self._limit is not None:
                self._timer = threading.Timer(self._limit, self._on_time)
                self._timer.daemon = True
                self._timer.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the block end in its own way; it looks at `asked` between two pieces of work."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self._raise()

    def _on_time(self) -> None:
        self._over = True
        os.kill(os.getpid(), signal.SIGTERM)  # an exception has to come from the main thread

    def _on_signal(self, number: int, frame: Any) -> None:
        over = f"the time limit of {self._limit} s is over"
        self.asked = over if self._over else "asked to end (SIGTERM)"
        if not self._deferred:
            self._raise()

    def _raise(self) -> None:
        if self.asked:
            raise Stopped(f"{self.asked}; give the same command again")
