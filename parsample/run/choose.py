"""Which evaluation has the draws soonest on this device: by the time that warm-up took a step, then by measuring."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import PyTree

from parsample.engine import methods
from parsample.engine.planner import MARGIN
from parsample.run.progress import in_seconds
from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, draw

if TYPE_CHECKING:
    from parsample.run.segments import Run

# Seconds of the loop up to which nothing is measured: looking for a faster way compiles two programs, and is to cost a
# twentieth of the run. On an accelerator the faster way is likely to be there, and what was compiled to be used.
CHEAP, CHEAP_ON_ACCELERATOR = 60.0, 10.0
# Evaluations that every step takes at least: one to find it, one that sees nothing move.
FEWEST_EVALUATIONS = 2
# Windows of a pilot, its steps at most, and how often what takes less than SHORT seconds is timed.
PILOT_WINDOWS, PILOT, REPEATS, SHORT = 4, 2048, 5, 0.2
# Dimensions up to which Newton's method is tried, lifted or not: it works out so many derivatives a point.
LARGEST_NEWTON = 64


class Choice(NamedTuple):
    """How chains are evaluated, and why, in words."""

    plan: Plan
    words: str


def choose(run: "Run", plan: Plan, num_samples: int, seconds_per_step: float, is_tuned: bool = False) -> Choice:
    """Choose between the sequential loop and a parallel plan.

    Nothing is measured where the loop is done before that would pay. Then one batch of a window's steps is timed: where
    it takes as long as the loop over them, no iteration can be worth it. What passes this is tried on a pilot of a few
    windows. On an accelerator, where gradients that wait for each other are what costs, and where what is found is not
    done soon either, lifted Newton's method is tried next: it has fewest of them, and most work.

    Args:
        run: the chains, where warm-up left them.
        plan: to be tried.
        num_samples: steps that the chains are to make.
        seconds_per_step: of the loop over all chains, as warm-up saw it; infinite if it saw none.
        is_tuned: whether the steps were made for the parallel plan, which then is taken.

    Cost: nothing for runs that the loop ends in less than a minute (on an accelerator ten seconds), or a pilot of the
        loop where warm-up saw none; else compiling a few programs, and evaluating five windows, once or twice.
    """
    if is_tuned:
        return Choice(run.within_reach(plan), "the parallel evaluation, which the steps were tuned for")
    loop = run.within_reach(plan._replace(method=methods.Sequential()))
    if run.sampler.loop_only:
        return Choice(loop, f"the loop, by which alone {type(run.sampler).__name__} is evaluated")
    if seconds_per_step == float("inf"):
        steps = _steps_of_a_pilot(plan)
        seconds_per_step = _pilot(run, loop._replace(steps=steps)) / steps
    expected = seconds_per_step * num_samples
    cheap = CHEAP if _is_cpu() else CHEAP_ON_ACCELERATOR
    if expected < cheap:
        return Choice(loop, f"the loop, expected to take {in_seconds(expected)}: too short to look for better")
    best, said = (seconds_per_step, loop), ""
    for candidate in _to_try(run, plan):
        if best[0] * num_samples < cheap:
            break
        seconds, said = _seconds_of_a_step(run, candidate, seconds_per_step)
        if seconds * MARGIN < best[0]:
            best = seconds, candidate
    if best[1] is loop:
        return Choice(loop, f"the loop: {said}")
    seconds, plan = best
    words = (
        f"{methods.name_of(plan.method)} over {plan.window:,} steps: on {_steps_of_a_pilot(plan):,} steps a step took "
        f"{in_seconds(seconds)}, in the loop {in_seconds(seconds_per_step)}"
    )
    return Choice(plan, words)


def _is_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _to_try(run: "Run", plan: Plan) -> list[Plan]:
    """Return the plans that may be faster than the loop, that with the least work first."""
    plan = run.within_reach(plan)
    is_small = run.positions.shape[-1] <= LARGEST_NEWTON
    if _is_cpu() or run.sampler.points is None or not is_small:
        return [plan]
    return [plan, plan._replace(method=methods.LiftedNewton())]


def _seconds_of_a_step(run: "Run", plan: Plan, loop: float) -> tuple[float, str]:
    """Return what a step takes by a plan, infinite where it cannot be sooner than the loop, and why, in words."""
    batch = _seconds_of_a_batch(run, plan.window) / plan.window
    if FEWEST_EVALUATIONS * batch * MARGIN > loop:
        return float("inf"), (
            f"a step takes {in_seconds(loop)}, and in batches of {plan.window}, where each is "
            f"evaluated {FEWEST_EVALUATIONS} times at least, {in_seconds(FEWEST_EVALUATIONS * batch)} or more"
        )
    steps = _steps_of_a_pilot(plan)
    try:
        seconds = _pilot(run, plan._replace(steps=steps)) / steps
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return float("inf"), f"the device has no room for {type(plan.method).__name__} over {plan.window:,} steps"
    return seconds, f"on {steps} steps a step took {in_seconds(seconds)} in parallel, in the loop {in_seconds(loop)}"


def _steps_of_a_pilot(plan: Plan) -> int:
    return min(max(plan.window, min(PILOT_WINDOWS * plan.window, PILOT)), plan.steps)


def _pilot(run: "Run", plan: Plan) -> float:
    """Return what a segment takes without compiling: one that is short, the least of a few times."""
    least = run.segment(plan, run.first, 0)[1]
    if least > SHORT:
        return least
    return min(least, *(run.segment(plan, run.first, 0)[1] for _ in range(REPEATS)))


def _seconds_of_a_batch(run: "Run", size: int) -> float:
    """Return what one evaluation of `size` steps of every chain takes without compiling."""
    inputs = draw(run.sampler, run.rng_keys, run.positions, 0, size)
    return least_seconds(lambda: _steps(run.sampler, run.first, inputs))


def least_seconds(run: Callable[[], Any]) -> float:
    """Return what it takes to run something, without compiling: once where that is long, the least of a few times."""
    jax.block_until_ready(run())
    least = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(run())
        least = min(least, time.perf_counter() - began)
        if least > SHORT:
            break
    return least


@eqx.filter_jit
def _steps(sampler: Sampler, states: PyTree, inputs: PyTree) -> PyTree:
    """Make every step of each chain from the same state, all at once."""
    return jax.vmap(jax.vmap(sampler.transition, (None, 0)))(states, inputs)
