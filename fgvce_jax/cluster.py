"""A pool of workers on a Ray cluster: each takes the next task when it is free, and one that is
lost is replaced while others do its task.

A worker is an object of any class in a process of its own, a Ray actor; the pool does not know what
it does. Its tasks must be free to be done twice.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from textwrap import shorten
from typing import Any

import jax

from fgvce_jax.config import RayConfig
from fgvce_jax.errors import InputError, MissingPackage, Unfinished
from fgvce_jax.progress import notify
from fgvce_jax.stop import Stop
from fgvce_jax.workers import Key, Task

_TRIES = 5  # workers that a task may lose: it may be the task that ends them
_STRAGGLER = 3.0  # times the mean of the others, after which a second worker may try a task
_POLL_S = 0.5
_PATIENCE_S = 30.0
_LOST = object()  # in the place of a result


@contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """Be the driver of a Ray cluster while the block runs; "local" starts one on this machine.

    The driver leaves accelerators to the workers: from here on JAX uses the CPU in this process, if
    it has not used anything yet.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # Ray's messages on our output
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("ray", "ray", "ray") from error
    jax.config.update("jax_platforms", "cpu")
    with _own_signals():
        try:
            _reach(config.address or "")
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, OverflowError) as error:
            why = str(error).strip().split("\n", maxsplit=1)[0]
            raise InputError(f"ray {config.address}: cannot connect ({why})") from error
    try:
        yield
    finally:
        with _own_signals():
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Undo what Ray does in the block about SIGTERM, which would end the driver at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Actor:
    """The process that holds a worker."""

    def open(self, make: Callable[[], Any]) -> None:
        self._worker = make()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._worker, method)(*arguments)


class _Job:
    """A task on its way, compared by identity.

    Attributes:
        key: The caller's name for it.
        starts: Whether it is to start a worker, and no task.
        arguments: Of the call.
        workers: How many have it now.
        lost: How many were lost with it.
        since: When it was handed out last, on the monotonic clock.
    """

    def __init__(self, key: Any, arguments: tuple[Any, ...] | None = None):
        self.key, self.starts, self.arguments = key, arguments is None, arguments or ()
        self.workers = self.lost = 0
        self.since = 0.0


class Pool:
    """Workers on the cluster that this process is `connected` to.

    There are as many as the config asks for, or as the cluster has room for: more when machines
    join, fewer when they leave.
    """

    def __init__(self, make: Callable[[], Any], config: RayConfig, stop: Stop, most: int):
        """Start up to `most` workers.

        `make` makes a worker, in the worker's process. It is sent once, and kept in the object
        store of each machine.
        """
        import ray

        self._ray, self._stop = ray, stop
        gpus = config.gpus_per_worker
        if gpus is None:
            gpus = int(any(node["Resources"].get("GPU") for node in ray.nodes()))
        self._needs = {"CPU": config.cpus_per_worker, "GPU": gpus}
        self._actor = ray.remote(num_cpus=config.cpus_per_worker, num_gpus=gpus)(_Actor)
        self._asked, self._most = config.workers, most
        self._make = ray.put(make)
        self._setup: list[tuple[Any, ...]] = []
        self._free: deque[Any] = deque()
        self._busy: dict[Any, tuple[Any, _Job]] = {}  # by the reference to the result
        self._failed = 0  # starts in a row
        self._looked = self._ready = time.monotonic()
        self._grow(self._room())

    def everywhere(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a method, which must not fail, of every worker, and of those to come."""
        call = (method.__name__, *map(self._ray.put, arguments))
        self._setup.append(call)
        for actor in [*self._free, *(actor for actor, _ in self._busy.values())]:
            actor.call.remote(*call)

    def map(
        self,
        method: Callable[..., Any],
        tasks: Mapping[Key, Task],
        advance: Callable[[int], None],
    ) -> Iterator[tuple[Key, Any]]:
        """Each task's key and what a worker's method returned for it, as they come.

        Where `stop` asks for it, the tasks that no worker has begun are left out.

        Raises:
            InputError: A worker raised it.
            Unfinished: A task lost too many workers, or too many could not start.
        """
        # Those that are not done, in their order.
        jobs = dict.fromkeys(_Job(key, task.arguments) for key, task in tasks.items())
        waiting, times = deque(jobs), []
        while jobs:
            if self._stop.asked:
                waiting.clear()
                if not any(job.workers for job in jobs):
                    return
            else:
                self._keep_up()
                self._hand_out(method.__name__, jobs, waiting, times)
            job, result = self._next_result()
            if job not in jobs:  # none, or one that another worker was faster with
                continue
            if job.workers == 0 and result is _LOST:
                waiting.append(job)
            elif result is not _LOST:
                del jobs[job]
                times.append(time.monotonic() - job.since)
                advance(tasks[job.key].size)
                yield job.key, result

    def _hand_out(
        self, method: str, jobs: Mapping[_Job, None], waiting: deque[_Job], times: list[float]
    ) -> None:
        """Give every free worker a job; once none waits, one that has been on its way for long."""
        while self._free:
            if waiting:
                job = waiting.popleft()
            else:
                long_ago = time.monotonic() - _STRAGGLER * sum(times) / max(len(times), 1)
                slow = (job for job in jobs if job.workers == 1 and job.since < long_ago)
                job = next(slow, None) if times else None
                if job is None:
                    return
            actor = self._free.popleft()
            self._give(actor, job, actor.call.remote(method, *job.arguments))

    def _give(self, actor: Any, job: _Job, result: Any) -> None:
        job.workers += 1
        job.since = time.monotonic()
        self._busy[result] = actor, job

    def _next_result(self) -> tuple[_Job | None, Any]:
        """The next job that has ended, and its result or `_LOST`; None after a while without."""
        ready, _ = self._ray.wait(list(self._busy), timeout=_POLL_S)
        if not ready:
            return None, None
        actor, job = self._busy.pop(ready[0])
        job.workers -= 1
        self._ready = time.monotonic()
        errors = self._ray.exceptions
        try:
            result = self._ray.get(ready[0])
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, InputError) else error) from None
        except errors.RayError as error:
            self._lose(actor, job, shorten(str(error).strip().split("\n")[-1], 200))
            return job, _LOST
        if job.starts:
            self._failed = 0
        self._free.append(actor)
        return job, result

    def _lose(self, actor: Any, job: _Job, why: str) -> None:
        """Forget a worker; Unfinished where it is not the first one to be lost in this way."""
        with suppress(Exception):
            self._ray.kill(actor)  # one that is merely out of reach
        job.lost += 1
        self._failed += job.starts
        if not job.starts and job.lost >= _TRIES:
            raise Unfinished(f"ray: {job.lost} workers were lost with the same part ({why})")
        if self._failed >= _TRIES + len(self._free) + len(self._busy):
            raise Unfinished(f"ray: {self._failed} workers in a row could not start ({why})")
        notify(f"a worker is lost and replaced ({why})")

    # --- how many workers -----------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Replace workers that are lost, and use machines that have come."""
        now = time.monotonic()
        working = self._free or any(not job.starts for _, job in self._busy.values())
        if not working and now - self._ready > _PATIENCE_S:
            needs = " and ".join(f"{n:g} {name}" for name, n in self._needs.items() if n)
            notify(f"no worker has started yet; each needs a machine with {needs} free")
            self._ready = float("inf")
        if not self._busy or now - self._looked > 1:
            self._looked = now
            self._grow(self._room())

    def _room(self) -> int:
        """How many workers the machines of the cluster hold now; or that were asked for."""
        if self._asked is not None:
            return self._asked
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = {name: n for name, n in self._needs.items() if n}
        return sum(
            int(min((have.get(name, 0) // n for name, n in needs.items()), default=1))
            for have in alive
        )

    def _grow(self, room: int) -> None:
        """Start workers up to `room`; at least one waits for a machine to come."""
        for _ in range(min(max(room, 1), self._most) - len(self._free) - len(self._busy)):
            actor = self._actor.remote()
            self._give(actor, _Job(None), actor.open.remote(self._make))
            for call in self._setup:
                actor.call.remote(*call)
