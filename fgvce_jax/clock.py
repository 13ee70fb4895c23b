"""Where the time goes: seconds of wall time by what they were spent on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Clock:
    """Sums the seconds of blocks of the same name.

    Attributes:
        seconds: By name, in the order in which they first came.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count a block; an error in it counts as well."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count those of another clock as well."""
        for name, more in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + more

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that is waited for them is counted."""
        iterator = iter(items)
        while True:
            with self(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def take(self) -> dict[str, float]:
        """The seconds so far, to begin anew."""
        taken, self.seconds = self.seconds, {}
        return taken
