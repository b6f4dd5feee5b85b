"""A run in the background, which can be looked at, paused and stopped."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, cast

import jax

from parsample.results.trace import Trace
from parsample.run.interrupts import Interrupted
from parsample.run.progress import Event, showing


class Running:
    """A run that `parsample.sample(..., blocking=False)` has begun; its draws are those of a run that is waited for.

    It is asked to pause and to stop where it tells how far it is: between segments, and in warm-up every few steps.
    Ctrl-C interrupts who waits, not the run. Where the program ends first, the run is stopped.
    """

    def __init__(
        self, run: Callable[[Any], Trace], look: Callable[[], Trace | None], progress: Any, totals: dict[str, int]
    ):
        """Begin.

        Args:
            run: (progress) -> the trace.
            look: () -> the trace so far, or None.
            progress: as for `parsample.sample`.
            totals: stage -> its steps.
        """
        self._run, self._look = run, look
        # Begun in this thread, so that a notebook shows it in the cell that called.
        self._stack = contextlib.ExitStack()
        self._show = self._stack.enter_context(showing(progress, totals))
        self._going, self._stopping = threading.Event(), False
        self._going.set()
        self._event: Event | None = None
        self._trace: Trace | None = None
        self._error: BaseException | None = None
        # What JAX and NumPy were told in this thread holds in the other one, too.
        context, config = contextvars.copy_context(), cast(Any, jax.config)
        self._x64, self._device = config.jax_enable_x64, config.jax_default_device
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="parsample", daemon=True)
        atexit.register(self._end)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._stack, jax.enable_x64(self._x64), jax.default_device(self._device):
                self._trace = self._run(self._hear)
        except BaseException as error:  # it belongs to whoever waits
            self._error = error
        finally:
            atexit.unregister(self._end)

    def _hear(self, event: Event) -> None:
        """Take down how far the run is, wait while it is paused, and end it as Ctrl-C would."""
        self._event = event
        self._show(event)
        self._going.wait()
        if self._stopping and not (event.stage == "sampling" and event.done >= event.total):
            raise KeyboardInterrupt

    def _end(self) -> None:
        with contextlib.suppress(BaseException):
            self.stop()

    @property
    def progress(self) -> Event | None:
        """How far it is: the last event, None before the first."""
        return self._event

    @property
    def is_running(self) -> bool:
        """Whether it is not over; a paused run is not."""
        return self._thread.is_alive()

    @property
    def is_paused(self) -> bool:
        """Whether it was asked to pause."""
        return self.is_running and not self._going.is_set()

    @property
    def trace(self) -> Trace | None:
        """The trace of a run that is over, None before; raises what the run raised."""
        return None if self.is_running else self._result()

    def pause(self) -> None:
        """Let the run rest after the segment that it is in. The seconds of `until` go on."""
        self._going.clear()

    def resume(self) -> None:
        """Let it go on."""
        self._going.set()

    def look(self) -> Trace | None:
        """Return the draws so far as a trace, None where there are none; the run goes on.

        Groups that are made of all draws, such as `log_likelihood`, are not in it.
        """
        return self._look() if self.is_running else self._result()

    def stop(self) -> Trace | None:
        """End the run after the segment that it is in, and return the draws so far, None where there are none.

        Raises:
            Exception: what the run raised.
        """
        self._stopping = True
        self._going.set()
        self._thread.join()
        return self._result()

    def wait(self, timeout: float | None = None) -> Trace:
        """Wait for the end, and return the trace.

        Args:
            timeout: seconds; None for as long as it takes.

        Raises:
            TimeoutError: it is not over by then; it goes on.
            Exception: what the run raised.
        """
        self._thread.join(timeout)
        if self.is_running:
            raise TimeoutError(f"the run is not over after {timeout:g} s and goes on; wait again, or stop() it.")
        return self._result()

    def _result(self) -> Any:
        if isinstance(self._error, Interrupted) and self._stopping:
            return self._look() if self._error.trace is None else self._error.trace
        if self._error is not None:
            raise self._error
        return self._trace

    def __repr__(self) -> str:
        """Say how far it is."""
        state = "paused" if self.is_paused else "running" if self.is_running else "over"
        return f"<parsample run, {state}: {self._event.line() if self._event else 'not begun'}>"
