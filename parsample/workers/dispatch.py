"""Runs that wait for a lane, and those that a lane is at."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from threading import Condition, Thread
from typing import Any

import numpy as np

from parsample.workers.errors import NoWorker
from parsample.workers.lanes import Lanes, ProcessLanes, make_lanes
from parsample.workers.model import Answer, Model
from parsample.workers.rounds import Counts, Flight, Run

# Runs that take no longer are handed over together, for as many seconds, and so many at most, since the next may take
# longer than those of which the last `RECENT` or so told how long they take.
QUICK, TOGETHER, RECENT = 2e-3, 64, 32
# Seconds between two looks at whether a run has taken too long; Ctrl-C is noticed as soon.
PAUSE = 1.0


class Dispatch:
    """Gives queued runs to lanes as these become free, those in front first, and hears what becomes of them.

    Who calls holds the lock, but for `look_after`; what returns, in whichever thread, takes it itself.

    Args:
        model: what is run.
        executor: see `Workers`.
        size: runs at a time.
        timeout: seconds that a call may take.
        counts: of what is done; of its lanes there are as many.
        changed: the lock; who waits on it is told when something has returned.
        land: is called with what a lane was at and what came of it, one answer a run, the lock held.

    Attributes:
        queue: runs that have not begun.
        error: what ends everything: nothing begins while it is there.
    """

    def __init__(
        self,
        model: Model,
        executor: Any,
        size: int,
        timeout: float | None,
        counts: Counts,
        changed: Condition,
        land: Callable[[Flight, list[Answer]], None],
    ):
        """Begin with nothing to do; no lane is made."""
        self.model, self.executor, self.size, self.timeout, self.counts = model, executor, size, timeout, counts
        self.queue: deque[Run] = deque()
        self.error: Exception | None = None
        self._changed, self._land = changed, land
        self._flights: dict[Future[list[Answer]], Flight] = {}
        self._lanes: Lanes | None = None
        # What a run took lately; when the lanes were made, and the seconds that were counted by then.
        self._pace: float | None = None
        self._clock: tuple[float, float] | None = None
        self._is_feeding, self._looked = False, 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not (self._flights or self.queue)

    def feed(self) -> None:
        """Give the lanes that are free what is queued."""
        if self._is_feeding or self._lanes is None:  # A run that returns at once does not begin the next itself.
            return
        self._is_feeding = True
        try:
            while self.queue and len(self._flights) < self._lanes.size and self.error is None:
                flight = Flight(self._take(self._lanes.size - len(self._flights)))
                future = self._lanes.submit([run.position for run in flight.runs], flight.begin)
                self._flights[future] = flight
                checks = sum(run.key is None for run in flight.runs)
                self.counts.checks += checks
                self.counts.runs += len(flight.runs) - checks
                future.add_done_callback(self._hear)
        except NoWorker as error:
            self.error = error
        finally:
            self._is_feeding = False

    def start(self) -> None:
        """Make the lanes, where there are none, and start the clock."""
        if self._lanes is None:
            self._lanes = make_lanes(self.model, self.executor, self.counts.lanes, self.timeout)
        if self._clock is None:
            self._clock = time.monotonic(), self.counts.elapsed

    def let_go(self, wait: bool) -> tuple[Lanes | None, list[Flight]]:
        """Return the lanes, which the caller closes, and what they are at that nobody waits for any more."""
        lanes, self._lanes = self._lanes, None
        flights = [] if wait else list(self._flights.values())
        for flight in flights:
            flight.is_given_up = True
        return lanes, flights

    def end(self) -> None:
        """Stop the clock, and forget what went wrong."""
        self._clock, self.error = None, None

    def until_a_look(self) -> float:
        """Return the seconds until it is to be seen whether a run has taken too long, and whether anybody is there."""
        if self.timeout is None:
            return PAUSE
        waiting = [flight.seconds for flight in self._flights.values() if not flight.is_given_up]
        return min(PAUSE, max(0.0, self.timeout - max(waiting, default=0.0)) or PAUSE)

    def give_up_late(self) -> Iterator[Flight]:
        """End what takes too long, where it can be ended, and yield it; elsewhere the model gives it up itself."""
        if self.timeout is None or not isinstance(self._lanes, ProcessLanes):
            return
        late = [(future, flight) for future, flight in self._flights.items() if flight.seconds >= self.timeout]
        for future, flight in late:
            if not flight.is_given_up:
                flight.is_given_up = True
                self._lanes.stop(future)
                yield flight

    def look_after(self) -> None:
        """Look whether anybody is there to make runs.

        Without the lock: a cluster is asked by the very thread that brings what returns, and waits for the lock.
        """
        now, lanes = time.monotonic(), self._lanes
        if lanes is not None and now - self._looked >= PAUSE:
            self._looked = now
            try:
                lanes.check()
            except NoWorker as error:
                self.error = error

    def _take(self, free: int) -> list[Run]:
        """Take from the queue what one lane is given."""
        most, run = self._most(free), self.queue.popleft()
        runs = [run]
        while self.queue and len(runs) < most and not (run.is_alone or self.queue[0].is_alone):
            runs.append(self.queue.popleft())
        return runs

    def _most(self, free: int) -> int:
        """Return how many runs one lane is given: of quick ones so many that handing them over costs less than they."""
        if self.model.vectorized:
            return min(-(-self.size // self.counts.lanes), -(-len(self.queue) // free))
        return 0 if self._pace is None else min(TOGETHER, int(QUICK / max(self._pace, QUICK / TOGETHER)))

    def _hear(self, future: "Future[list[Answer]]") -> None:
        """Take what a lane brings, or have it taken: an executor that breaks may hold its locks while it says so."""
        if not future.cancelled() and isinstance(future.exception(), BrokenExecutor):
            Thread(target=self._return, args=(future,), daemon=True).start()
        else:
            self._return(future)

    def _return(self, future: "Future[list[Answer]]") -> None:
        """Take what a lane brings; whichever thread brings it."""
        with self._changed:
            flight = self._flights.pop(future)
            if self._lanes is not None:
                self._lanes.release(future)
            answers = self._answers(future, flight)
            took = sum(answer.seconds for answer in answers)
            self.counts.busy += took
            each, share = took / len(answers), len(answers) / (len(answers) + RECENT)
            self._pace = each if self._pace is None else (1 - share) * self._pace + share * each
            if self._clock is not None:
                self.counts.elapsed = self._clock[1] + time.monotonic() - self._clock[0]
            self._land(flight, answers)
            self.counts.returned += len(answers)
            self.feed()
            self._changed.notify_all()

    def _answers(self, future: "Future[list[Answer]]", flight: Flight) -> list[Answer]:
        """Return what came of the runs of a flight, whatever became of it."""
        error = RuntimeError("the executor cancelled it") if future.cancelled() else future.exception()
        if error is None:
            return future.result()
        if isinstance(error, NoWorker) and not flight.is_given_up:
            self.error = error
        share = flight.seconds / len(flight.runs)
        return [Answer(np.nan, None, share, f"{type(error).__name__}: {error}")] * len(flight.runs)
