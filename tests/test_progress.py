"""Bars and notes."""

import builtins

from rich.progress import Progress

from fgvce_jax import progress


def test_a_bar_is_drawn_while_another_thread_has_replaced_pythons_import(monkeypatch):
    """As etils' lazy imports do, for all threads, which refuse relative ones."""
    bars = []
    real = Progress.start
    monkeypatch.setattr(Progress, "start", lambda self: (bars.append(self), real(self)))

    def lazy(name, globals=None, locals=None, fromlist=(), level=0):
        assert not level, name
        return imported(name, globals, locals, fromlist, level)

    with progress.stage("Reading", 4) as advance:
        advance(1)
        imported = builtins.__import__
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", lazy)
            for column in bars[0].columns:
                column(bars[0].tasks[0])
