"""Where the draws of a run go, as the run sees it, and in memory; `disk.Store` keeps them on the disk."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from parsample.results.groups import EVALUATION, Groups, joined
from parsample.results.trace import Trace
from parsample.run.counts import Tally
from parsample.run.interrupts import Interrupted
from parsample.run.result import Outcome
from parsample.run.segments import Rows
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation


@runtime_checkable
class Sink(Rows, Protocol):
    """Where a run keeps what it finds, and from where it goes on.

    It is called in this order: `adaptation`, `identify`, `warmed_up`, then as `Rows` for every segment, and `finish`,
    `interrupted` or `so_far` in the end.
    """

    @property
    def wants_draws(self) -> bool:
        """Whether the run goes on after warm-up."""

    @property
    def tally(self) -> Tally | None:
        """Counts of the segments that are there; None before the first."""

    @property
    def runs(self) -> Path | None:
        """The file in which finished runs of a model outside of JAX are kept; None where none is."""

    def adaptation(self, target: Target) -> tuple[Adaptation, float] | None:
        """Return what an earlier warm-up found and the seconds it took, or None if it has still to be done."""

    def identify(self, fingerprint: Callable[[], dict[str, Any]]) -> None:
        """Write down what the run is of, or see that it is the same.

        Raises:
            ValueError: what is there is of something else.
        """

    def warmed_up(self, outcome: Outcome) -> None:
        """Take what warm-up found."""

    def finish(self, tally: Tally) -> Trace:
        """Return the trace of the whole run, which has these counts."""

    def so_far(self, can_write: bool) -> Trace:
        """Return a trace of the draws that are there and nothing else, for the error that ended the run.

        Args:
            can_write: whether writing is not what failed.

        Raises:
            ValueError: there are none.
        """

    def interrupted(self) -> Interrupted:
        """Keep what is there, and return the interrupt that says where it is."""


class Memory:
    """Where a run keeps its draws that has no store.

    Args:
        known: what an earlier warm-up found, in the place of another; None to warm up.
        wants_draws: whether the run goes on after warm-up.

    Attributes:
        tally: counts of the segments that are there; None before the first.
        outcome: what is known once warm-up is over; None before.
    """

    def __init__(self, known: Adaptation | None = None, wants_draws: bool = True) -> None:
        """Begin with nothing."""
        self.known, self.wants_draws = known, wants_draws
        self.kept: tuple[tuple[Groups, ...], Tally | None] = ((), None)
        self.outcome: Outcome | None = None
        self.evaluation: dict[str, np.ndarray] = {}

    @property
    def tally(self) -> Tally | None:
        """Counts of the segments that are there."""
        return self.kept[1]

    @property
    def runs(self) -> None:
        """No file: the target itself remembers its runs."""

    def identify(self, fingerprint: Callable[[], dict[str, Any]]) -> None:
        """Nothing is to be compared."""

    def adaptation(self, target: Target) -> tuple[Adaptation, float] | None:
        """Return what warm-up found and the seconds it took, or None if it has still to be done."""
        return None if self.known is None else (self.known, 0.0)

    def warmed_up(self, outcome: Outcome) -> None:
        """Take what warm-up found."""
        self.outcome = outcome

    def states(self, like: Any) -> Any:
        """Return where the chains stand: where they begin."""
        return like

    def see(self, evaluation: dict[str, np.ndarray]) -> None:
        """Take what the iterations of the first segment saw."""
        self.evaluation = evaluation

    def add(self, rows: Groups, tally: Tally, states: Any) -> None:
        """Take the rows of a segment."""
        # One assignment: an interrupt finds the segment either here or not.
        self.kept = ((*self.kept[0], rows), tally)

    def draws(self, group: str = "posterior") -> list[Mapping[str, Any]]:
        """Return the draws so far, or their statistics, in parts."""
        return [block[group] for block in self.kept[0]]

    def finish(self, tally: Tally, with_requests: bool = True) -> Trace:
        """Return the trace."""
        assert self.outcome is not None
        groups = joined(self.kept[0]) | ({EVALUATION: self.evaluation} if self.evaluation else {})
        for name, variables in self.outcome.further(tally).items():
            groups[name] = groups.get(name, {}) | variables
        if with_requests:
            draws = groups["posterior"]
            part = lambda first, last: {name: values[:, first:last] for name, values in draws.items()}  # noqa: E731
            blocks = list(self.outcome.requested(groups["sample_stats"]["lp"].shape[1], part))
            groups |= joined(blocks) if blocks else {}
        return self.outcome.build(groups, self.outcome.attributes(tally))

    def so_far(self, can_write: bool) -> Trace:
        """Return a trace of the draws that are there and nothing else.

        Raises:
            ValueError: there are none.
        """
        groups = joined(self.kept[0]) if self.kept[0] else {}
        if self.outcome is None or self.tally is None or not groups["sample_stats"]["lp"].shape[1]:
            raise ValueError("there are no draws yet.")
        return self.outcome.build(groups, self.outcome.attributes(self.tally))

    def interrupted(self) -> Interrupted:
        """Return the interrupt that takes the draws so far along."""
        if self.tally is None or not joined(self.kept[0])["sample_stats"]["lp"].shape[1]:
            return Interrupted("interrupted before the first draws were there; nothing is saved.")
        note = f"interrupted after {self.tally.done:,} steps of each chain"
        return Interrupted(note, self.finish(self.tally, with_requests=False))


def hand_over(error: Exception, kept: Sink) -> None:
    """Let an exception take the draws so far along, as its attribute `trace`, and say so in a note.

    Args:
        error: what ended the run.
        kept: where the draws are.
    """
    # What ended the run may end this as well; then it is the first error that matters.
    with contextlib.suppress(Exception):
        error.trace = kept.so_far(can_write=not isinstance(error, OSError))  # type: ignore[attr-defined]
        error.add_note("The draws so far are in the attribute `trace` of this exception.")
