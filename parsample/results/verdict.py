"""The verdict about a parallel evaluation: what it cost, how exact it is, and what that means, in words."""

import dataclasses
from typing import Any

# The parallel evaluation must be this much faster than the loop before the verdict calls it faster, and conversely.
CLEAR = 1.1
# Chains that are further apart than this, in posterior standard deviations, are not called the same.
SAME = 0.01
# What it means that they are, or that accept decisions differ.
PARTED = (
    "differences within the tolerance grew, or accepting hung on one, until the two parted: from there on the draws "
    "are those of a valid chain of the same sampler, up to the tolerance, but not the loop's; smaller atol and rtol, "
    "with double precision where need be, put that off"
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run of the front door has to say about its evaluation.

    Attributes:
        method: its name, or its repr with the options.
        window: steps solved at a time.
        chains: how many.
        steps: a chain.
        iterations: linearise-and-scan passes of the slowest chain.
        evaluations_per_step: calls of the transition over steps and chains: the work amplification K.
        largest_residual: over all draws, in posterior standard deviations (the coordinates that chains run in).
        atol: tolerance, in the same units.
        rtol: tolerance relative to the state.
        finished_sequentially: steps, over all chains, that were left to the sequential loop.
        approximate_steps: steps, over all chains, that are not within tolerance, where an approximation was asked for.
        run_seconds: wall time of the evaluation, without compiling.
        compile_seconds: wall time of compiling it.
        compared_steps: a chain, on which the sequential loop was run for comparison; 0 if it was not.
        parallel_seconds: wall time of the evaluation of these steps, all chains.
        sequential_seconds: wall time of the loop over these steps, all chains.
        largest_difference: between the two, over these steps, in posterior standard deviations.
        decisions_that_differ: accept decisions, over these steps and all chains.
        tuning: what was traded to have more effective draws a gradient in sequence, in words; "none" without `tune`.
        sampler: its name, step size and leapfrog steps, in words; "" in traces of earlier versions.
    """

    method: str
    window: int
    chains: int
    steps: int
    iterations: int
    evaluations_per_step: float
    largest_residual: float
    atol: float
    rtol: float
    finished_sequentially: int
    approximate_steps: int
    run_seconds: float
    compile_seconds: float
    compared_steps: int
    parallel_seconds: float
    sequential_seconds: float
    largest_difference: float
    decisions_that_differ: int
    tuning: str = "none"
    sampler: str = ""

    @property
    def converged(self) -> bool:
        """Whether every step of every chain converged without help from the sequential loop."""
        return self.finished_sequentially == 0 and self.approximate_steps == 0

    @property
    def parts_from_the_loop(self) -> bool:
        """Whether the chain, though within tolerance, was seen to take another course than the loop's."""
        return self.approximate_steps == 0 and (self.decisions_that_differ > 0 or self.largest_difference > SAME)

    def sooner(self) -> str:
        """Return what the sequential loop gives sooner, where it is faster."""
        if self.approximate_steps:
            return "the exact chain sooner"
        return "equally good draws sooner" if self.parts_from_the_loop else "the same draws sooner"

    def rows(self) -> list[tuple[str, str]]:
        """Return the verdict as pairs of a heading and a text."""
        total = self.steps * self.chains
        if self.method == "sequential":
            outcome = "exact: the sequential loop itself"
        elif self.approximate_steps:
            outcome = (
                f"no, as asked: {self.approximate_steps:,} of {total:,} steps are not within tolerance, so this is not "
                "the chain of the loop"
            )
        elif self.converged:
            outcome = f"yes: all {total:,} steps of {self.chains} chains"
        else:
            outcome = (
                f"{total - self.finished_sequentially:,} of {total:,} steps; "
                f"the other {self.finished_sequentially:,} were finished by the sequential loop"
            )
        rows = [("sampler", self.sampler)] if self.sampler else []
        rows += [
            ("method", f"{self.method}, window {self.window}"),
            ("converged", outcome),
            ("iterations", f"{self.iterations:,} in the slowest chain, for {self.steps:,} steps"),
            ("evaluations per step", f"{self.evaluations_per_step:.2f}"),
            (
                "largest residual",
                f"{self.largest_residual:.2g} posterior sd (tolerance {self.atol:.2g} + {self.rtol:.2g} |state|)",
            ),
            ("wall time", f"{self.run_seconds:.2f} s, and {self.compile_seconds:.2f} s to compile"),
        ]
        if self.tuning != "none":
            rows.append(("tuned", self.tuning))
        if self.compared_steps:
            rows += [("sequential loop", self._against_the_loop()), ("same chain", self._same_chain())]
        return rows

    def _against_the_loop(self) -> str:
        ratio = self.parallel_seconds / self.sequential_seconds
        if ratio > CLEAR:
            words = f"the loop is {ratio:.1f} times faster here: method='sequential' gives {self.sooner()}"
        elif ratio < 1 / CLEAR:
            words = f"the parallel evaluation is {1 / ratio:.1f} times faster"
        else:
            words = "about as fast"
        return (
            f"{self.sequential_seconds:.2f} s against {self.parallel_seconds:.2f} s on {self.compared_steps:,} steps "
            f"of each chain; {words}"
        )

    def _same_chain(self) -> str:
        count = self.decisions_that_differ
        decisions = "1 accept decision differs" if count == 1 else f"{count or 'no'} accept decisions differ"
        facts = (
            f"largest difference {self.largest_difference:.2g} posterior sd, {decisions} "
            f"(on the same {self.compared_steps:,} steps)"
        )
        return f"not to the end: {facts}; {PARTED}" if self.parts_from_the_loop else facts

    def text(self) -> str:
        """Return the verdict as aligned lines."""
        rows = self.rows()
        width = max(len(heading) for heading, _ in rows)
        return "\n".join(f"{heading:<{width}}  {text}" for heading, text in rows)

    def attributes(self) -> dict[str, Any]:
        """Return the fields as attributes of a trace, with names that say where they come from."""
        return {f"evaluation_{name}": value for name, value in dataclasses.asdict(self).items()}


def read_verdict(trace: Any) -> Verdict:
    """Read the verdict from a trace that `parsample.sample` returned or `parsample.load_trace` read.

    Raises:
        ValueError: the trace holds none.
    """
    known = {field.name: f"evaluation_{field.name}" for field in dataclasses.fields(Verdict)}
    # Traces of earlier versions lack it.
    attributes = {known["tuning"]: "none", known["sampler"]: ""} | dict(trace.attrs)
    try:
        values = {name: attributes[attribute] for name, attribute in known.items()}
    except KeyError as missing:
        raise ValueError(
            f"trace has no attribute {missing}, expected a trace that parsample.sample returned; "
            "others hold no verdict."
        ) from None
    # Files return NumPy numbers where Python ones went in.
    return Verdict(**{name: getattr(value, "item", lambda value=value: value)() for name, value in values.items()})
