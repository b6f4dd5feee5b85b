"""Warm-up: find the step size and the scale of the posterior, in segments with fixed parameters."""

import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine import methods
from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, begin, draw, evaluate_chains, start_keys
from parsample.samplers.configured import Configured
from parsample.samplers.mala import MALA
from parsample.targets.base import Target
from parsample.warmup.coordinates import Standardised, plain, to_standardised
from parsample.warmup.scale import check_mass, standardise, trimmed, unscaled

# Warm-up is counted in units of this fraction of its length; every segment is a whole number of units.
UNITS = 80
# Units of the segments after which the covariance is estimated anew; each is followed by `TUNING` units for the step
# size. With `FIRST` units before them and what is left after them they make up the whole.
COVARIANCE_SEGMENTS = (4, 8, 16, 28)
FIRST, TUNING = 8, 2
# The step size at which a sampler first chooses the options that depend on it: about that of a normal distribution.
FIRST_STEP_SIZE = 0.5
# Units more for the step size at which it chooses them again; it is tuned anew with these.
CHOOSING = 4
# Units of a part that is evaluated in parallel at a time; the segments above are whole numbers of such parts.
STRETCH = 4
# Statistics of the steps that are kept, as the samplers name them.
KEPT = ("acceptance_rate", "is_divergent")
# Step sizes stay within this many doublings and halvings of 1: where every proposal is accepted, whatever its length,
# they would grow for ever.
DOUBLINGS = 60
# The loop; the window, the number of steps and the tolerances have no meaning for it.
LOOP = Plan(methods.Sequential(), 1, 1, 1, 0.0, 0.0)
# How strongly dual averaging is drawn to its centre (gamma in its source).
SHRINKAGE = 0.1


class Adaptation(NamedTuple):
    """What warm-up found.

    Attributes:
        density: the target in coordinates where the posterior has about unit scale.
        step_size: dimensionless, in those coordinates.
        last: flat positions in the target's own coordinates, shape (chain, dim).
        draws: flat positions of all warm-up steps, shape (chain, steps, dim), empty unless they were asked for.
        stats: of all warm-up steps by name, each (chain, steps), empty unless they were asked for: `lp`,
            `acceptance_rate`, `step_size`, and `is_divergent` where the sampler has it.
        sampler_options: those to sample with, where a sampler or tuning chose some; None for those that were given.
        tuning: what was traded, in words.
    """

    density: Standardised
    step_size: float
    last: Float[Array, "chain dim"]
    draws: Float[np.ndarray, "chain steps dim"]
    stats: dict[str, np.ndarray]
    sampler_options: dict[str, Any] | None = None
    tuning: str = "none"


def covariance_steps(num_warmup: int) -> tuple[int, ...]:
    """Return the steps of warm-up after which it estimates the covariance anew."""
    unit = max(1, num_warmup // UNITS)
    begin, found = FIRST * unit, []
    for units in COVARIANCE_SEGMENTS:
        # A segment of one draw tells nothing.
        if num_warmup - begin > 1:
            found.append(min(begin + units * unit, num_warmup))
        begin += (units + TUNING) * unit
    return tuple(found)


class DualAveraging:
    """Steer the logarithm of the step size so that the mean acceptance tends to a target.

    Source: Hoffman & Gelman 2014, section 3.2; here an update sees the mean over a segment, so that the shrinkage of
    0.05 is too little: iterates would swing between far too large and far too small steps.
    """

    def __init__(self, step_size: float, target_acceptance: float):
        """Start from a step size; the iterates are drawn towards ten times that."""
        self.target = target_acceptance
        self.log_step = math.log(step_size)
        self.restart()

    def restart(self) -> None:
        """Forget the past, and go on from the current step size."""
        self.log_average = self.log_step
        self.center, self.error, self.count = self.log_step + math.log(2), 0.0, 0

    def update(self, acceptance: float) -> None:
        """Take the mean acceptance of a segment into account."""
        self.count += 1
        weight = 1 / (self.count + 10)
        self.error = (1 - weight) * self.error + weight * (self.target - acceptance)
        log_step = self.center - math.sqrt(self.count) / SHRINKAGE * self.error
        self.log_step = max(-DOUBLINGS * math.log(2), min(log_step, DOUBLINGS * math.log(2)))
        share = self.count**-0.75
        self.log_average = share * self.log_step + (1 - share) * self.log_average


@eqx.filter_jit
def _run_part(
    sampler: Sampler, states: PyTree, inputs: PyTree, plan: Plan
) -> tuple[PyTree, Float[Array, "chain steps dim"], dict[str, Array]]:
    """Return the unknowns at the end of some steps; flat positions after every step, and statistics of each."""
    density: Any = sampler.logdensity_fn
    found = evaluate_chains(sampler, states, inputs, plan)
    position, lp, info = found.details
    stats = {"lp": lp} | {name: info[name] for name in KEPT if name in info}
    last = jax.tree.map(lambda leaf: leaf[:, -1], found.states)
    return last, jax.vmap(jax.vmap(density.vector))(position), stats


def adapt(
    target: Target,
    sampler: type[Sampler] | Configured,
    vectors: Float[Array, "chain dim"],
    rng_keys: Array,
    num_warmup: int,
    *,
    step_size: float | None = None,
    mass: str = "auto",
    plan: Plan | None = None,
    density: Standardised | None = None,
    keep_draws: bool = False,
    report: Callable[[int], None] = lambda steps: None,
) -> Adaptation:
    """Adapt step size and covariance to the posterior, and what a sampler derives from the step size.

    Segments with fixed parameters follow each other: some short ones for the step size; then segments of doubling
    length, after each of which the covariance is estimated from the draws of all chains in it and the step size tuned
    again; the rest tunes the step size, for a sampler that chooses options by it (`Sampler.options_at`) also with
    these. Inside a segment the kernel is fixed, so it can be evaluated in parallel like any chain, and is the same
    chain whatever the method.

    Args:
        target: to sample.
        sampler: its class, with options or without. Its target acceptance steers the step size. A sampler without
            accept/reject is warmed up by MALA, and gets the step size that it asks for beside MALA's
            (`Sampler.beside_mala`). For one without a gradient (`Sampler.warm_up_by_mala`) MALA finds the covariance,
            and it only tunes its step size.
        vectors: starts, flat positions.
        rng_keys: one a chain.
        num_warmup: steps a chain. 0 leaves the coordinates that it begins in and, if it is not given, a step size of
            0.1.
        step_size: fixed by the user, dimensionless, in the standardised coordinates; None to adapt it, and to let
            the sampler choose the options that follow from it.
        mass: the structure of the covariance, one of `scale.MASSES`: "dense", "diagonal", "low_rank" (a diagonal and
            the directions that are far from it), or "auto": dense up to 100 dimensions, low rank above.
        plan: how segments are evaluated: method, window and tolerances; None for the sequential loop.
        density: coordinates to begin in; None for the target's own.
        keep_draws: return the positions and the statistics of every step.
        report: called with the number of steps of each part as it ends.

    Raises:
        ValueError: an unknown structure.

    Cost: the gradients of a step of the sampler, or of MALA's, a step, a chain, in sequence; by a parallel method what
        that costs, a few dozen steps at a time.

    Source: Stan's windowed adaptation (Stan reference manual, "HMC algorithm parameters"); here chains share what they
    learn, parameters change only between segments, and the covariance is regularised without a unit. The acceptance
    that steers the step size is the harmonic mean over the chains, as in Hoffman, Radul & Sountsov 2021 ("An adaptive
    MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo"), there of every step: a chain that is stuck
    counts for more than its share, and gets the smaller steps by which it leaves.
    """
    make = sampler if isinstance(sampler, Configured) else Configured(sampler)
    check_mass(mass)
    if num_warmup == 0:
        empty = np.empty((len(vectors), 0, vectors.shape[1]))
        return Adaptation(plain(target) if density is None else density, step_size or 0.1, vectors, empty, {})
    density = unscaled(plain(target), mass) if density is None else density
    adjusts = make.target_acceptance is not None
    warms_itself = adjusts and not make.warm_up_by_mala
    chooses = warms_itself and step_size is None
    warmer = make if warms_itself else Configured(MALA)
    if chooses:
        warmer = make.chosen(make.options_at(FIRST_STEP_SIZE))
    run = _Warmup(warmer, density, vectors, rng_keys, num_warmup, LOOP if plan is None else plan, report)
    run.find_step_size()
    run.tune(FIRST)
    for units in COVARIANCE_SEGMENTS:
        draws = run.segment(units)
        if draws.shape[1] > 1:
            run.density = standardise(density, draws.reshape(-1, draws.shape[-1]), mass)
            run.find_step_size()
        if not keep_draws:
            run.kept.clear()
        run.tune(TUNING)
    chosen = run.choose_options(make) if chooses else None
    if adjusts and not warms_itself:
        run.begin(make)
        run.find_step_size()
    while run.done < num_warmup:
        run.tune(1)
    found = run.step_size
    if not adjusts:
        share, power, power_of_dim = make.beside_mala
        found = share * found**power * vectors.shape[1] ** power_of_dim
    kept, stats = run.history() if keep_draws else (np.empty((len(vectors), 0, vectors.shape[1])), {})
    return Adaptation(trimmed(run.density), step_size or found, run.vectors, kept, stats, chosen)


class _Warmup:
    """Where warm-up stands."""

    def __init__(
        self,
        make: Configured,
        density: Standardised,
        vectors: Array,
        rng_keys: Array,
        num_warmup: int,
        plan: Plan,
        report: Callable[[int], None],
    ):
        """Begin with a sampler."""
        self.density, self.vectors = density, vectors
        self.rng_keys, self.report = rng_keys, report
        self.num_warmup, self.unit, self.done = num_warmup, max(1, num_warmup // UNITS), 0
        # One compiled program serves all segments of the loop, two those in parallel, which gain from longer parts.
        is_loop = isinstance(plan.method, methods.Sequential)
        self.plan, self.part = plan, self.unit if is_loop else STRETCH * self.unit
        self.kept: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self.averaging = DualAveraging(1.0, 0.0)
        self.begin(make)

    def begin(self, make: Configured) -> None:
        """Go on with this sampler from where the chains stand, and draw its inputs of all steps."""
        self.make = make
        self.averaging.target = make.target_acceptance or 0.0
        first = make(self.density, jnp.ones((), self.vectors.dtype))
        self.has_step_size = first.has_step_size
        self.inputs = draw(first, self.rng_keys, self.vectors, 0, self.num_warmup + self.unit)

    def start(self, step_size: float, step: int) -> tuple[Sampler, PyTree]:
        """Return the sampler with a step size, and its unknowns where the chains stand.

        Only positions go on from segment to segment; what else is unknown is drawn anew.
        """
        sampler = self.make(self.density, jnp.asarray(step_size, self.vectors.dtype))
        return sampler, begin(sampler, to_standardised(self.density, self.vectors), start_keys(self.rng_keys, step))

    def run(
        self, sampler: Sampler, states: PyTree, start: int, steps: int
    ) -> tuple[PyTree, Float[np.ndarray, "chain steps dim"], dict[str, np.ndarray]]:
        """Run `steps` steps with the inputs of those from `start` on: the unknowns at their end, draws and statistics.

        Of the last steps, which may be cut short, the unknowns are those of what was cut: nothing goes on from there.
        """
        # What is left at the end is the beginning of a whole unit: it needs no program of its own.
        size = max(steps, self.unit)
        inputs = jax.tree.map(lambda leaf: leaf[:, start : start + size], self.inputs)
        plan = self.plan._replace(steps=size, window=min(self.plan.window, size), max_iterations=max(64, size // 2))
        states, *found = _run_part(sampler, states, inputs, plan)
        draws, stats = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :steps], found)
        return states, draws, stats

    def segment(self, units: int) -> Float[np.ndarray, "chain steps dim"]:
        """Run a segment with fixed parameters, in parts of equal length so that few programs have to be compiled.

        What is put together is put together on the host, where nothing has to be compiled for it.
        """
        draws, accepted = [np.asarray(self.vectors)[:, None][:, :0]], np.zeros(len(self.vectors))
        first, end = self.done, min(self.done + units * self.unit, self.num_warmup)
        step_size = math.exp(self.averaging.log_step)
        if first < end:
            sampler, states = self.start(step_size, first)
        while self.done < end:
            steps = self.part if self.done + self.part <= end else min(self.unit, end - self.done)
            states, found, stats = self.run(sampler, states, self.done, steps)
            draws.append(found)
            accepted += stats["acceptance_rate"].mean(1) * steps
            self.kept.append((found, stats | {"step_size": np.full_like(stats["lp"], step_size)}))
            self.done += steps
            self.report(steps)
        if draws[-1].shape[1]:
            self.vectors = jnp.asarray(draws[-1][:, -1])
        if first < end and self.has_step_size:
            self.averaging.update(_over_chains(accepted / (end - first)))
        return np.concatenate(draws, 1)

    @property
    def step_size(self) -> float:
        """What has been found so far."""
        return math.exp(self.averaging.log_average)

    def tune(self, units: int) -> None:
        """Tune the step size."""
        for _ in range(units):
            self.segment(1)

    def choose_options(self, given: Configured) -> dict[str, Any] | None:
        """Let the sampler choose the options that it was not given, and go on with them; None if it chooses none."""
        if given.options_at(self.step_size) is None:
            return None
        self.tune(CHOOSING)
        chosen = given.options_at(self.step_size)
        if chosen != self.make.sampler_options:
            self.begin(given.chosen(chosen))
        return chosen

    def find_step_size(self) -> None:
        """Double or halve the step size until the acceptance of a unit crosses the target; go on from there."""
        if not self.has_step_size:
            return
        step_size, direction = 1.0, 0
        start = min(self.done, self.num_warmup - self.unit)
        for _ in range(DOUBLINGS):
            _, _, stats = self.run(*self.start(step_size, start), start, self.unit)
            wanted = 1 if _over_chains(stats["acceptance_rate"].mean(1)) > self.averaging.target else -1
            if direction not in (0, wanted):
                break
            direction = wanted
            step_size *= 2.0**direction
        self.averaging.log_step = math.log(step_size)
        self.averaging.restart()

    def history(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return positions and statistics of all steps, on the host; of the statistics those that every part has."""
        draws = np.concatenate([part for part, _ in self.kept], 1)
        names = [name for name in self.kept[0][1] if all(name in stats for _, stats in self.kept)]
        return draws, {name: np.concatenate([stats[name] for _, stats in self.kept], 1) for name in names}


def _over_chains(acceptance: Float[np.ndarray, " chain"]) -> float:
    """Return the harmonic mean, 0 where a chain accepted nothing."""
    return float(statistics.harmonic_mean(acceptance.tolist()))
