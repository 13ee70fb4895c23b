"""An early end: a signal, a time limit, and what is in hand at that moment."""

import os
import signal
import threading
import time
from contextlib import suppress
from functools import wraps

import pytest
from ray_run import explain_digits, save_classifier_of_digits, timeless_differences

from fgvce_jax.cli import main
from fgvce_jax.errors import InputError, Stopped
from fgvce_jax.results import read_run
from fgvce_jax.run_worker import Worker
from fgvce_jax.stop import Stop

MESSAGE = "fgvce: stopped: {}; give the same command again"


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_work_where_it_is():
    done = []

    def work():
        with Stop():
            terminate()
            done.append(1)

    with pytest.raises(Stopped, match=r"^asked to end \(SIGTERM\); give"):
        work()
    assert not done


def test_nobody_who_catches_errors_takes_it_for_one():
    with pytest.raises(Stopped), Stop(), suppress(Exception):
        terminate()


def test_a_time_limit_ends_the_work_where_it_is():
    begun = time.monotonic()
    with pytest.raises(Stopped, match=r"^the time limit of 0\.2 s is over; give"), Stop(0.2):
        time.sleep(100)
    assert time.monotonic() - begun >= 0.2


def test_what_is_deferred_ends_by_itself():
    done = []

    def work():
        with Stop() as stop:
            with stop.deferred():
                terminate()
                done.append(stop.asked)
            done.append("further")

    with pytest.raises(Stopped):
        work()
    assert done == ["asked to end (SIGTERM)"]


def test_an_error_in_deferred_work_is_not_hidden():
    def work():
        with Stop() as stop, stop.deferred():
            terminate()
            raise KeyError

    with pytest.raises(KeyError):
        work()


def test_nothing_is_left_behind():
    def handler(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with Stop(60) as stop, stop.deferred():
            assert signal.getsignal(signal.SIGTERM) != handler
        assert signal.getsignal(signal.SIGTERM) is handler
        timers = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
        assert all(timer.finished.is_set() for timer in timers)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("seconds", [0, -5, float("nan"), float("inf")])
def test_a_limit_is_a_time(seconds):
    with pytest.raises(InputError, match="time_limit: expected seconds, more than 0, got"):
        Stop(seconds)


def test_a_run_finishes_the_part_in_hand_and_continues(tmp_path, monkeypatch, capsys):
    save_classifier_of_digits(tmp_path / "digits")
    arguments, folder = explain_digits(tmp_path / "digits"), tmp_path / "run"
    assert main([*arguments, "--out", str(tmp_path / "alone")]) == 0

    explain = Worker.explain

    @wraps(explain)
    def interrupted(self, number, part, **options):
        if number == 3:
            terminate()
        return explain(self, number, part, **options)

    monkeypatch.setattr(Worker, "explain", interrupted)
    assert main([*arguments, "--out", str(folder)]) == 75
    message = MESSAGE.format("asked to end (SIGTERM)")
    assert capsys.readouterr().err.strip().splitlines()[-1] == message
    assert len(list((folder / "parts").glob("part-*"))) == 4
    monkeypatch.setattr(Worker, "explain", explain)
    assert main([*arguments, "--out", str(folder)]) == 0
    assert timeless_differences(folder, tmp_path / "alone") == []
    assert read_run(folder).info["counts"]["explained"] > 20


def test_a_run_that_has_nothing_yet_leaves_nothing(tmp_path, capsys):
    save_classifier_of_digits(tmp_path / "digits")
    arguments = [*explain_digits(tmp_path / "digits"), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--time_limit", "0.001"]) == 75
    message = MESSAGE.format("the time limit of 0.001 s is over")
    assert capsys.readouterr().err.strip().splitlines()[-1] == message
    assert not (tmp_path / "run").exists()
