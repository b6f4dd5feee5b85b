"""What the runs of a model outside of JAX came to, for the verdict and for progress."""

import contextlib
import copy
import math
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from parsample.run.progress import Report
from parsample.targets.base import Target
from parsample.targets.external import External

# Seconds between two reports.
TELL_EVERY = 0.2


class Outside(NamedTuple):
    """Counts of the runs of a model outside of JAX.

    Attributes:
        lanes: that could run at the same time.
        runs: of the model.
        remembered: positions that were asked for again.
        rounds: batches that were sent.
        failures: runs that failed.
        rejected: positions that count as outside of the support for it.
        example: the last failure and its position, in words.
        busy: seconds that the model took, over all lanes.
        idle: seconds that lanes had nothing to do.
    """

    lanes: int = 0
    runs: int = 0
    remembered: int = 0
    rounds: int = 0
    failures: int = 0
    rejected: int = 0
    example: str = ""
    busy: float = 0.0
    idle: float = 0.0


class Counter:
    """Counts the runs of a target's model from here on."""

    def __init__(self, target: Target, before: Outside | None = None):
        """Begin, after what was counted `before` by an earlier part of the same run."""
        self.before = before or Outside()
        self.workers = target.workers if isinstance(target, External) else None
        self.counts: Any = None if self.workers is None else self.workers.counts
        self.began: Any = copy.copy(self.counts)

    @contextlib.contextmanager
    def telling(self, report: Report) -> Iterator[None]:
        """Have progress told of runs while the body waits for them, in whatever stage that is."""
        if self.workers is None:
            yield
            return
        here, last = threading.get_ident(), -math.inf

        def watch() -> None:
            nonlocal last
            # A compiled program that waits for the model does so in a thread of JAX's.
            if threading.get_ident() != here or time.monotonic() - last < TELL_EVERY:
                return
            last = time.monotonic()
            report(None, 0, model_runs=self.runs, model_seconds=self.counts.seconds)

        self.workers.watch, before = watch, self.workers.watch
        try:
            yield
        finally:
            self.workers.watch = before

    @property
    def runs(self) -> int:
        """Of the model, so far."""
        return self.before.runs + self.counts.runs - self.began.runs

    def read(self) -> Outside | None:
        """Return the counts so far; None for a target in JAX."""
        if self.counts is None:
            return None
        new = lambda name: getattr(self.counts, name) - getattr(self.began, name)  # noqa: E731
        before = self.before
        return Outside(
            self.counts.lanes,
            self.runs,
            before.remembered + new("repeated"),
            before.rounds + new("rounds"),
            before.failures + new("failures"),
            before.rejected + new("rejected"),
            _example(self.counts.example) or before.example,
            before.busy + new("busy"),
            before.idle + new("idle"),
        )


def _example(found: Any) -> str:
    if found is None:
        return ""
    position, text = found
    values = {name: np.array2string(np.asarray(leaf), precision=4, threshold=6) for name, leaf in position.items()}
    return f"{text} at {', '.join(f'{name} = {value}' for name, value in values.items())}"
