"""A batch of positions on its way to the workers, what became of each, and what it all took."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from parsample.workers import differences
from parsample.workers.memory import Found
from parsample.workers.model import Position


@dataclass
class Counts:
    """What the workers did.

    Attributes:
        lanes: calls that can be under way at the same time.
        runs: positions at which the function was begun, those that were tried again included.
        checks: further ones, at a position that was run before, to see whether it gives the same number.
        repeated: positions that were asked for and had been run, or were under way.
        rounds: batches that had something to run.
        failures: runs that raised, returned NaN, took too long or died with their worker.
        rejected: positions that count as outside of the support for it.
        cancelled: runs that were called off before they began.
        example: the position of the last failure, and what went wrong; None where nothing did.
        returned: runs that came back, whatever became of them.
        busy: seconds that the function took, over all lanes.
        elapsed: seconds from the first submission to the last return.
    """

    lanes: int = 0
    runs: int = 0
    checks: int = 0
    repeated: int = 0
    rounds: int = 0
    failures: int = 0
    rejected: int = 0
    cancelled: int = 0
    example: tuple[Position, str] | None = None
    returned: int = 0
    busy: float = 0.0
    elapsed: float = 0.0

    @property
    def seconds(self) -> float | None:
        """Return what a run took on average, None where none has come back."""
        return self.busy / self.returned if self.returned else None

    @property
    def idle(self) -> float:
        """Return the seconds that lanes had nothing to do."""
        return max(0.0, self.lanes * self.elapsed - self.busy)


@dataclass(eq=False, repr=False)
class Run:
    """One position, who asked for it, and what came of it."""

    position: Position
    key: bytes | None  # None where a position is run again, to see whether the number is the same
    is_certain: bool = False
    is_alone: bool = False  # of a batch that failed as a whole
    attempts: int = 0
    found: Found | None = None
    failure: str | None = None
    asked: list[tuple["Round", int]] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Flight:
    """Runs that a lane is at."""

    runs: list[Run]
    began: float | None = None
    is_given_up: bool = False  # It took too long, or nobody waits for it: what comes is kept, and that is all.

    def begin(self) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds since it began."""
        return 0.0 if self.began is None else time.monotonic() - self.began


@runtime_checkable
class Owner(Protocol):
    """Whose rounds these are: `Workers`."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until something new is done."""
        ...

    def cancel(self, round: "Round", which: Bool[np.ndarray, " run"]) -> Bool[np.ndarray, " run"]:
        """Call off what has not begun."""
        ...

    def rejects_without_gradient(self, run: Run) -> bool:
        """Say whether a position without a gradient counts as outside of the support."""
        ...


class Round:
    """A batch of positions on its way. Its arrays fill as runs return.

    Attributes:
        done: whether a position has its answer.
        failed: whether that is that it failed: only where it was not certain to be needed, see `Workers.submit`.
        logdensity: NaN before it is there and where it failed; minus infinity outside of the support, and for failures
            that are to count as such.
        gradient: by name, leading axis `run`; NaN before it is there, zeros where the log density is minus infinity.
            None where it was not asked for.
    """

    def __init__(self, owner: "Owner", positions: Sequence[Position], gradients: "Gradients | None"):
        """Begin with nothing; no gradients are kept where there is none to tell them."""
        count = len(positions)
        self._owner, self._positions, self._gradients = owner, positions, gradients
        self.parts: list[list[Run]] = [[] for _ in range(count)]
        self.done: Bool[np.ndarray, " run"] = np.zeros(count, bool)
        self.failed: Bool[np.ndarray, " run"] = np.zeros(count, bool)
        self.logdensity: Float[np.ndarray, " run"] = np.full(count, np.nan)
        self.gradient: dict[str, np.ndarray] | None = None
        if gradients is not None:
            template = gradients.template
            self.gradient = {name: np.full((count, *leaf.shape), np.nan) for name, leaf in template.items()}

    def wait(self, timeout: float | None = None) -> None:
        """Wait until something new is done, here or in another round, as `Workers.wait` does."""
        if not self.done.all():
            self._owner.wait(timeout)

    def wait_all(self) -> None:
        """Wait until everything is done.

        Raises:
            SimulationError: a run failed that was certain to be needed.
            NoWorker: nobody is left to run anything.
            ValueError: the function does not do what it has to.
        """
        while not self.done.all():
            self._owner.wait()

    def cancel(self, which: Bool[np.ndarray, " run"]) -> Bool[np.ndarray, " run"]:
        """Call off what has not begun and nobody else waits for; return where nothing will come any more."""
        return self._owner.cancel(self, which)

    def fill(self, row: int) -> None:
        """Take the answer of a position, once all of its runs have returned."""
        parts = self.parts[row]
        if self.done[row] or any(run.found is None and run.failure is None for run in parts):
            return
        if parts[0].found is None:
            self.failed[row] = True
        else:
            value = parts[0].found.value
            if self.gradient is not None and self._gradients is not None:
                slopes = self._gradients.at(self._positions[row], parts)
                if slopes is None and value != -np.inf:
                    self.failed[row] = not self._owner.rejects_without_gradient(parts[0])
                    value = np.nan if self.failed[row] else -np.inf
                for name, leaf in self.gradient.items():
                    leaf[row] = 0.0 if slopes is None else slopes[name]
            self.logdensity[row] = value
        # Last: another thread may be looking.
        self.done[row] = True


@dataclass(frozen=True)
class Gradients:
    """How the gradient at a position comes of its runs.

    Attributes:
        template: a position.
        steps: of differences, by name; None where the function returns its gradient.
    """

    template: Position
    steps: Mapping[str, Any] | None

    def points(self, position: Position) -> list[Position]:
        """Return where else the model is run."""
        return [] if self.steps is None else differences.neighbours(position, self.steps)

    def at(self, position: Position, runs: list[Run]) -> Position | None:
        """Return the gradient, None where it cannot be told."""
        found = [run.found for run in runs]
        if self.steps is not None:
            values = [np.nan if run is None else run.value for run in found]
            return differences.gradient(position, values[0], values[1:], self.steps)
        flat = None if found[0] is None else found[0].gradient
        return None if flat is None else self.split(flat)

    def flatten(self, gradient: Position) -> np.ndarray:
        """Return a gradient as a vector."""
        return np.concatenate([gradient[name].ravel() for name in self.template])

    def split(self, flat: np.ndarray) -> Position:
        """Return a vector as a gradient."""
        ends = np.cumsum([leaf.size for leaf in self.template.values()])[:-1]
        parts = zip(self.template.items(), np.split(flat, ends), strict=True)
        return {name: part.reshape(leaf.shape) for (name, leaf), part in parts}


def show(position: Position) -> str:
    """Return a position as text, long arrays in short."""
    with np.printoptions(precision=6, threshold=6, edgeitems=2):
        return "{" + ", ".join(f"{name!r}: {leaf}" for name, leaf in position.items()) + "}"
