"""Several processes as one run: each takes its share, and they wait for each other by name."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from fgvce_jax.config import DistributedConfig
from fgvce_jax.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        index: Which one it is; process 0 opens the run, builds the bank and merges the results.
        count: How many there are.
        timeout_s: How long they wait for each other, in seconds.
    """

    index: int = 0
    count: int = 1
    timeout_s: int = 300

    @property
    def primary(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0

    def share(self, items: range) -> range:
        """This process's items: every `count`-th, so that shares differ by one at most."""
        return items[self.index :: self.count]

    def wait(self, moment: str) -> None:
        """Return when every process has come to `moment`, a name used once in a run.

        Raises:
            InputError: One did not within the timeout.
        """
        if self.count == 1:
            return
        from orbax.checkpoint import multihost

        try:
            multihost.get_barrier_sync_fn()(key=moment, timeout_ms=self.timeout_s * 1000)
        except Exception as error:  # the coordination service raises types of its own
            raise InputError(
                f"process {self.index} of {self.count}: not every process came to {moment!r} "
                f"within {self.timeout_s} s; the parts written so far are whole, and running "
                f"again continues from them"
            ) from error


def join(config: DistributedConfig) -> Processes:
    """Connect to the other processes; call it before anything touches a device.

    Raises:
        InputError: Incomplete addresses, or not every process was there within the timeout.
    """
    explicit = (config.coordinator, config.num_processes, config.process_id)
    if not config.cluster and all(value is None for value in explicit):
        return Processes()
    if not config.cluster and any(value is None for value in explicit):
        raise InputError(
            "distributed: expected coordinator, num_processes and process_id together, or cluster"
        )
    # A process that dies must not take the others' results with it: they end by themselves, at
    # the next moment they wait for it.
    jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(
            *explicit,
            initialization_timeout=config.timeout_s,
            heartbeat_timeout_seconds=config.timeout_s,
            shutdown_timeout_seconds=config.timeout_s,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"distributed: not every process was there within {config.timeout_s} s "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Processes(jax.process_index(), jax.process_count(), config.timeout_s)
