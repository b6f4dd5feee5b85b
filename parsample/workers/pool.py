"""A plain Python function at many positions, on as many workers as there are, and never twice at the same position."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Condition
from typing import Any

import numpy as np
from jaxtyping import Bool

from parsample.workers import differences, errors
from parsample.workers.arguments import check_arguments
from parsample.workers.dispatch import Dispatch
from parsample.workers.errors import Mistake
from parsample.workers.lanes import check_executor, count_lanes, is_here, pack
from parsample.workers.memory import Found, Memory
from parsample.workers.model import Answer, Model, Position
from parsample.workers.rounds import Counts, Flight, Gradients, Round, Run, show

# A position that is run again may give a number as far off, relative to the larger of 1 and its size: what solvers on
# several threads differ by.
SAME = 1e-6


class Workers:
    """Runs a model at positions, in rounds.

    Args:
        simulate: `simulate(position)`, the position a dict of NumPy arrays, to the log density, or with `gradient=True`
            to it and its gradient, a dict like the position. The same position must give the same number.
        template: a position: names, shapes and dtypes.
        gradient: True where `simulate` returns one; "finite_differences" for two further runs for each number of the
            position, in the same round, or a dict of how far they go by name (for "finite_differences", 1e-4 of the
            number or of 1, whichever is larger); None for none.
        executor: "processes" or None for worker processes of our own, "threads", or any
            `concurrent.futures.Executor`: of Dask, of mpi4py, of Ray. A vectorized function is called in this process,
            where nothing is said.
        workers: runs at a time; None for what the executor has, the cores, or for a vectorized function 128 a call.
        vectorized: whether `simulate` takes many positions at once, every array with an axis in front, and returns as
            many log densities.
        timeout: seconds that one call may take, then it is a failure. Processes of our own are ended; elsewhere the
            call is left behind in a thread of the worker.
        retries: how often a run that fails is tried again.
        on_error: "raise" ends the run at a failure, "reject" has it count as outside of the support.
        memory: finished runs; None for those of this object.

    Attributes:
        size: runs at a time.
        counts: of everything so far.
        watch: is called by whoever waits, where there is news and about once a second.

    Raises:
        ValueError: an argument is not what it should be, or the function cannot be sent to where it is to run.
    """

    def __init__(
        self,
        simulate: Any,
        template: Mapping[str, Any],
        *,
        gradient: Any = None,
        executor: Any = None,
        workers: Any = None,
        vectorized: bool = False,
        timeout: Any = None,
        retries: Any = 0,
        on_error: Any = "raise",
        memory: Memory | None = None,
    ):
        """Check the arguments; nothing is started or run."""
        self.template = {name: np.asarray(leaf) for name, leaf in template.items()}
        check_arguments(simulate, self.template, gradient, workers, timeout, retries, on_error)
        steps: Mapping[str, Any] | None = None
        if isinstance(gradient, str | Mapping):
            steps = differences.check_steps({} if isinstance(gradient, str) else gradient, self.template)
        self._gradients = Gradients(self.template, steps)
        self.model = Model(simulate, gradient is True, vectorized)
        check_executor(executor)
        executor = "threads" if vectorized and executor is None else executor
        lanes, self.size = count_lanes(executor, workers, vectorized)
        self.counts = Counts(lanes=lanes)
        if not is_here(executor):
            pack(self.model)
        timeout = None if timeout is None else float(timeout)
        self._retries, self._rejects = retries, on_error == "reject"
        self._news, self._seen = 0, 0
        self._changed = Condition()
        self._dispatch = Dispatch(self.model, executor, self.size, timeout, self.counts, self._changed, self._land)
        self._runs: dict[bytes, Run] = {}
        self._failed: dict[bytes, Run] = {}
        self.watch: Callable[[], None] = lambda: None
        # The first run that returned, which is made once more, unless runs of an earlier day are there.
        self._first: tuple[Position, float] | None = None
        self._memory = Memory()
        self.remember(Memory() if memory is None else memory)

    @property
    def has_gradient(self) -> bool:
        """Whether there is a gradient: the function's, or of differences."""
        return self.model.has_gradient or self._gradients.steps is not None

    def remember(self, memory: Memory) -> None:
        """Ask this memory before anything is run, and keep there what is; what was run so far goes with it.

        Raises:
            ValueError: it is of another model.
        """
        simulate = self.model.simulate
        identity = {
            "function": getattr(simulate, "__qualname__", type(simulate).__qualname__),
            "position": {name: [leaf.dtype.str, list(leaf.shape)] for name, leaf in self.template.items()},
            "gradient": self.model.has_gradient,
        }
        width = sum(leaf.nbytes for leaf in self.template.values())
        with self._changed:
            memory.bind(identity, width, sum(leaf.size for leaf in self.template.values()))
            for key, found in self._memory.items():
                if memory.get(key) is None:
                    memory.put(key, found)
            self._is_checked = len(memory) > 0
            self._memory = memory

    def submit(
        self,
        positions: Sequence[Mapping[str, Any]],
        want_gradient: bool = False,
        certain: Bool[np.ndarray, " run"] | None = None,
    ) -> Round:
        """Begin a round. What was run before is done at once; those in front begin first.

        Args:
            positions: where to run the model.
            want_gradient: whether its gradients are needed.
            certain: which positions are needed for certain; None for all. A failure at one of these ends the run,
                unless it is to be rejected; at another it is marked in `Round.failed`, and ends the run once that
                position is submitted as certain.

        Raises:
            SimulationError, NoWorker, ValueError: as `Round.wait_all`.
        """
        if want_gradient and not self.has_gradient:
            raise ValueError("want_gradient is True, and the model has no gradient; give gradient= to the target.")
        given = [
            {name: np.array(position[name], leaf.dtype) for name, leaf in self.template.items()}
            for position in positions
        ]
        with self._changed:
            self._raise_error()
            gradients, queued = self._gradients if want_gradient else None, len(self._dispatch.queue)
            round = Round(self, given, gradients)
            for row, position in enumerate(given):
                for point in [position, *(gradients.points(position) if gradients is not None else [])]:
                    self._ask(round, row, point, certain is None or bool(certain[row]))
                round.fill(row)
            if len(self._dispatch.queue) > queued:
                self.counts.rounds += 1
                if self._first is not None and not self._is_checked:
                    self._is_checked = True
                    self._dispatch.queue.append(Run(self._first[0], None))
                self._dispatch.start()
            self._dispatch.feed()
            self._raise_error()
        return round

    def wait(self, timeout: float | None = None) -> None:
        """Wait until something is done that was not when this was called last, or nothing is on its way.

        Args:
            timeout: seconds to wait at most.

        Raises:
            SimulationError, NoWorker, ValueError: as `Round.wait_all`.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._is_over(ends):
                self._dispatch.look_after()
                self.watch()
            self.watch()
        except BaseException:
            with self._changed:
                self._drop(list(self._dispatch.queue))
            raise

    def _is_over(self, ends: float | None) -> bool:
        """Wait for a moment; return whether there was news, or nothing is left to wait for."""
        with self._changed:
            self._give_up_late()
            self._raise_error()
            left = math.inf if ends is None else ends - time.monotonic()
            is_over = self._seen != self._news or self._dispatch.is_idle or left <= 0
            if is_over:
                self._seen = self._news
            else:
                self._changed.wait(min(left, self._dispatch.until_a_look()))
            self._raise_error()
            return is_over

    def cancel(self, round: Round, which: Bool[np.ndarray, " run"]) -> Bool[np.ndarray, " run"]:
        """Call off what has not begun and nobody else waits for; return where nothing will come any more."""
        gone = np.zeros(len(round.done), bool)
        with self._changed:
            waiting = set(map(id, self._dispatch.queue))
            for row in np.flatnonzero(which & ~round.done).tolist():
                queued = [run for run in round.parts[row] if id(run) in waiting]
                for run in queued:
                    run.asked.remove((round, row))
                self._drop([run for run in queued if not run.asked])
                gone[row] = bool(queued)
        return gone

    def rejects_without_gradient(self, run: Run) -> bool:
        """Say whether a position without differences counts as outside of the support; otherwise that is an error."""
        self.counts.failures += 1
        self.counts.rejected += self._rejects
        self.counts.example = run.position, errors.NO_DIFFERENCE
        if run.is_certain and not self._rejects:
            self._dispatch.error = errors.failed(show(run.position), errors.NO_DIFFERENCE, 1)
        return self._rejects

    def close(self, wait: bool = False) -> None:
        """Call off what has not begun, and let go of the workers; they are started anew where something is submitted.

        Args:
            wait: whether to wait for the runs that have begun, and keep them. Otherwise processes of our own are ended;
                runs on an executor are kept when they return.
        """
        with self._changed:
            self._drop(list(self._dispatch.queue))
            lanes, flights = self._dispatch.let_go(wait)
            for run in (run for flight in flights for run in flight.runs):
                self._runs.pop(run.key or b"", None)
        if lanes is not None:
            lanes.close(wait)
        with self._changed:
            self._dispatch.end()
            self._failed.clear()

    def _ask(self, round: Round, row: int, position: Position, is_certain: bool) -> None:
        """Take a run from what is there, or queue it."""
        key = b"".join(leaf.tobytes() for leaf in position.values())
        found = self._memory.get(key)
        run = Run(position, key, found=found) if found is not None else self._runs.get(key) or self._failed.get(key)
        if run is None:
            run = self._runs[key] = Run(position, key)
            self._dispatch.queue.append(run)
        else:
            self.counts.repeated += 1
        run.is_certain |= is_certain
        run.asked.append((round, row))
        round.parts[row].append(run)
        if run.failure is not None and is_certain:
            self._end_with(run)

    def _land(self, flight: Flight, answers: list[Answer]) -> None:
        """Take what came of the runs that a lane was at."""
        is_whole = len(answers) > 1 and all(answer.failure and answer is answers[0] for answer in answers)
        if is_whole and not flight.is_given_up:
            self._fail_together(flight.runs)
        else:
            for run, answer in zip(flight.runs, answers, strict=True):
                self._take_answer(run, answer, flight.is_given_up)
        self._news += 1

    def _take_answer(self, run: Run, answer: Answer, is_given_up: bool) -> None:
        is_good = answer.failure is None and answer.mistake is None
        if run.key is None:
            assert self._first is not None
            first = self._first[1]
            if is_good and not is_given_up and abs(answer.value - first) > SAME * max(1.0, abs(first)):
                self._dispatch.error = errors.is_random(show(run.position), first, answer.value)
        elif is_good:
            flat = None if answer.gradient is None else self._gradients.flatten(answer.gradient)
            self._finish(run, Found(answer.value, flat))
            if self._first is None and np.isfinite(answer.value):
                self._first = run.position, answer.value
        elif not is_given_up:
            if answer.mistake is not None:
                self._dispatch.error = Mistake(answer.mistake)
            else:
                self._fail(run, str(answer.failure), answer.trace)

    def _finish(self, run: Run, found: Found) -> None:
        """Keep a run, and tell who asked for it."""
        if run.key is None or run.found is not None:
            return
        if run.attempts:  # It was given up, is to be tried again, and came after all.
            with contextlib.suppress(ValueError):
                self._dispatch.queue.remove(run)
        run.found = found
        self._runs.pop(run.key, None)
        if self._memory.get(run.key) is None:
            self._memory.put(run.key, found)
        self._tell(run)

    def _tell(self, run: Run) -> None:
        for round, row in run.asked:
            round.fill(row)
        self._news += 1

    def _fail(self, run: Run, text: str, trace: str) -> None:
        """Try a run again, or have it count as failed."""
        run.attempts += 1
        self.counts.failures += 1
        self.counts.example = run.position, text
        if run.key is None:
            return
        if run.attempts <= self._retries:
            self._dispatch.queue.appendleft(run)
        elif self._rejects:
            self.counts.rejected += 1
            self._finish(run, Found(-np.inf, None, is_rejected=True))
        else:
            run.failure = text
            self._runs.pop(run.key, None)
            self._failed[run.key] = run
            self._tell(run)
            if run.is_certain and self._dispatch.error is None:
                self._end_with(run, trace)

    def _fail_together(self, runs: list[Run]) -> None:
        """Make runs that failed in one call once more, each on its own: it may be due to one of them."""
        self.counts.failures += 1
        for run in runs:
            run.is_alone = True
        self._dispatch.queue.extendleft(reversed(runs))

    def _end_with(self, run: Run, trace: str = "") -> None:
        """End everything for a run that failed."""
        self._dispatch.error = errors.failed(show(run.position), str(run.failure), run.attempts)
        if trace:
            self._dispatch.error.add_note(trace)

    def _raise_error(self) -> None:
        if self._dispatch.error is not None:
            error, self._dispatch.error = self._dispatch.error, None
            self._failed.clear()
            self._drop(list(self._dispatch.queue))
            raise errors.with_whereabouts(error, self._memory.path)

    def _give_up_late(self) -> None:
        for flight in self._dispatch.give_up_late():
            if len(flight.runs) > 1:
                self._fail_together(flight.runs)
            else:
                self._fail(flight.runs[0], errors.too_long(self._dispatch.timeout or 0.0), "")
            self._dispatch.feed()

    def _drop(self, runs: list[Run]) -> None:
        """Take runs out of the queue."""
        for run in runs:
            with contextlib.suppress(ValueError):
                self._dispatch.queue.remove(run)
            self._runs.pop(run.key or b"", None)
            self.counts.cancelled += run.key is not None
