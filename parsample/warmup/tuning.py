"""Tune for a parallel evaluation: pilot runs say which setting yields most effective draws a gradient in sequence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from parsample.engine import methods
from parsample.engine.predictability import lyapunov_exponent
from parsample.results.summary import smallest_ess
from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, draw, evaluated
from parsample.samplers.configured import Configured
from parsample.warmup.adapt import Adaptation
from parsample.warmup.coordinates import begin_chains, rounded_less
from parsample.warmup.noise import with_tolerance

# What is tried: trajectories of so many times the leapfrog steps that warm-up chose, at least one, which is MALA; each
# with these shares of the step size that it found.
TRIED = {1.0: (1.0, 0.7, 0.5), 1.5: (0.7, 0.5), 0.0: (1.0,)}
# The same where an iteration waits for one gradient, however long a trajectory is.
TRIED_LIFTED = {1.0: (1.0, 0.7, 0.5), 1.5: (0.7, 0.5), 2.0: (0.5, 0.35)}
# Steps of a pilot run, each chain.
PILOT = 512


class Moves(NamedTuple):
    """How a step goes along: trajectories, each of some leapfrog steps; None for a sampler without."""

    num_integration_steps: int | None
    num_trajectories: int = 1

    @classmethod
    def of(cls, sampler: Sampler) -> "Moves":
        """Return those of a sampler."""
        return cls(getattr(sampler, "num_integration_steps", None), getattr(sampler, "num_trajectories", 1))

    @property
    def gradients(self) -> int:
        """How many a step takes, one after the other, but for that where it begins."""
        return (self.num_integration_steps or 1) * self.num_trajectories

    def words(self, step_size: float) -> str:
        """Return what warm-up or tuning chooses, in words."""
        several = f"{self.num_trajectories} trajectories of " if self.num_trajectories > 1 else ""
        length = "" if self.num_integration_steps is None else f", {several}{self.num_integration_steps} leapfrog steps"
        return f"step size {step_size:.3g}{length}"


class Pilot(NamedTuple):
    """What a setting gave in a pilot run.

    Attributes:
        step_size: dimensionless, in standardised coordinates.
        moves: what a step was made of.
        acceptance_rate: the mean.
        ess_per_draw: smaller of bulk and tail effective sample size of the worst coordinate, over all draws.
        iterations: of the slowest chain, steps that were left to the loop counted as one each.
        steps: a chain.
        exponent: largest Lyapunov exponent of the first chain, natural logarithm per step.
        in_sequence: gradients of an iteration that wait for each other.
    """

    step_size: float
    moves: Moves
    acceptance_rate: float
    ess_per_draw: float
    iterations: int
    steps: int
    exponent: float
    in_sequence: int

    @property
    def per_round(self) -> float:
        """Effective draws of one chain for each gradient that has to wait for another, evaluated in parallel."""
        return self.ess_per_draw * self.steps / (self.iterations * self.in_sequence)

    @property
    def per_gradient(self) -> float:
        """Effective draws a gradient of the sequential loop."""
        return self.ess_per_draw / self.moves.gradients

    def words(self) -> str:
        """Return the setting and what it gave."""
        return (
            f"{self.moves.words(self.step_size)} ({self.ess_per_draw:.2g} effective draws a step, "
            f"{self.iterations} iterations for {self.steps} steps, exponent {self.exponent:.2g})"
        )


class Tuned(NamedTuple):
    """The setting with most effective draws a gradient in sequence, and all that were tried.

    Attributes:
        make: the sampler with its options.
        step_size: dimensionless, in standardised coordinates.
        chosen: its pilot run.
        sequential: that of the setting with most effective draws a gradient, which the loop would take.
        pilots: all of them.
    """

    make: Configured
    step_size: float
    chosen: Pilot
    sequential: Pilot
    pilots: tuple[Pilot, ...]

    @property
    def text(self) -> str:
        """What was traded, as a sentence."""
        if self.chosen == self.sequential:
            return f"{self.chosen.words()}, which is the best for the loop as well"
        gain = self.chosen.per_round / self.sequential.per_round
        return (
            f"{self.chosen.words()}; the best for the loop is {self.sequential.words()}: {gain:.3g} times as many "
            "effective draws for the gradients that have to wait for each other"
        )


def gradients_in_sequence(method: methods.Method, sampler: Sampler) -> int:
    """Return how many gradients of an iteration wait for each other.

    As many as in a step of the loop, and the one where the step begins; or one, where a method is lifted.
    """
    if method.is_lifted and sampler.points is not None:
        return 1
    return Moves.of(sampler).gradients + 1


def check_tune(tune: Any, make: Configured, method: str | methods.Method) -> None:
    """Raise ValueError unless `tune` is None, or "rounds" with a sampler and a method that there is a choice for."""
    if tune is None:
        return
    if tune != "rounds":
        raise ValueError(f"tune is {tune!r}, expected None or 'rounds' (the number of warm-up steps is num_warmup).")
    if make.target_acceptance is None:
        name = make.sampler_class.__name__
        raise ValueError(
            f"tune is 'rounds', but {name} has no accept/reject: its step size is its bias; leave tune out."
        )
    if method == "sequential" or isinstance(method, methods.Sequential):
        raise ValueError(
            f"tune is 'rounds', but method is {method!r}, expected a parallel one, such as 'quasi_newton'."
        )


def tune_for_rounds(make: Configured, adaptation: Adaptation, rng_keys: Array, plan: Plan) -> Tuned:
    """Try some settings on short runs from where warm-up ended, and choose that with most effective draws a round.

    A round is a gradient of every step of the window: all of them can run at once, and an iteration has as many in
    sequence as a step has, and one. Shorter steps mix less a draw, and make the chain more predictable, so that it
    needs fewer iterations; shorter trajectories have fewer gradients in sequence, too.

    Args:
        make: the sampler with its options.
        adaptation: what warm-up found.
        rng_keys: one a chain.
        plan: how the run is to be evaluated.

    Cost: three pilot runs of 512 steps; for a sampler with `num_integration_steps` six, which compiles three programs,
        or with a lifted method seven.
    """
    plan = plan._replace(steps=PILOT, window=min(plan.window, PILOT), max_iterations=PILOT)
    tried = [
        (maker, pilot(maker, adaptation, share * adaptation.step_size, rng_keys, plan))
        for maker, shares in _tried(make, plan.method)
        for share in shares
    ]
    # A setting whose chains did not move has no effective draws, NaN.
    order = lambda value: -1.0 if np.isnan(value) else value  # noqa: E731
    found, chosen = max(tried, key=lambda row: order(row[1].per_round))
    pilots = tuple(pilot for _, pilot in tried)
    sequential = max(pilots, key=lambda pilot: order(pilot.per_gradient))
    return Tuned(found, chosen.step_size, chosen, sequential, pilots)


def _tried(make: Configured, method: methods.Method) -> list[tuple[Configured, tuple[float, ...]]]:
    """Return what is tried: a sampler, and shares of the step size; that of warm-up comes first."""
    sampler = make(lambda x: -x @ x)
    length = getattr(sampler, "num_integration_steps", None)
    if length is None:
        return [(make, TRIED[1.0])]
    least = make.sampler_options.get("min_integration_steps") or 1
    lengths: dict[int, tuple[float, ...]] = {}
    tried = TRIED_LIFTED if gradients_in_sequence(method, sampler) == 1 else TRIED
    for times, shares in tried.items():
        lengths.setdefault(max(1, round(times * length)), shares)
    return [
        (make.chosen({**make.sampler_options, "num_integration_steps": count}), shares)
        for count, shares in lengths.items()
        if count >= least
    ]


def pilot(make: Configured, adaptation: Adaptation, step_size: float, rng_keys: Array, plan: Plan) -> Pilot:
    """Run a segment of a plan at a setting, from where warm-up ended, and say what it gave."""
    sampler = make(rounded_less(adaptation.density), jnp.asarray(step_size, adaptation.last.dtype))
    states = begin_chains.of(sampler)(adaptation.last, rng_keys, np.uint32(0))
    inputs = draw(sampler, rng_keys, adaptation.last, 0, plan.steps)
    plan = with_tolerance(plan, sampler, states, adaptation.last, rng_keys)
    found = evaluated((sampler, plan.traced(adaptation.last.dtype)), states, inputs)
    position, _, info, _ = found.details
    first = jax.tree.map(lambda leaf: leaf[0], (states, inputs))
    draws = np.asarray(position)
    return Pilot(
        step_size=step_size,
        moves=Moves.of(sampler),
        acceptance_rate=float(info["acceptance_rate"].mean()),
        ess_per_draw=smallest_ess({"position": draws}) / (draws.shape[0] * draws.shape[1]),
        iterations=int((found.iterations + found.finished).max()),
        steps=plan.steps,
        exponent=float(lyapunov_exponent(sampler.transition, *first).exponent),
        in_sequence=gradients_in_sequence(plan.method, sampler),
    )
