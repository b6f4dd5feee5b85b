"""Ctrl-C: what is done so far is kept."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run was interrupted.

    Attributes:
        trace: of the draws so far; None where there are none, or where they are in a store.
        note: what was saved, and how to go on, in words.
    """

    def __init__(self, note: str, trace: Any = None):
        """Take the draws along."""
        super().__init__(note)
        self.note, self.trace = note, trace


class _Once:
    """A handler that raises at the first interrupt, and at no other: the first is being answered."""

    def __init__(self) -> None:
        self.is_heard = False

    def __call__(self, *signal_and_frame: Any) -> None:
        if not self.is_heard:
            self.is_heard = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """Let one interrupt end the body, and no further one disturb how it ends: people press Ctrl-C twice.

    Within another such body, in a thread, and where the program has a handler of its own, there is nothing to do.
    """
    before = _handler()
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _Once())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def pass_on() -> None:
    """Raise the one interrupt again, if the body goes on all the same: a callback may have swallowed it."""
    before = _handler()
    if isinstance(before, _Once) and before.is_heard:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let nothing interrupt the body, which answers an interrupt or an error already."""
    before = _handler()
    if before is None:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def holding_interrupts() -> Iterator[None]:
    """Let the body end before an interrupt is heard, for what takes moments and must not be left half done."""
    before = _handler()
    if before is None:
        yield
        return
    heard: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *signal_and_frame: heard.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard and callable(before):
        before(*heard[0])


def _handler() -> Any:
    """Return the handler of Ctrl-C; None in a thread other than the main one, which signals do not reach."""
    is_main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(signal.SIGINT) if is_main else None
