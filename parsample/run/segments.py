"""Chains after warm-up: run segment by segment, and compared with the sequential loop."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine import methods, planner
from parsample.engine.solution import Solution, Status
from parsample.results.form import Form
from parsample.results.groups import Groups, evaluation_group
from parsample.results.judgement import tells_energy
from parsample.run.counts import NOT_COMPARED, Comparison, Tally
from parsample.run.draws import variables_of
from parsample.run.settings import Settings
from parsample.run.until import Until, is_due
from parsample.samplers.chains import Plan, begin, draw, evaluate_chains, start_keys
from parsample.samplers.configured import Configured
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation
from parsample.warmup.coordinates import to_standardised
from parsample.warmup.noise import with_tolerance

# Diagnostics of a step whose name in ArviZ's schema is another than BlackJAX's, which the samplers use.
STATISTICS = {"is_divergent": "diverging", "num_integration_steps": "n_steps"}


class Job(NamedTuple):
    """What a run is asked for, checked.

    Attributes:
        target: to sample.
        make: the sampler.
        plan: how chains are evaluated, unless that is measured.
        settings: the options.
        good: when to end early.
        form: what the trace is made of.
        warmup_plan: how warm-up is evaluated.
        starts: where the caller has the chains start, flat positions; None where that is left to warm-up.
    """

    target: Target
    make: Configured
    plan: Plan
    settings: Settings
    good: Until
    form: Form
    warmup_plan: Plan
    starts: Float[Array, "chain dim"] | None = None


@runtime_checkable
class Rows(Protocol):
    """Where the rows of a run's segments go, and from where its chains go on."""

    def states(self, like: PyTree) -> PyTree:
        """Return the unknowns where the chains stand, in the form of `like`, which is where they begin."""

    def see(self, evaluation: dict[str, np.ndarray]) -> None:
        """Take what the iterations of the first segment saw."""

    def add(self, rows: Groups, tally: Tally, states: PyTree) -> None:
        """Take the rows of a segment, with the counts, the segment included, and where the chains stand after it."""

    def draws(self, group: str = "posterior") -> Sequence[Mapping[str, Any]]:
        """Return the draws so far, or their statistics, in parts."""


class Run:
    """Chains after warm-up, and the time that compiling and running them took."""

    def __init__(self, make: Configured, adaptation: Adaptation, rng_keys: jax.Array):
        """Put the chains where warm-up left them."""
        self.density = adaptation.density
        self.sampler = make(self.density, jnp.asarray(adaptation.step_size, adaptation.last.dtype))
        self.positions = to_standardised(self.density, adaptation.last)
        self.rng_keys = rng_keys
        self.first = begin(self.sampler, self.positions, start_keys(rng_keys))
        self.step_size = adaptation.step_size
        self.programs: list[tuple[Plan, Callable]] = []
        self.compile_seconds = 0.0

    def within_reach(self, plan: Plan) -> Plan:
        """Return the plan with tolerances that rounding does not keep out of reach, where it leaves them open."""
        return with_tolerance(plan, self.sampler, self.first, self.positions, self.rng_keys)

    def segment(self, plan: Plan, states: PyTree, start: int) -> tuple[Solution, float]:
        """Run one segment, and say how long it took without compiling."""
        inputs = draw(self.sampler, self.rng_keys, self.positions, start, plan.steps)
        program = self.program(plan, states, inputs)
        began = time.perf_counter()
        given = plan.traced(self.positions.dtype)
        segment = jax.block_until_ready(program(self.sampler, states, inputs, given))
        return segment, time.perf_counter() - began

    def program(self, plan: Plan, states: PyTree, inputs: PyTree) -> Callable:
        """Return the compiled program of a plan, compiling it if it is new."""
        for known, program in self.programs:
            # A method may hold arrays, which have neither a hash nor a plain equality.
            if known[1:] == plan[1:] and bool(eqx.tree_equal(known.method, plan.method)):
                return program
        began = time.perf_counter()
        run: Any = eqx.filter_jit(evaluate_chains)
        compiled = run.lower(self.sampler, states, inputs, plan.traced(self.positions.dtype)).compile()
        self.compile_seconds += time.perf_counter() - began
        self.programs.append((plan, compiled))
        return compiled

    def all_segments(self, plan: Plan, tally: Tally, job: Job, report: Callable, kept: Rows) -> Tally:
        """Run the chains to their end, or until they are good.

        Args:
            plan: how.
            tally: of the segments that are there.
            job: what is asked for.
            report: progress.
            kept: where the chains stand, and where their rows go.

        Returns:
            The counts.
        """
        num_samples = job.settings.num_samples
        states, began = kept.states(self.first), time.perf_counter() - tally.seconds
        naming = job.form.variables.naming
        # Asked at the start of a turn: a run that was killed between a segment and the question asks again.
        while not (is_good := _is_good(job, tally, kept)) and tally.done < num_samples:
            start, length = tally.done, min(plan.steps, num_samples - tally.done)
            found, seconds = self.segment(plan, states, start)
            states = jax.tree.map(lambda leaf: leaf[:, -1], found.states)
            draws = jax.device_get(variables_of(naming, self.density, found.details.position))
            # The history of the first segment alone is of use.
            segment = jax.device_get(found if start == 0 else dataclasses.replace(found, history=None))
            if start == 0:
                kept.see(evaluation_group(segment.history))
            _check_finite(segment.states, length, start)
            tally = tally.add(segment, num_samples, seconds)
            if start == 0 and job.settings.compare:
                now = time.perf_counter()
                tally = dataclasses.replace(tally, comparison=self.compare(plan, segment, seconds))
                began += time.perf_counter() - now
            elapsed = time.perf_counter() - began
            tally = dataclasses.replace(tally, compile_seconds=self.compile_seconds, seconds=elapsed)
            kept.add(_rows(segment, draws, start, length, job.settings.thin, self.step_size), tally, states)
            report(
                "sampling",
                length,
                acceptance_rate=float(np.mean(segment.details.info["acceptance_rate"])),
                divergences=tally.divergences,
                step_size=float(np.mean(self.step_size)),
                evaluations_per_step=float(np.mean(segment.evaluations)) / plan.steps,
                iterations=int(np.max(segment.iterations)),
            )
        return dataclasses.replace(tally, is_met=is_good)

    def choose(self, plan: Plan) -> Plan:
        """Time the candidates on the first segment, and return the plan of the fastest."""
        plans = {"sequential": plan._replace(method=methods.Sequential()), "quasi_newton": plan}
        runs = {name: lambda plan=plan: self.segment(plan, self.first, 0)[0] for name, plan in plans.items()}
        return plans[planner.fastest(runs, "sequential")[0]]

    def compare(self, plan: Plan, parallel: Solution, parallel_seconds: float) -> Comparison:
        """Run the first segment by the sequential loop, and compare."""
        if isinstance(plan.method, methods.Sequential):
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
    if not (is_due(tally.done // tally.steps) or tally.done >= job.settings.num_samples):
        return False
    stats = kept.draws("sample_stats")
    names = list(stats[0])
    steps = min(tally.done, job.settings.num_samples) * len(tally.iterations)
    divergences = (tally.divergences, steps) if "diverging" in names else None
    has_energy = "energy" in names and tells_energy(job.settings.sampler_name, job.settings.thin)
    energy = np.concatenate([part["energy"] for part in stats], 1) if has_energy else None
    return job.good.is_met(kept.draws(), tally.seconds, divergences, energy)


def _rows(
    segment: Solution, draws: Mapping[str, np.ndarray], start: int, kept: int, thin: int, step_size: float
) -> Groups:
    """Return the rows of a segment that are kept: of its first `kept` steps every `thin`-th, counted from step 1."""
    # The last step of every `thin`, as NumPyro has it.
    chosen = slice((-start - 1) % thin, kept, thin)

    def few(values: Any) -> np.ndarray:
        # A copy where it is less: a view would hold on to the whole segment.
        return values[:, :kept] if thin == 1 else values[:, chosen].copy()

    stats = {"lp": few(segment.details.lp)}
    stats |= {STATISTICS.get(name, name): few(values) for name, values in segment.details.info.items()}
    stats["residual"] = few(segment.residual)
    stats["step_size"] = np.full_like(stats["lp"], step_size)
    return {"posterior": {name: few(values) for name, values in draws.items()}, "sample_stats": stats}
