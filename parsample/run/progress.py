"""How far a run is: a bar on a terminal, a line a minute elsewhere, or a call of the user's own function."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

# Seconds between lines where the output is no terminal.
LINE_EVERY = 60.0


class Event(NamedTuple):
    """How far a stage is.

    Attributes:
        stage: "warm-up" or "sampling".
        done: steps of each chain.
        total: steps of each chain, those that an early end may save included.
        seconds: since the stage began, compiling included.
        acceptance_rate: mean over chains and the last segment; None where it is not known.
        divergences: so far, over all chains.
        evaluations_per_step: of the last segment; None where there is none.
        iterations: of the slowest chain in the last segment; None where there are none.
    """

    stage: str
    done: int
    total: int
    seconds: float
    acceptance_rate: float | None = None
    divergences: int = 0
    evaluations_per_step: float | None = None
    iterations: int | None = None

    @property
    def steps_per_second(self) -> float:
        """Steps of each chain in a second, so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """At the speed so far."""
        return (self.total - self.done) / self.steps_per_second if self.done else float("inf")

    def note(self, speed_first: bool = True) -> str:
        """What else there is to say, in words."""
        speed = [f"{self.steps_per_second:,.0f} steps/s"]
        return ", ".join(speed + self._facts() if speed_first else self._facts() + speed)

    def _facts(self) -> list[str]:
        parts = []
        if self.acceptance_rate is not None:
            parts.append(f"acceptance {self.acceptance_rate:.2f}")
        if self.evaluations_per_step is not None:
            parts.append(f"{self.evaluations_per_step:.1f} evaluations a step")
        if self.divergences:
            parts.append(f"{self.divergences:,} divergences")
        return parts

    def line(self) -> str:
        """The whole in one line."""
        left = f", {self.seconds_left:.0f} s left" if self.done else ""
        return f"{self.stage} {self.done:,} of {self.total:,} steps{left}, {self.note()}"


Report = Callable[..., None]


@contextmanager
def reporting(show: bool | Callable[[Event], Any], total_warmup: int, total_samples: int) -> Iterator[Report]:
    """Tell how far a run is while the body runs.

    Args:
        show: True for a bar on a terminal, and on anything else a line on standard error every minute; False for
            silence; or a function that is called with every `Event`.
        total_warmup: steps.
        total_samples: steps.

    Yields:
        `report(stage, steps, **facts)`: so many more steps of a stage are done; `facts` are fields of `Event`.
    """
    totals = {"warm-up": total_warmup, "sampling": total_samples}
    done = dict.fromkeys(totals, 0)
    began: dict[str, float] = {}

    def event(stage: str, steps: int, facts: dict[str, Any]) -> Event:
        done[stage] += steps
        return Event(stage, done[stage], totals[stage], time.perf_counter() - began[stage], **facts)

    def stage_begins(stage: str) -> None:
        began.setdefault(stage, time.perf_counter())

    with _sink(show, totals) as send:
        stage_begins("warm-up" if total_warmup else "sampling")

        def report(stage: str, steps: int, **facts: Any) -> None:
            stage_begins(stage)
            send(event(stage, steps, facts))
            if stage == "warm-up" and done[stage] >= totals[stage]:
                stage_begins("sampling")

        yield report


@contextmanager
def _sink(show: bool | Callable[[Event], Any], totals: dict[str, int]) -> Iterator[Callable[[Event], Any]]:
    """Choose where events go."""
    if callable(show):
        yield show
        return
    if not show:
        yield lambda event: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console, totals) as send:
            yield send
        return
    last = time.perf_counter()

    def line(event: Event) -> None:
        nonlocal last
        if time.perf_counter() - last >= LINE_EVERY:
            last = time.perf_counter()
            console.print(event.line(), highlight=False, soft_wrap=True)

    yield line


@contextmanager
def _bars(console: Any, totals: dict[str, int]) -> Iterator[Callable[[Event], Any]]:
    """Show a bar for each stage."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    def whole(width: int) -> Column:
        return Column(no_wrap=True, min_width=width)

    # On a narrow terminal the note is cut, and nothing else.
    columns = (
        TextColumn("{task.description}", table_column=whole(8)),
        BarColumn(bar_width=10, table_column=whole(10)),
        MofNCompleteColumn(table_column=whole(2 * len(str(max(totals.values()))) + 1)),
        TimeRemainingColumn(table_column=whole(8)),
        TextColumn("{task.fields[note]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )

    def send(event: Event) -> None:
        progress.update(tasks[event.stage], completed=event.done, note=event.note(speed_first=False))

    with Progress(*columns, console=console, expand=True) as progress:
        tasks = {stage: progress.add_task(stage, total=total, note="") for stage, total in totals.items() if total}
        yield send
