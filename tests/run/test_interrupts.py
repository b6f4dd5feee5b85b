"""Ctrl-C: the first ends a run, the next ones do not disturb how it ends."""

import signal
import threading
from typing import Any

import pytest

from parsample.run.interrupts import holding_interrupts, ignoring_interrupts, one_interrupt, pass_on


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_only_the_first_is_heard_and_the_handler_returns() -> None:
    before = signal.getsignal(signal.SIGINT)
    with one_interrupt():
        with pytest.raises(KeyboardInterrupt):
            press()
        press()
        with one_interrupt():  # within another it is the same body
            press()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        press()


def test_one_that_was_swallowed_is_raised_again() -> None:
    with one_interrupt():
        pass_on()
        with pytest.raises(KeyboardInterrupt):
            press()
        with pytest.raises(KeyboardInterrupt):
            pass_on()
    pass_on()


def test_a_handler_of_the_program_stays() -> None:
    heard: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with one_interrupt():
            press()
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1, 1]


def test_ignored_and_held() -> None:
    with ignoring_interrupts():
        press()
    done = []

    def work() -> None:
        with holding_interrupts():
            press()
            press()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]


def test_in_a_thread_there_is_nothing_to_do() -> None:
    done = []

    def work() -> None:
        with one_interrupt(), holding_interrupts(), ignoring_interrupts():
            pass_on()
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
