"""What a worker does: call the user's function at some positions, and say what came of it. Needs NumPy alone."""

import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from parsample.workers import errors
from parsample.workers.errors import Mistake

Position = dict[str, np.ndarray]


# Calls that took too long and still run, in this process; and how many of them a process bears.
_left_behind: list[threading.Thread] = []
MOST_LEFT = 16


class Answer(NamedTuple):
    """What came of one run.

    Attributes:
        value: the log density; minus infinity outside of the support, NaN where there is none.
        gradient: by name, None where there is none.
        seconds: that the function took.
        failure: what went wrong, and may go right another time or elsewhere; None for nothing.
        mistake: what the function does wrong everywhere; None for nothing.
        trace: where it went wrong.
    """

    value: float
    gradient: Position | None = None
    seconds: float = 0.0
    failure: str | None = None
    mistake: str | None = None
    trace: str = ""


@dataclass(frozen=True)
class Model:
    """A user's function, and what it returns.

    Attributes:
        simulate: from a position, or from many stacked, to the log density, or to it and its gradient.
        has_gradient: whether it returns a gradient.
        vectorized: whether it takes many positions at once, every array with an axis in front.
        timeout: seconds after which a call is left behind, where nobody can end it; None for none.
    """

    simulate: Callable
    has_gradient: bool = False
    vectorized: bool = False
    timeout: float | None = None

    def __call__(self, positions: list[Position]) -> list[Answer]:
        """Run the function at some positions, one after the other or at once; never raises what the function raises."""
        if self.vectorized:
            return self._run(positions)
        return [answer for position in positions for answer in self._run([position])]

    def _run(self, positions: list[Position]) -> list[Answer]:
        """Call the function once; in a thread that can be left behind where it may take too long."""
        if self.timeout is None:
            return self._try(positions)
        _left_behind[:] = [thread for thread in _left_behind if thread.is_alive()]
        if len(_left_behind) >= MOST_LEFT:
            return [Answer(math.nan, mistake=errors.all_hang(MOST_LEFT, self.timeout))] * len(positions)
        found: list[list[Answer]] = []
        thread = threading.Thread(target=lambda: found.append(self._try(positions)), daemon=True)
        thread.start()
        thread.join(self.timeout)
        if found:
            return found[0]
        _left_behind.append(thread)
        return [Answer(math.nan, None, self.timeout / len(positions), errors.too_long(self.timeout))] * len(positions)

    def _try(self, positions: list[Position]) -> list[Answer]:
        """Call the function once, and catch what it raises."""
        began = time.perf_counter()
        failure, mistake, trace = None, None, ""
        try:
            values, slopes = self._call(positions)
        except Mistake as error:
            mistake = str(error)
        # A solver that ends its process by sys.exit ends a run, not the worker.
        except (Exception, SystemExit) as error:
            failure, trace = f"simulate raised {type(error).__name__}: {error}", traceback.format_exc()
        seconds = (time.perf_counter() - began) / len(positions)
        if failure or mistake:
            return [Answer(math.nan, None, seconds, failure, mistake, trace)] * len(positions)
        return [
            _answer(
                value,
                None if slopes is None else {name: np.asarray(leaf[row]) for name, leaf in slopes.items()},
                seconds,
            )
            for row, value in enumerate(values.tolist())
        ]

    def _call(self, positions: list[Position]) -> tuple[np.ndarray, Position | None]:
        """Return the log density and its gradients, both with an axis for positions."""
        like = {name: np.stack([position[name] for position in positions]) for name in positions[0]}
        given = {name: np.array(leaf if self.vectorized else leaf[0]) for name, leaf in like.items()}
        handed = dict(given)
        found = self.simulate(given)
        for name, leaf in handed.items():
            if given.get(name) is not leaf or np.asarray(leaf).tobytes() != like[name].tobytes():
                raise Mistake(
                    f"simulate changed its argument: {name!r} is another after the call. The position belongs to the "
                    f"chain; let simulate begin with a copy, such as x = position[{name!r}].copy()."
                )
        if not self.has_gradient:
            return self._values(found, len(positions)), None
        if not (isinstance(found, tuple) and len(found) == 2):
            raise Mistake(
                f"simulate returned {_form(found)}, expected two things with gradient=True: the log density, and its "
                "gradient as a dict like the position. Leave gradient out where there is none."
            )
        return self._values(found[0], len(positions)), self._slopes(found[1], like)

    def _values(self, found: Any, count: int) -> np.ndarray:
        if isinstance(found, tuple):
            raise Mistake(
                f"simulate returned {_form(found)}, expected the log density alone; with gradient=True it may return "
                "its gradient as well."
            )
        values = _numbers(found, "simulate returned")
        wanted = (count,) if self.vectorized else ()
        if values.shape != wanted:
            raise Mistake(
                f"simulate returned an array of shape {values.shape}, expected "
                + (
                    f"one of shape {wanted}, a log density for every position, with vectorized=True."
                    if self.vectorized
                    else "one number, the log density; return the sum of its terms as float(np.sum(terms))."
                )
            )
        return values.reshape(-1)

    def _slopes(self, found: Any, like: Position) -> Position:
        """Return a gradient with an axis for positions."""
        if not isinstance(found, Mapping) or set(found) != set(like):
            names = list(found) if isinstance(found, Mapping) else _form(found)
            raise Mistake(f"simulate returned the gradient {names}, expected a dict with the position's {list(like)}.")
        slopes = {}
        for name, leaf in like.items():
            slope = _numbers(found[name], f"simulate returned for {name!r} the gradient")
            wanted = leaf.shape if self.vectorized else leaf.shape[1:]
            if slope.shape != wanted:
                raise Mistake(
                    f"simulate returned for {name!r} a gradient of shape {slope.shape}, expected {wanted}, that of the "
                    "position."
                )
            slopes[name] = slope.reshape(leaf.shape)
        return slopes


def _numbers(found: Any, what: str) -> np.ndarray:
    """Return what should be real numbers as an array of them."""
    try:
        array = np.asarray(found)
    except Exception as error:
        raise Mistake(f"{what} {_form(found)}, expected numbers ({error}).") from error
    if array.dtype.kind not in "fiu":
        remedy = {
            "c": "; return its real part, if that is what is meant",
            "O": "; is a return statement missing?" if found is None else "",
        }.get(array.dtype.kind, "")
        raise Mistake(f"{what} {_form(found)}, expected real numbers{remedy}.")
    return array.astype(np.float64)


def _form(found: Any) -> str:
    """Say what somebody's function returned."""
    if found is None:
        return "None"
    if isinstance(found, tuple):
        return f"{len(found)} things"
    article = "an" if type(found).__name__[0] in "aeiou" else "a"
    text = repr(found)
    return f"{article} {type(found).__name__}" + (f", {text}" if len(text) <= 40 else "")


def _answer(value: float, gradient: Position | None, seconds: float) -> Answer:
    if math.isnan(value) or value == math.inf:
        text = f"simulate returned {value}; a log density outside of the support is -inf"
        return Answer(math.nan, None, seconds, text)
    if gradient is not None and value != -math.inf:
        bad = [name for name, leaf in gradient.items() if not np.all(np.isfinite(leaf))]
        if bad:
            return Answer(math.nan, None, seconds, f"simulate returned a gradient for {bad[0]!r} that is not finite")
    return Answer(value, gradient, seconds)


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        return os.cpu_count() or 1
