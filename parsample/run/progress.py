"""How far a run is: bars on a terminal or in a notebook, a line a minute elsewhere, or a function of the user's."""

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from parsample.run.interrupts import pass_on

# Seconds between lines where the output is no terminal.
LINE_EVERY = 60.0
# Seconds between pictures in a notebook, each of which is sent to the browser.
PICTURE_EVERY = 0.2


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
        step_size: mean over chains, in standardised coordinates; None where it is not known.
        model_runs: of a model outside of JAX, so far in all; None for others.
        model_seconds: what one of them takes, on average.
    """

    stage: str
    done: int
    total: int
    seconds: float
    acceptance_rate: float | None = None
    divergences: int = 0
    evaluations_per_step: float | None = None
    iterations: int | None = None
    step_size: float | None = None
    model_runs: int | None = None
    model_seconds: float | None = None

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
        speed = [_speed(self.steps_per_second)] if self.done else []
        return ", ".join(speed + self._facts() if speed_first else self._facts() + speed)

    def _facts(self) -> list[str]:
        parts = []
        if self.model_runs is not None:  # first, so that they are seen where there is little room
            each = "" if self.model_seconds is None else f" of {in_seconds(self.model_seconds)}"
            parts.append(f"{self.model_runs:,} runs{each}")
        if self.acceptance_rate is not None:
            parts.append(f"acceptance {self.acceptance_rate:.2f}")
        if self.divergences:
            parts.append("1 divergence" if self.divergences == 1 else f"{self.divergences:,} divergences")
        if self.step_size is not None:
            parts.append(f"step size {self.step_size:.2g}")
        if self.model_runs is None and self.evaluations_per_step is not None:
            parts.append(f"{self.evaluations_per_step:.1f} evaluations a step")
        return parts

    def line(self) -> str:
        """The whole in one line."""
        parts = [f"{self.stage} {self.done:,} of {self.total:,} steps"]
        parts += [f"{_long(self.seconds_left)} left"] if self.done else []
        return ", ".join(part for part in (*parts, self.note()) if part)


Report = Callable[..., None]


def in_seconds(value: float) -> str:
    """Return a time in words, two digits."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            return f"{value / factor:.2g} {unit}" if value < 100 * factor else f"{value / factor:,.0f} {unit}"
    return f"{value / 1e-6:.2g} us"


def _long(seconds: float) -> str:
    """Return a time that somebody waits."""
    unit, name = next(
        (unit, name) for unit, name in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= 2 * unit or unit == 1
    )
    return f"{seconds / unit:.0f} {name}" if unit == 1 else f"{seconds / unit:.1f} {name}"


def _speed(steps_per_second: float) -> str:
    """Return a speed in the unit in which it is no small fraction."""
    if steps_per_second >= 10:
        return f"{steps_per_second:,.0f} steps/s"
    unit, name = next(
        (unit, name)
        for unit, name in ((1, "s"), (60, "min"), (3600, "h"))
        if steps_per_second * unit >= 1 or unit == 3600
    )
    return f"{steps_per_second * unit:.2g} steps/{name}"


@contextmanager
def reporting(show: bool | Callable[[Event], Any], total_warmup: int, total_samples: int) -> Iterator[Report]:
    """Tell how far a run is while the body runs.

    Args:
        show: True for bars on a terminal and in a notebook, and elsewhere a line on standard error every minute; False
            for silence; or a function that is called with every `Event`.
        total_warmup: steps.
        total_samples: steps.

    Yields:
        `report(stage, steps, **facts)`: so many more steps of a stage are done, or of the one that goes on if that is
        None; `facts` are fields of `Event`, which hold until they are told anew.
    """
    totals = {"warm-up": total_warmup, "sampling": total_samples}
    done = dict.fromkeys(totals, 0)
    began: dict[str, float] = {}
    known: dict[str, Any] = {}

    def event(stage: str, steps: int, facts: dict[str, Any]) -> Event:
        done[stage] += steps
        known.update(facts)
        return Event(stage, done[stage], totals[stage], time.perf_counter() - began[stage], **known)

    def stage_begins(stage: str) -> None:
        began.setdefault(stage, time.perf_counter())

    with showing(show, totals) as send:
        stage_begins("warm-up" if total_warmup else "sampling")

        def report(stage: str | None, steps: int, **facts: Any) -> None:
            stage = stage or list(began)[-1]
            stage_begins(stage)
            send(event(stage, steps, facts))
            pass_on()
            if stage == "warm-up" and done[stage] >= totals[stage] and total_samples:
                stage_begins("sampling")

        yield report


@contextmanager
def showing(show: bool | Callable[[Event], Any], totals: dict[str, int]) -> Iterator[Callable[[Event], Any]]:
    """Choose where events go, as `reporting` has it."""
    if callable(show):
        yield show
        return
    if not show:
        yield lambda event: None
        return
    if in_notebook():
        with _pictures(totals) as send:
            yield send
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
    """Show a bar for each stage on a terminal."""
    progress, update = _progress(totals, True, console=console)
    with progress:
        yield update


@contextmanager
def _pictures(totals: dict[str, int]) -> Iterator[Callable[[Event], Any]]:
    """Show the same bars in the output of a notebook's cell, by the HTML that rich makes of them; no widgets needed."""
    display: Any = importlib.import_module("IPython.display").display
    progress, update = _progress(totals, False, auto_refresh=False)
    handle: Any = display(progress.make_tasks_table(progress.tasks), display_id=True)
    last = time.perf_counter()

    def show() -> None:
        handle.update(progress.make_tasks_table(progress.tasks))

    def send(event: Event) -> None:
        nonlocal last
        update(event)
        if time.perf_counter() - last >= PICTURE_EVERY:
            last = time.perf_counter()
            show()

    try:
        yield send
    finally:
        show()


def in_notebook() -> bool:
    """Say whether this is a notebook's kernel, Jupyter's or Colab's."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in type(shell).__module__


def _progress(totals: dict[str, int], is_cut: bool, **options: Any) -> tuple[Any, Callable[[Event], None]]:
    """Return rich's bars, one a stage, and what brings them up to date; a long note is cut, or goes on below."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    def whole(width: int) -> Column:
        return Column(no_wrap=True, min_width=width)

    # Where there is little room the note gives way, and nothing else.
    note = Column(no_wrap=is_cut, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", table_column=whole(8)),
        BarColumn(bar_width=10, table_column=whole(10)),
        MofNCompleteColumn(table_column=whole(2 * len(str(max(totals.values()))) + 1)),
        TimeRemainingColumn(table_column=whole(8)),
        TextColumn("{task.fields[note]}", style="dim", table_column=note),
    )
    progress = Progress(*columns, expand=True, **options)
    tasks = {stage: progress.add_task(stage, total=total, note="") for stage, total in totals.items() if total}

    def update(event: Event) -> None:
        progress.update(tasks[event.stage], completed=event.done, note=event.note(speed_first=False))

    return progress, update
