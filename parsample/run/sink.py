"""Where the draws of a run go, as the run sees it: `result.Memory` keeps them in memory, `disk.Store` on the disk."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

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
