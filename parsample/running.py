"""Chains after warm-up: run segment by segment, and compared with the sequential loop."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from parsample.chains import Plan, Segment, begin, draw, run_segment, start_keys
from parsample.coordinates import to_standardised
from parsample.engine import methods, planner
from parsample.engine.solution import Status
from parsample.samplers.configured import Configured
from parsample.stopping import Until
from parsample.warmup import Adaptation


class Comparison(NamedTuple):
    """The first segment by the sequential loop."""

    compared_steps: int
    parallel_seconds: float
    sequential_seconds: float
    largest_difference: float
    decisions_that_differ: int


NOT_COMPARED = Comparison(0, 0.0, 0.0, 0.0, 0)


class Run:
    """Chains after warm-up, and the time that compiling and running them took."""

    def __init__(self, make: Configured, adaptation: Adaptation, rng_keys: jax.Array):
        """Put the chains where warm-up left them."""
        self.density = adaptation.density
        self.sampler = make(self.density, jnp.asarray(adaptation.step_size, adaptation.last.dtype))
        self.positions = to_standardised(self.density, adaptation.last)
        self.rng_keys = rng_keys
        self.first = begin(self.sampler, self.positions, start_keys(rng_keys))
        self.programs: list[tuple[Plan, Callable]] = []
        self.compile_seconds = self.run_seconds = self.first_seconds = 0.0

    def segment(self, plan: Plan, states: PyTree, start: int) -> tuple[Segment, float]:
        """Run one segment, and say how long it took without compiling."""
        inputs = draw(self.sampler, self.rng_keys, self.positions, start, plan.steps)
        program = self.program(plan, states, inputs)
        began = time.perf_counter()
        segment = jax.block_until_ready(program(self.sampler, states, inputs, plan))
        return segment, time.perf_counter() - began

    def program(self, plan: Plan, states: PyTree, inputs: PyTree) -> Callable:
        """Return the compiled program of a plan, compiling it if it is new."""
        for known, program in self.programs:
            # A method may hold arrays, which have neither a hash nor a plain equality.
            if known[1:] == plan[1:] and bool(eqx.tree_equal(known.method, plan.method)):
                return program
        began = time.perf_counter()
        run: Any = eqx.filter_jit(run_segment)
        compiled = run.lower(self.sampler, states, inputs, plan).compile()
        self.compile_seconds += time.perf_counter() - began
        self.programs.append((plan, compiled))
        return compiled

    def all_segments(self, plan: Plan, num_samples: int, report: Callable, good: Until) -> tuple[list[Segment], bool]:
        """Run the chains to their end, or until they are good; what each segment gave moves to the host.

        Returns:
            The segments, and whether they are good.
        """
        segments: list[Segment] = []
        states, done, divergences, began = self.first, 0, 0, time.perf_counter()
        while done < num_samples:
            segment, seconds = self.segment(plan, states, done)
            states = jax.tree.map(lambda leaf: leaf[:, -1], segment.states)
            segment = jax.device_get(segment)
            _check_finite(segment.states, num_samples - done, done)
            self.run_seconds += seconds
            self.first_seconds = self.first_seconds or seconds
            segments.append(segment)
            kept = min(plan.steps, num_samples - done)
            divergences += int(np.sum(segment.info.get("is_divergent", np.zeros((1, 1)))[:, :kept]))
            report(
                "sampling",
                kept,
                acceptance_rate=float(np.mean(segment.info["acceptance_rate"])),
                divergences=divergences,
                evaluations_per_step=float(np.mean(segment.evaluations)) / plan.steps,
                iterations=int(np.max(segment.iterations)),
            )
            done += plan.steps
            if good.is_given and good.is_met([part.draws for part in segments], time.perf_counter() - began):
                return segments, True
        return segments, False

    def choose(self, plan: Plan) -> Plan:
        """Time the candidates on the first segment, and return the plan of the fastest."""
        plans = {"sequential": plan._replace(method=methods.Sequential()), "quasi_newton": plan}
        runs = {name: lambda plan=plan: self.segment(plan, self.first, 0)[0] for name, plan in plans.items()}
        return plans[planner.fastest(runs, "sequential")[0]]

    def compare(self, plan: Plan, parallel: Segment) -> Comparison:
        """Run the first segment by the sequential loop, and compare."""
        if isinstance(plan.method, methods.Sequential):
            return NOT_COMPARED
        compile_seconds = self.compile_seconds
        sequential, seconds = self.segment(plan._replace(method=methods.Sequential()), self.first, 0)
        self.compile_seconds = compile_seconds
        return Comparison(
            plan.steps,
            self.first_seconds,
            seconds,
            _largest_difference(parallel.states, sequential.states),
            int(np.sum(parallel.info["is_accepted"] != np.asarray(sequential.info["is_accepted"]))),
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
