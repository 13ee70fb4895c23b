"""Progress bars and notes on the terminal's error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

console = Console(stderr=True, highlight=False)


def notify(message: str) -> None:
    """One line for the user, beside the bars."""
    console.print(message, markup=False, soft_wrap=True)


@contextmanager
def verbosity(*, quiet: bool) -> Iterator[None]:
    """While the block runs, `quiet` keeps bars and notes off the terminal."""
    before, console.quiet = console.quiet, quiet
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def stage(name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar for one stage; the block receives a function that moves it on by a count.

    Without a `total` number of steps it shows that the work is alive, and the time.
    """
    # Without markup, which rich imports at every refresh: in the middle of an import of grain,
    # whose lazy imports take the place of Python's own in all threads, that fails.
    share = TaskProgressColumn(
        "{task.percentage:>3.0f}%", style="progress.percentage", markup=False
    )
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        *((share, MofNCompleteColumn()) if total is not None else ()),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count=1: progress.advance(task, count)
        # It has ended, though with fewer steps where some were not needed.
        done = total if total is not None else 1
        progress.update(task, total=done, completed=done)
