"""A progress bar on a terminal, silence elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[..., None]


@contextmanager
def bar(show: bool, total_warmup: int, total_samples: int) -> Iterator[Report]:
    """Show two bars, warm-up and sampling, while the body runs.

    Yields:
        `report(stage, steps, note="")`, which moves the bar of a stage ("warm-up" or "sampling").
    """
    if not show:
        yield lambda stage, steps, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    # Without a terminal the bar would be printed once at the end, which tells nobody anything.
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        totals = {"warm-up": total_warmup, "sampling": total_samples}
        tasks = {stage: progress.add_task(stage, total=n, note="") for stage, n in totals.items() if n}

        def report(stage: str, steps: int, note: str = "") -> None:
            progress.update(tasks[stage], advance=steps, note=note)

        yield report
