"""Work that never ends by itself ends in time, and a timer of the caller's goes on."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netlab.linux.deadlines import within


@contextmanager
def alarm(seconds: float) -> Iterator[list[int]]:
    """A timer of the caller's, and what it has brought."""
    heard: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda number, _frame: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield heard
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+$", "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b", r"(\w+\s?)+$", r"([^\n]*)*l"]
)
def test_a_regular_expression_that_goes_back_for_ever_is_ended(pattern: str) -> None:
    former = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match=r"it takes longer than 0\.1 s"), within(0.1):
        re.search(pattern, "a" * 5000 + "!")
    assert signal.getsignal(signal.SIGALRM) is former
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_ends_in_time_is_left_alone() -> None:
    with within(60.0):
        assert re.search("b", "ab")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_error_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError), within(60.0):
        _ = 1 / 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_timer_of_the_callers_goes_on() -> None:
    with alarm(60.0) as heard:
        with within(30.0):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60.0
    assert heard == []


def test_a_timer_of_the_callers_that_was_over_meanwhile_comes_at_once() -> None:
    with alarm(0.05) as heard:
        with pytest.raises(TimeoutError), within(0.2):
            while True:
                pass
        if not heard:
            signal.pause()
        assert heard == [signal.SIGALRM]
