"""Stop when the draws are good: by the judgement of the verdict, with thresholds of one's own; or after a time."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parsample.engine import options
from parsample.engine.names import unknown
from parsample.results.judgement import Thresholds, judge_arrays
from parsample.results.summary import bulk_ess

# Fewer draws than this tell nothing of R-hat and effective sample size.
FEWEST_DRAWS = 100


@dataclasses.dataclass(frozen=True)
class Until:
    """When a run is good, and ends before its last draw.

    Attributes:
        ess: the effective sample size, the smaller of bulk and tail, that every variable must exceed, in draws; None
            to leave it out.
        rhat: that every variable's R-hat must be below, dimensionless; None to leave it out.
        seconds: wall time after which no further segment is begun; None for any.
    """

    ess: float | None = None
    rhat: float | None = None
    seconds: float | None = None

    @property
    def is_given(self) -> bool:
        """Whether the run may end early."""
        return any(value is not None for value in dataclasses.astuple(self))

    def is_met(
        self,
        segments: Sequence[Mapping[str, Any]],
        seconds: float,
        divergences: tuple[int, int] | None = None,
        energy: np.ndarray | None = None,
    ) -> bool:
        """Say whether the draws so far are good enough, or the time is over.

        Beside `ess` and `rhat` nothing may be wrong with the draws: a variable that is not finite or does not move,
        too many divergences, or too small an E-BFMI are no more tolerable here than in the verdict.

        Args:
            segments: the variables of each segment, shape (chain, draw, ...).
            seconds: since the first of them began.
            divergences: how many, and of how many transitions; None for a sampler without any.
            energy: of each draw, shape (chain, draw); None for a sampler without it.
        """
        if self.seconds is not None and seconds >= self.seconds:
            return True
        if self.ess is None and self.rhat is None:
            return False
        draws = _Joined(segments)
        if sum(next(iter(part.values())).shape[1] for part in segments) < FEWEST_DRAWS:
            return False
        # Most looks end here, at the first variable, for less than the whole judgement costs.
        if self.ess is not None and not all(ess > self.ess for ess in bulk_ess(draws)):
            return False
        return judge_arrays(draws, divergences, energy, Thresholds(r_hat=self.rhat, ess=self.ess)).is_good


class _Joined(Mapping[str, np.ndarray]):
    """The variables of all segments, each put together when it is asked for: one at a time is held."""

    def __init__(self, segments: Sequence[Mapping[str, Any]]):
        self.segments = segments

    def __getitem__(self, name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in self.segments], 1)

    def __iter__(self) -> Iterator[str]:
        return iter(self.segments[0])

    def __len__(self) -> int:
        return len(self.segments[0])


def is_due(number: int) -> bool:
    """Say whether to look at the draws after so many segments: after each of the first 16, then 16 to 32 a doubling.

    A look costs as much as there are draws: looking every time would cost the square of a long run.
    """
    return number < 16 or number % (1 << (number.bit_length() - 5)) == 0


def check_until(until: Mapping[str, Any] | None, num_chains: int) -> Until:
    """Return the condition of a mapping.

    Raises:
        ValueError: a name is unknown, a value out of its range, or R-hat is asked of one chain.
    """
    names = [field.name for field in dataclasses.fields(Until)]
    for name, value in (until or {}).items():
        if name not in names:
            raise unknown("a name in until", name, names)
        above = 1 if name == "rhat" else 0
        if not (options.is_number(value) and above < value < math.inf):
            raise ValueError(f"until has {name} = {value!r}, expected a finite number above {above}.")
    found = Until(**{name: float(value) for name, value in (until or {}).items()})
    if found.rhat is not None and num_chains < 2:
        raise ValueError("until asks for rhat, but num_chains is 1, expected at least 2, for it compares chains.")
    return found
