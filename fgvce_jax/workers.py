"""Work that comes in pieces, and the worker of this process that does them one after the other.

`cluster.Pool` has the same two functions and many workers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from fgvce_jax.stop import Stop

Key = TypeVar("Key", bound=Hashable)


class Task(NamedTuple):
    """One call of a worker's method.

    Attributes:
        arguments: Of the method.
        size: How far the whole task moves a progress bar.
    """

    arguments: tuple[Any, ...]
    size: int


class Here:
    """A single worker, in this process."""

    def __init__(self, worker: Any, stop: Stop):
        self._worker, self._stop = worker, stop

    def everywhere(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a method of the worker."""
        getattr(self._worker, method.__name__)(*arguments)

    def map(
        self,
        method: Callable[..., Any],
        tasks: Mapping[Key, Task],
        advance: Callable[[int], None],
    ) -> Iterator[tuple[Key, Any]]:
        """Each task's key and what the worker's method returns for it, in order.

        The method gets `advance` as well, to move a progress bar on in its own steps. Where `stop`
        asks for it, the tasks that are left are not begun.
        """
        for key, task in tasks.items():
            if self._stop.asked:
                return
            yield key, getattr(self._worker, method.__name__)(*task.arguments, advance=advance)
