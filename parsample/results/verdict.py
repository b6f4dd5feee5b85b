"""The verdict about a run: whether its draws are good, what its evaluation cost, how exact it is, and what to do."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from parsample.results.advice import advise
from parsample.results.judgement import Judgement, judge
from parsample.results.trace import as_datatree
from parsample.results.words import PYTHON, Caller

if TYPE_CHECKING:
    import pandas

# The parallel evaluation must be this much faster than the loop before the verdict calls it faster, and conversely.
CLEAR = 1.1
# Chains that are further apart than this, in posterior standard deviations, are not called the same.
SAME = 0.01
# Seconds of a run outside of JAX, below which sending it somewhere takes longer.
SHORT_RUN = 1e-3
# Where the loop finishes fewer steps than this share, nothing is to be gained by another method.
MANY = 0.01
NOTHING = "Nothing needs to be done: use the draws."
# What it means that they are, or that accept decisions differ.
PARTED = (
    "differences within the tolerance grew, or accepting hung on one, until the two parted: from there on the draws "
    "are those of a valid chain of the same sampler, up to the tolerance, but not the loop's; smaller {atol} and "
    "{rtol}, with double precision where need be, put that off"
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run of the front door has to say: about its draws, which it judges when it is asked, and its evaluation.

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
        noise: the rounding noise of a step that the tolerance was chosen by, in posterior standard deviations; 0 where
            the tolerance was given, or none was needed.
        choice: by method "auto", what was chosen and why; "" where the method was given.
        moved_chains: how many times warm-up moved a chain, from where the posterior has next to nothing to where others
            were.
        model_lanes: of a model outside of JAX, the runs that could be under way at the same time; 0 for one in JAX.
        model_runs: its runs, warm-up included.
        model_remembered: positions that were asked for again, and not run again.
        model_rounds: batches that were sent to the workers.
        model_failures: runs that failed.
        model_rejected: positions that count as outside of the support for it.
        model_example: the last failure and its position, in words.
        model_busy: seconds that the model took, over all workers.
        model_idle: seconds that workers had nothing to do.
        trace: that it is of, whose draws are judged; None for one that is about the evaluation alone.
        summary: of the trace, by `parsample.summarize`; None to work it out.
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
    noise: float = 0.0
    choice: str = ""
    moved_chains: int = 0
    model_lanes: int = 0
    model_runs: int = 0
    model_remembered: int = 0
    model_rounds: int = 0
    model_failures: int = 0
    model_rejected: int = 0
    model_example: str = ""
    model_busy: float = 0.0
    model_idle: float = 0.0
    trace: Any = dataclasses.field(default=None, repr=False, compare=False)
    summary: pandas.DataFrame | None = dataclasses.field(default=None, repr=False, compare=False)

    @functools.cached_property
    def judgement(self) -> Judgement | None:
        """Whether the draws are good, and by which numbers; always of what is in the trace."""
        return None if self.trace is None else judge(self.trace, self.summary)

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

    def rows(self, caller: Caller = PYTHON) -> list[tuple[str, str]]:
        """Return the verdict as pairs of a heading and a text: the draws, what to do, and the evaluation."""
        if self.judgement is None:
            return self.evaluation_rows(caller)
        headings = ["what to do", *[""] * len(self.advice(caller))]
        advice = list(zip(headings, self.advice(caller), strict=False))
        return [*self.judgement.rows(caller), *advice, *self.evaluation_rows(caller)]

    def advice(self, caller: Caller = PYTHON) -> list[str]:
        """Return what a reader should do, a sentence each, in the words of the caller; never empty."""
        advice = advise(self.judgement, caller) if self.judgement is not None else []
        if self.finished_sequentially > MANY * self.steps * self.chains:
            advice.append(
                "The draws are right, but the loop had to finish many steps: try a smaller step size or another method "
                f"({caller.function('parsample.forecast')} tells which)."
            )
        if self.model_runs and self.model_busy < SHORT_RUN * self.model_runs:
            advice.append(
                f"A run of the model takes {1000 * self.model_busy / self.model_runs:.2g} ms, less than it takes to "
                "send it somewhere: write it in JAX, or let it take many positions at once (vectorized=True)."
            )
        if self.model_rejected:
            advice.append(
                f"{self.model_rejected:,} positions failed and count as outside of the support: see whether that is "
                "right where the posterior is; the last was " + self.model_example + "."
            )
        if self.compared_steps and self.parallel_seconds > CLEAR * self.sequential_seconds:
            advice.append(f"On this device {caller.option('method', 'sequential')} gives {self.sooner()}.")
        if self.parts_from_the_loop:
            advice.append(
                "The draws are those of a valid chain, up to the tolerance, and not the same as the loop's: smaller "
                f"{caller.name('atol')} and {caller.name('rtol')}, with double precision where need be, put off where "
                f"they part; {caller.option('method', 'sequential')} gives the loop's."
            )
        return advice or [NOTHING]

    def evaluation_rows(self, caller: Caller = PYTHON) -> list[tuple[str, str]]:
        """Return what there is to say about the evaluation, as pairs of a heading and a text."""
        rows = [("sampler", self.sampler)] if self.sampler else []
        if self.moved_chains:
            moved = "one chain" if self.moved_chains == 1 else f"chains {self.moved_chains} times"
            rows.append(("warm-up", f"moved {moved} from where the posterior has next to nothing to where others were"))
        if self.method == "sequential":
            rows += [("method", self.method), ("converged", "exact: the sequential loop itself")]
        else:
            rows += self._parallel_rows()
        rows += self._model_rows()
        if self.choice:
            rows.append(("chosen", self.choice))
        rows.append(("wall time", f"{self.run_seconds:.2f} s, and {self.compile_seconds:.2f} s to compile"))
        if self.tuning != "none":
            rows.append(("tuned", self.tuning))
        if self.compared_steps:
            rows += [("sequential loop", self._against_the_loop(caller)), ("same chain", self._same_chain(caller))]
        return rows

    def _model_rows(self) -> list[tuple[str, str]]:
        """Return what there is to say about the runs of a model outside of JAX."""
        if not self.model_lanes:
            return []
        share = self.model_busy / max(self.model_busy + self.model_idle, 1e-9)
        workers = "1 worker" if self.model_lanes == 1 else f"{self.model_lanes:,} workers"
        mean = self.model_busy / max(self.model_runs, 1)
        rows = [
            (
                "model runs",
                f"{self.model_runs:,} in {self.model_rounds:,} rounds, warm-up included; "
                f"{self.model_remembered:,} more were remembered",
            ),
            (
                "workers",
                f"{workers}, busy {share:.0%} of the time: {self.model_busy:.4g} s of runs, {1000 * mean:.3g} ms each",
            ),
        ]
        if self.model_failures:
            rows.append(("failures", f"{self.model_failures:,} runs; the last: {self.model_example}"))
        return rows

    def _parallel_rows(self) -> list[tuple[str, str]]:
        total = self.steps * self.chains
        if self.approximate_steps:
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
        return [
            ("method", f"{self.method}, window {self.window}"),
            ("converged", outcome),
            self._iterations_row(),
            ("evaluations per step", f"{self.evaluations_per_step:.2f}"),
            ("largest residual", f"{self.largest_residual:.2g} posterior sd ({self._tolerance()})"),
        ]

    def _iterations_row(self) -> tuple[str, str]:
        if self.model_lanes:
            return "rounds", f"{self.iterations:,} of runs, for {self.steps:,} steps that the loop makes one by one"
        return "iterations", f"{self.iterations:,} in the slowest chain, for {self.steps:,} steps"

    def _tolerance(self) -> str:
        tolerance = f"tolerance {self.atol:.2g} + {self.rtol:.2g} |state|"
        return f"{tolerance}; rounding noise of a step: {self.noise:.2g}" if self.noise else tolerance

    def _against_the_loop(self, caller: Caller) -> str:
        ratio = self.parallel_seconds / self.sequential_seconds
        if ratio > CLEAR:
            remedy = caller.option("method", "sequential")
            words = f"the loop is {ratio:.1f} times faster here: {remedy} gives {self.sooner()}"
        elif ratio < 1 / CLEAR:
            words = f"the parallel evaluation is {1 / ratio:.1f} times faster"
        else:
            words = "about as fast"
        return (
            f"{self.sequential_seconds:.2f} s against {self.parallel_seconds:.2f} s on {self.compared_steps:,} steps "
            f"of each chain; {words}"
        )

    def _same_chain(self, caller: Caller) -> str:
        count = self.decisions_that_differ
        decisions = "1 accept decision differs" if count == 1 else f"{count or 'no'} accept decisions differ"
        facts = (
            f"largest difference {self.largest_difference:.2g} posterior sd, {decisions} "
            f"(on the same {self.compared_steps:,} steps)"
        )
        if not self.parts_from_the_loop:
            return facts
        return f"not to the end: {facts}; {PARTED.format(atol=caller.name('atol'), rtol=caller.name('rtol'))}"

    def text(self, caller: Caller = PYTHON) -> str:
        """Return the verdict as aligned lines."""
        rows = self.rows(caller)
        width = max(len(heading) for heading, _ in rows)
        return "\n".join(f"{heading:<{width}}  {text}" for heading, text in rows)

    def attributes(self) -> dict[str, Any]:
        """Return the fields as attributes of a trace, with names that say where they come from."""
        return {f"evaluation_{name}": value for name, value in self.to_dict().items()}

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of the evaluation by name."""
        return {name: getattr(self, name) for name in EVALUATION_FIELDS}


# What a trace says that knows of no model outside of JAX.
WITHOUT_MODEL = {row.name: row.default for row in dataclasses.fields(Verdict) if row.name.startswith("model_")}
EVALUATION_FIELDS = [field.name for field in dataclasses.fields(Verdict) if field.name not in ("trace", "summary")]


def read_verdict(trace: Any, summary: pandas.DataFrame | None = None) -> Verdict:
    """Read the verdict from a trace that `parsample.sample` returned or `parsample.load_trace` read.

    Args:
        trace: its attributes tell of the evaluation; its draws are judged (`parsample.judge`) when they are asked for.
        summary: of it, by `parsample.summarize`; None to work it out then.

    Raises:
        ValueError: the trace holds none.
    """
    known = {name: f"evaluation_{name}" for name in EVALUATION_FIELDS}
    earlier = {"tuning": "none", "sampler": "", "noise": 0.0, "choice": "", "moved_chains": 0, **WITHOUT_MODEL}
    attributes = {known[name]: value for name, value in earlier.items()} | dict(as_datatree(trace).attrs)
    try:
        values = {name: attributes[attribute] for name, attribute in known.items()}
    except KeyError as missing:
        raise ValueError(
            f"trace has no attribute {missing}, expected a trace that parsample.sample returned; "
            "others hold no verdict."
        ) from None
    # Files return NumPy numbers where Python ones went in.
    plain = {name: getattr(value, "item", lambda value=value: value)() for name, value in values.items()}
    return Verdict(**plain, trace=trace, summary=summary)
