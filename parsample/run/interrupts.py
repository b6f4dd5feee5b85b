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


@contextlib.contextmanager
def holding_interrupts() -> Iterator[None]:
    """Let the body end before an interrupt is heard, for what takes moments and must not be left half done.

    Signals reach the main thread alone; in another one there is nothing to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple] = []
    before = signal.signal(signal.SIGINT, lambda *signal_and_frame: heard.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard and callable(before):
        before(*heard[0])
