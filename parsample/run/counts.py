"""What is counted while chains run, and need not be kept for every step."""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np

from parsample.engine import methods
from parsample.engine.solution import Solution
from parsample.run.outside import Outside
from parsample.samplers.chains import Plan


class Comparison(NamedTuple):
    """The first segment by the sequential loop."""

    compared_steps: int
    parallel_seconds: float
    sequential_seconds: float
    largest_difference: float
    decisions_that_differ: int


NOT_COMPARED = Comparison(0, 0.0, 0.0, 0.0, 0)


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts over the pieces so far.

    Attributes:
        done: steps that were handed over, of each chain.
        window: of the plan.
        steps: of a segment of the plan.
        max_iterations: of the plan.
        is_loop: whether the plan is the sequential loop.
        atol: of the plan; None in stores of earlier versions, whose settings have it.
        rtol: the same.
        noise: of the plan.
        iterations: of each chain.
        evaluations: of each chain.
        finished: steps of each chain that were left to the sequential loop, those beyond the last draw not counted.
        approximate_steps: over all chains.
        largest_residual: over all chains and steps.
        divergences: over all chains.
        run_seconds: wall time of the segments.
        compile_seconds: wall time of compiling.
        seconds: since the first segment began.
        is_met: whether the draws are good enough to end.
        choice: how the plan was chosen, in words; "" where it was given.
        comparison: with the sequential loop.
        outside: the runs of a model outside of JAX, warm-up included; None for one in JAX.
        method: the name of the plan's in the table; "" for one with options, and in stores of earlier versions.
    """

    done: int
    window: int
    steps: int
    max_iterations: int
    is_loop: bool
    iterations: tuple[int, ...]
    evaluations: tuple[int, ...]
    finished: tuple[int, ...]
    approximate_steps: int = 0
    largest_residual: float = 0.0
    divergences: int = 0
    run_seconds: float = 0.0
    compile_seconds: float = 0.0
    seconds: float = 0.0
    is_met: bool = False
    choice: str = ""
    comparison: Comparison = NOT_COMPARED
    atol: float | None = None
    rtol: float | None = None
    noise: float = 0.0
    outside: Outside | None = None
    method: str = ""

    @staticmethod
    def begin(plan: Plan, num_chains: int) -> "Tally":
        """Return the counts before the first segment."""
        none, is_loop = (0,) * num_chains, isinstance(plan.method, methods.Sequential)
        found = Tally(0, plan.window, plan.steps, plan.max_iterations, is_loop, none, none, none)
        name = methods.name_of(plan.method)
        return dataclasses.replace(found, atol=plan.atol, rtol=plan.rtol, noise=plan.noise, method=name)

    def plan(self, plan: Plan) -> Plan:
        """Return the plan that the counts are of, which may have been made on another device, or by measuring."""
        known = methods.Sequential() if self.is_loop else plan.method
        method = methods.find(self.method) if self.method else known
        plan = plan._replace(method=method, window=self.window, steps=self.steps, max_iterations=self.max_iterations)
        return plan if self.atol is None else plan._replace(atol=self.atol, rtol=self.rtol, noise=self.noise)

    @property
    def segment_start(self) -> int:
        """The first step of the segment that the next step lies in."""
        return self.done // self.steps * self.steps

    @property
    def evaluated(self) -> int:
        """Steps of each chain that `evaluations` is of: whole segments, some of which may lie beyond the last draw."""
        return -(-self.done // self.steps) * self.steps

    def add(self, segment: Solution, first: int, last: int, seconds: float) -> "Tally":
        """Count the steps from `first` to before `last` of a segment on the host that took so long.

        What was counted for the whole segment is counted with its first step.
        """
        # The loop finishes a segment from some step to its end.
        left = self.steps - segment.finished
        finished = np.maximum(0, last - np.maximum(first, left))
        new = first == 0
        divergent = segment.details.info.get("is_divergent", np.zeros((1, 1)))
        return dataclasses.replace(
            self,
            done=self.done + last - first,
            iterations=_plus(self.iterations, segment.iterations) if new else self.iterations,
            evaluations=_plus(self.evaluations, segment.evaluations) if new else self.evaluations,
            finished=_plus(self.finished, finished),
            approximate_steps=self.approximate_steps + int(np.sum(~segment.converged_steps[:, first:last])),
            largest_residual=max(self.largest_residual, float(segment.residual[:, first:last].max())),
            divergences=self.divergences + int(np.sum(divergent[:, first:last])),
            run_seconds=self.run_seconds + (seconds if new else 0.0),
        )

    def to_json(self) -> str:
        """Return the counts as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Tally":
        """Return the counts of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        for name in ("iterations", "evaluations", "finished"):
            fields[name] = tuple(fields[name])
        fields["comparison"] = Comparison(*fields["comparison"])
        if fields.get("outside") is not None:
            fields["outside"] = Outside(*fields["outside"])
        return Tally(**fields)


def _plus(counts: tuple[int, ...], more: Any) -> tuple[int, ...]:
    # Python's whole numbers: the device's own have 32 bits.
    return tuple(count + int(number) for count, number in zip(counts, more, strict=True))
