"""JAX's compiled programs: kept between commands, and listed where that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from fgvce_jax.files import user_cache
from fgvce_jax.progress import notify

_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"
_LONG_S = 0.5


def cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder, so that a second run starts quickly."""
    logging.getLogger("jax").setLevel(logging.ERROR)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@contextmanager
def note_compilations() -> Iterator[None]:
    """Note each program whose compilation takes over half a second, and in the end all of them."""
    seconds: list[float] = []
    loaded: list[str] = []

    def on_duration(event: str, duration_secs: float, **details: Any) -> None:
        if event != _COMPILED:
            return
        seconds.append(duration_secs)
        if duration_secs > _LONG_S:
            notify(f"{details.get('fun_name', 'a program')}: compiled in {duration_secs:.1f} s")

    def on_event(event: str, **details: Any) -> None:
        if event == _FROM_CACHE:
            loaded.append(event)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
        notify(
            f"JAX {jax.__version__}: {len(seconds)} programs in {sum(seconds):.1f} s, "
            f"{len(loaded)} of them from {jax.config.values['jax_compilation_cache_dir']}"
        )
