"""Chains after warm-up: run segment by segment, and compared with the sequential loop."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine import methods
from parsample.engine.arrays import to_jax
from parsample.engine.loop import after_the_loop
from parsample.engine.solution import Solution, Status
from parsample.results.form import Form
from parsample.results.groups import Groups, evaluation_group
from parsample.results.judgement import tells_energy
from parsample.run.counts import NOT_COMPARED, Comparison, Tally
from parsample.run.draws import variables_of
from parsample.run.keys import Keys
from parsample.run.outside import Counter
from parsample.run.settings import Settings
from parsample.run.until import Until, is_due
from parsample.samplers.base import BLOCK, Chain
from parsample.samplers.chains import Plan, draw, evaluated, is_loop, loop_plan, room_of_the_loop, run_part
from parsample.samplers.configured import Configured
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation
from parsample.warmup.coordinates import begin_chains, rounded_less
from parsample.warmup.hosted import is_hosted, place, speculate
from parsample.warmup.noise import with_tolerance
from parsample.workers.speculate import Speculation

# Diagnostics of a step whose name in ArviZ's schema is another than BlackJAX's, which the samplers use.
STATISTICS = {"is_divergent": "diverging", "num_integration_steps": "n_steps"}


class Job(NamedTuple):
    """What a run is asked for, checked.

    Attributes:
        target: to sample.
        make: the sampler.
        plan: how chains are evaluated, unless that is measured.
        piece: steps whose rows are handed over at a time; a segment of the plan is a whole number of them.
        settings: the options.
        good: when to end early.
        form: what the trace is made of.
        warmup_plan: how warm-up is evaluated.
        keys: all that is drawn follows from them.
        starts: where the caller has the chains start, flat positions; None where that is left to warm-up.
    """

    target: Target
    make: Configured
    plan: Plan
    piece: int
    settings: Settings
    good: Until
    form: Form
    warmup_plan: Plan
    keys: Keys
    starts: Float[Array, "chain dim"] | None = None

    @property
    def trajectories(self) -> int:
        """Of which a draw is made, once warm-up has chosen the sampler's options."""
        return int(self.make.sampler_options.get("num_trajectories", 1))


@runtime_checkable
class Rows(Protocol):
    """Where the rows of a run go, piece by piece, and from where its chains go on."""

    def states(self, like: PyTree) -> PyTree:
        """Return the unknowns that `add` was given last, in the form of `like`, which is where the chains begin."""

    def see(self, evaluation: dict[str, np.ndarray]) -> None:
        """Take what the iterations of the first segment saw."""

    def add(self, rows: Groups, tally: Tally, states: PyTree) -> None:
        """Take the rows of a piece, with the counts, the piece included.

        And the unknowns from which the run goes on: where the segment begins that the next step lies in.
        """

    def draws(self, group: str = "posterior") -> Sequence[Mapping[str, Any]]:
        """Return the draws so far, or their statistics, in parts."""


class _Found(NamedTuple):
    """A segment on the host.

    Attributes:
        segment: its solution.
        draws: its variables by name, each (chain, steps, ...).
        states: the unknowns that it began with.
        last: those at its end.
        start: its first step.
        seconds: that it took.
    """

    segment: Solution
    draws: Mapping[str, np.ndarray]
    states: PyTree
    last: PyTree
    start: int
    seconds: float

    @property
    def end(self) -> int:
        """The step after its last."""
        return self.start + self.segment.residual.shape[1]


class Run:
    """Chains after warm-up, and the time that compiling and running them took."""

    def __init__(
        self,
        make: Configured,
        adaptation: Adaptation,
        rng_keys: jax.Array,
        num_samples: int = 0,
        counter: Counter | None = None,
    ):
        """Put the chains where warm-up left them.

        Args:
            make: the sampler.
            adaptation: what warm-up found.
            rng_keys: one a chain.
            num_samples: for a model outside of JAX, the steps that the chains are to make, after which nothing is run.
            counter: of its runs.
        """
        self.counter = counter
        self.density = rounded_less(adaptation.density)
        step_size = to_jax(adaptation.step_size, adaptation.last.dtype)
        self.sampler = make(self.density, step_size)
        # What draws and begins, as in warm-up: it needs no form of the density that is rounded less.
        self.drawing: Any = make(adaptation.density, step_size).for_loop()
        self.positions, self.rng_keys = adaptation.last, rng_keys
        self.first = begin_chains.of(self.drawing)(self.positions, rng_keys, np.uint32(0))
        self.is_hosted, self.num_samples = is_hosted(self.density), num_samples
        # Of a target outside of JAX: the chains, with the runs that are under way, and the step where they stand.
        self.under_way: tuple[Speculation, int] | None = None
        if self.is_hosted:
            self.first = place(self.sampler, self.first, adaptation.last)
        self.step_size = adaptation.step_size
        self.compile_seconds = 0.0

    def within_reach(self, plan: Plan) -> Plan:
        """Return the plan with tolerances that rounding does not keep out of reach, where it leaves them open."""
        if self.is_hosted:  # whose plan leaves none open
            return plan
        return with_tolerance(plan, self.sampler, self.first, self.positions, self.rng_keys)

    def segment(
        self, plan: Plan, states: PyTree, start: int, report: Callable[[int], None] = lambda steps: None
    ) -> tuple[Solution, float]:
        """Run one segment, and say how long it took without compiling.

        `report` is told of the steps that a model outside of JAX has made so far.
        """
        if self.is_hosted:
            return self._hosted_segment(plan, states, start, report)
        inputs = draw(self.drawing, self.rng_keys, self.positions, start, plan.steps)
        room = room_of_the_loop(self.sampler, self.positions) if is_loop(plan) and not plan.history else None
        if room is not None and plan.steps % room == 0:
            return self._by_parts(plan.steps // room, room, states, inputs)
        began = time.perf_counter()
        self.program(plan, states, inputs)
        self.compile_seconds += time.perf_counter() - began
        began = time.perf_counter()
        segment = jax.block_until_ready(evaluated(self._given(plan), states, inputs))
        return segment, time.perf_counter() - began

    def _by_parts(self, parts: int, room: int, states: PyTree, inputs: PyTree) -> tuple[Solution, float]:
        """Run the loop by the program that warm-up was run with."""
        given = self.sampler.for_loop(), loop_plan(room), False
        step_sizes = np.full(len(self.positions), self.step_size, self.positions.dtype)
        began = time.perf_counter()
        run_part.lower(given, states, inputs, np.int32(0), np.int32(room), step_sizes).compile()
        self.compile_seconds += time.perf_counter() - began
        began, program, found = time.perf_counter(), run_part.of(given), []
        for part in range(parts):
            states, *rest = program(states, inputs, np.int32(part * room), np.int32(room), step_sizes)
            found.append(jax.device_get(rest))
        made, details = jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *found)
        finite = [np.isfinite(leaf).reshape(*leaf.shape[:2], -1).all(-1) for leaf in jax.tree.leaves(made)]
        solution = after_the_loop(made, details._replace(gradient=None), False, np.all(finite, 0), np)
        return solution, time.perf_counter() - began

    def program(self, plan: Plan, states: PyTree, inputs: PyTree) -> jax.stages.Compiled:
        """Return the compiled program of a plan, compiling it if it is new."""
        return evaluated.lower(self._given(plan), states, inputs).compile()

    def _given(self, plan: Plan) -> tuple[Chain, Plan]:
        """Return the sampler, in the form of which most programs are shared, and the plan."""
        sampler = self.sampler.for_loop() if is_loop(plan) else self.sampler
        return sampler, plan.traced(self.positions.dtype)

    def _hosted_segment(
        self, plan: Plan, states: PyTree, start: int, report: Callable[[int], None]
    ) -> tuple[Solution, float]:
        """Run the steps of a segment that are wanted; runs for the next one may be under way already."""
        began = time.perf_counter()
        if self.under_way is None or self.under_way[1] != start:

            def inputs(first: int, last: int) -> PyTree:
                first, last = start + first, start + last
                number = -(-last // BLOCK) - first // BLOCK
                blocks = [first // BLOCK * BLOCK + BLOCK * row for row in range(number)]
                # Block by block: a length of its own would need a program of its own.
                rows = [jax.device_get(draw(self.drawing, self.rng_keys, self.positions, row, BLOCK)) for row in blocks]
                cut = slice(first - blocks[0], last - blocks[0])
                return jax.tree.map(lambda *leaves: np.concatenate(leaves, 1)[:, cut], *rows)

            self.close()
            chains = speculate(self.sampler, states, inputs, self.num_samples - start, plan)
        else:
            chains = self.under_way[0]
        steps = min(plan.steps, self.num_samples - start)
        found = chains.evaluate(steps, report)
        self.under_way = chains, start + steps
        return found, time.perf_counter() - began

    def close(self) -> None:
        """Call off what is under way for steps that nobody asked for yet."""
        if self.under_way is not None:
            self.under_way[0].close()

    def all_segments(self, plan: Plan, tally: Tally, job: Job, report: Callable, kept: Rows) -> Tally:
        """Run the chains to their end, or until they are good.

        A segment is evaluated at once. Its rows are handed over in pieces, after each of which the run may end; what
        goes on from the middle of a segment evaluates it again, and passes over the pieces that are there.

        Args:
            plan: how.
            tally: of the pieces that are there.
            job: what is asked for.
            report: progress.
            kept: where the chains stand, and where their rows go.

        Returns:
            The counts.
        """
        num_samples = job.settings.num_samples
        states, began = kept.states(self.first), time.perf_counter() - tally.seconds
        found: _Found | None = None
        # Asked at the start of a turn: a run that was killed between a piece and the question asks again.
        while not (is_good := _is_good(job, tally, kept)) and tally.done < num_samples:
            if found is None or tally.done >= found.end:
                made = _beyond(tally.done - tally.segment_start, functools.partial(report, "sampling"))
                found = self._evaluate(plan, states, tally.segment_start, job, kept, made)
                states = found.last
                if not tally.done and not self.is_hosted and _is_compared(job.settings):
                    now = time.perf_counter()
                    tally = dataclasses.replace(tally, comparison=self.compare(plan, found.segment, found.seconds))
                    began += time.perf_counter() - now
            first = tally.done - found.start
            # Pieces are counted from step 0 of the chain, wherever a run has been interrupted.
            last = min((tally.done // job.piece + 1) * job.piece, num_samples) - found.start
            tally = tally.add(found.segment, first, last, found.seconds)
            elapsed = time.perf_counter() - began
            outside = None if self.counter is None else self.counter.read()
            tally = dataclasses.replace(tally, compile_seconds=self.compile_seconds, seconds=elapsed, outside=outside)
            rows = _rows(found, first, last, job.settings.thin, self.step_size)
            # A segment outside of JAX ends where the run does: what goes on from there begins it again, by runs that
            # are remembered.
            kept.add(rows, tally, found.last if tally.done == tally.segment_start else found.states)
            # Of a model outside of JAX the steps were told as they were made.
            report("sampling", 0 if self.is_hosted else last - first, **self._facts(found, tally, plan))
        return dataclasses.replace(tally, is_met=is_good)

    def _evaluate(
        self, plan: Plan, states: PyTree, start: int, job: Job, kept: Rows, made: Callable[[int], None]
    ) -> "_Found":
        """Evaluate the segment that begins at a step, and bring it to the host."""
        segment, seconds = self.segment(plan, states, start, made)
        draws = jax.device_get(variables_of((job.form.variables.naming, self.density), segment.details.position))
        # The history of the first segment alone is of use.
        segment = jax.device_get(segment if start == 0 else dataclasses.replace(segment, history=None))
        # On the host, where nothing is compiled for it.
        last = jax.tree.map(lambda leaf: to_jax(leaf[:, -1], leaf.dtype), segment.states)
        if start == 0:
            kept.see(evaluation_group(segment.history))
        _check_finite(segment.states, min(plan.steps, job.settings.num_samples - start), start)
        return _Found(segment, draws, states, last, start, seconds)

    def _facts(self, found: "_Found", tally: Tally, plan: Plan) -> dict[str, Any]:
        """Return what progress tells beside the steps."""
        return {
            "acceptance_rate": float(np.mean(found.segment.details.info["acceptance_rate"])),
            "divergences": tally.divergences,
            "step_size": float(np.mean(self.step_size)),
            "evaluations_per_step": float(np.mean(found.segment.evaluations)) / plan.steps,
            "iterations": int(np.max(found.segment.iterations)),
        }

    def compare(self, plan: Plan, parallel: Solution, parallel_seconds: float) -> Comparison:
        """Run the first segment by the sequential loop, and compare."""
        if is_loop(plan):
            return NOT_COMPARED
        compile_seconds = self.compile_seconds
        sequential, seconds = self.segment(plan._replace(method=methods.Sequential()), self.first, 0)
        self.compile_seconds = compile_seconds
        return Comparison(
            plan.steps,
            parallel_seconds,
            seconds,
            _largest_difference(parallel.states, sequential.states),
            int(np.sum(parallel.details.info["is_accepted"] != np.asarray(sequential.details.info["is_accepted"]))),
        )


def _is_compared(settings: Settings) -> bool:
    """Say whether the loop is to be run as well; where the method was chosen, that was by measuring it."""
    return not settings.is_auto if settings.compare is None else settings.compare


def _largest_difference(one: PyTree, other: PyTree) -> float:
    differences = jax.tree.map(lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)))), one, other)
    return max(jax.tree.leaves(differences))


def _check_finite(states: PyTree, num_steps: int, start: int) -> None:
    """Raise FloatingPointError unless the first `num_steps` states of every chain are finite; `start` is the first."""
    leaves = [leaf[:, :num_steps].reshape(*leaf[:, :num_steps].shape[:2], -1) for leaf in jax.tree.leaves(states)]
    finite = np.isfinite(np.concatenate(leaves, -1)).all(-1)
    if finite.all():
        return
    chain, step = np.argwhere(~finite)[0]
    raise FloatingPointError(
        f"chain {chain} left the finite numbers at step {start + step}. {Status.NOT_FINITE.remedy}"
    )


def _is_good(job: Job, tally: Tally, kept: Rows) -> bool:
    """Say whether the draws so far are good enough to end, if they are to be looked at now."""
    if not (job.good.is_given and tally.done):
        return False
    number, inside = divmod(tally.done, job.piece)
    if not ((is_due(number) and not inside) or tally.done >= job.settings.num_samples):
        return False
    stats = kept.draws("sample_stats")
    names = list(stats[0])
    transitions = tally.done * len(tally.iterations) * job.trajectories
    divergences = (tally.divergences, transitions) if "diverging" in names else None
    has_energy = "energy" in names and tells_energy(job.settings.sampler_name, job.settings.thin)
    energy = np.concatenate([part["energy"] for part in stats], 1) if has_energy else None
    return job.good.is_met(kept.draws(), tally.seconds, divergences, energy)


def _beyond(there: int, report: Callable[[int], None]) -> Callable[[int], None]:
    """Return what is told of steps, and passes on those after the first `there`."""

    def made(steps: int) -> None:
        nonlocal there
        new, there = max(0, steps - there), max(0, there - steps)
        if new:
            report(new)

    return made


def _rows(found: _Found, first: int, last: int, thin: int, step_size: float) -> Groups:
    """Return the rows of the steps from `first` to before `last` of a segment: every `thin`-th of the chain's."""
    # The last step of every `thin`, as NumPyro has it.
    chosen = slice(first + (-found.start - first - 1) % thin, last, thin)
    is_whole = thin == 1 and (first, last) == (0, found.end - found.start)

    def few(values: Any) -> np.ndarray:
        # A copy where it is less: a view would hold on to the whole segment.
        return values if is_whole else values[:, chosen].copy()

    details = found.segment.details
    stats = {"lp": few(details.lp)}
    stats |= {STATISTICS.get(name, name): few(values) for name, values in details.info.items()}
    stats["residual"] = few(found.segment.residual)
    stats["step_size"] = np.full_like(stats["lp"], step_size)
    return {"posterior": {name: few(values) for name, values in found.draws.items()}, "sample_stats": stats}
