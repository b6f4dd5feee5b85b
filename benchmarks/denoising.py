"""Diffusion sampled in parallel and by the loop: what the tables of rounds count, and how."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import parsample as ps
from parsample.samplers.diffusion import Process

# Runs in turns for a median; what takes longer than so many seconds is run once.
TURNS, LONG = 5, 2.0
TIME_NOTE = (
    f"Time: of the compiled draw of all samples, in that of the loop, which takes the samples together; medians of "
    f"{TURNS} runs in turns, of one where a run takes more than {LONG:g} seconds: above 1 the loop is faster."
)


class Measured(NamedTuple):
    """What a method needed, and how far from the loop's its samples are.

    Attributes:
        rounds: of each sample.
        evaluations: of a sample, their mean.
        error: of a sample, root mean square, the largest of all, in the units of the data.
        time: of the draw, in that of the loop.
    """

    rounds: np.ndarray
    evaluations: float
    error: float
    time: float

    def ratio(self) -> str:
        """Return the cell for the time."""
        return f"{self.time:.0f}" if self.time >= 10 else f"{self.time:.1f}"

    def counts(self) -> list[str]:
        """Return the cells for rounds, the slowest sample's, and evaluations."""
        return [f"{self.rounds.mean():.1f}", str(self.rounds.max()), f"{self.evaluations:,.0f}"]


class Loop:
    """The sequential sampler of a process, and other methods beside it, with the same noise."""

    def __init__(self, process: Process, shape: tuple[int, ...], samples: int, **keywords: Any):
        self.draw = lambda options: jax.block_until_ready(
            ps.diffuse(process, shape, samples, **{**keywords, **options})
        )
        loop = self.draw({"method": "sequential"})
        self.samples, self.evaluations = np.asarray(loop.samples).reshape(samples, -1), int(loop.rounds.max())

    def measure(self, options: dict[str, Any], rounds_before: int = 0) -> Measured:
        """Draw by a method, whose guess took so many rounds already."""
        out = self.draw(options)
        away = np.asarray(out.samples).reshape(self.samples.shape) - self.samples
        return Measured(
            np.asarray(out.rounds) + rounds_before,
            float(np.mean(out.model_evaluations)) + rounds_before,
            float(np.sqrt(np.mean(away**2, 1)).max()),
            in_turns(lambda: self.draw(options), lambda: self.draw({"method": "sequential"})),
        )


def in_turns(first: Callable[[], Any], second: Callable[[], Any]) -> float:
    """Return the ratio of the times of two functions that are compiled."""
    times: list[list[float]] = [[], []]
    for turn in range(TURNS):
        for function, seconds in zip((first, second), times, strict=True):
            if turn and seconds[0] > LONG:
                continue
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def verdict(rounds: np.ndarray, goal: str) -> str:
    """Say whether a goal is met, and by how much it is missed."""
    if not goal:
        return ""
    mean, slowest = rounds.mean() - int(goal), rounds.max() - int(goal)
    if mean > 0:
        return f"missed by {mean:.1f}, slowest by {slowest}"
    return "met" if slowest <= 0 else f"met on average, slowest {slowest} over"
