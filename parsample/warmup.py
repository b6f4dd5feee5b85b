"""Warm-up: find the step size and the scale of the posterior, in segments with fixed parameters."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.chains import draw, start_keys
from parsample.coordinates import LARGEST_DENSE, Standardised, StandardNormal, plain
from parsample.samplers.base import Sampler
from parsample.samplers.configured import Configured
from parsample.samplers.mala import MALA
from parsample.targets.base import Target

# Warm-up is counted in units of this fraction of its length; every segment is a whole number of units.
UNITS = 80
# Units of the segments after which the covariance is estimated anew; each is followed by `TUNING` units for the step
# size. With `FIRST` units before them and what is left after them they make up the whole.
COVARIANCE_SEGMENTS = (4, 8, 16, 28)
FIRST, TUNING = 8, 2
# Step sizes stay within this many doublings and halvings of 1: where every proposal is accepted, whatever its length,
# they would grow for ever.
DOUBLINGS = 60
# How strongly dual averaging is drawn to its centre (gamma in its source).
SHRINKAGE = 0.1


class Adaptation(NamedTuple):
    """What warm-up found.

    Attributes:
        density: the target in coordinates where the posterior has about unit scale.
        step_size: dimensionless, in those coordinates.
        last: flat positions in the target's own coordinates, shape (chain, dim).
        draws: flat positions of all warm-up steps, shape (chain, steps, dim), empty unless they were asked for.
    """

    density: Standardised
    step_size: float
    last: Float[Array, "chain dim"]
    draws: Float[np.ndarray, "chain steps dim"]


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
def _run_segment(
    make: Configured,
    density: Standardised,
    step_size: Array,
    vectors: Array,
    rng_keys: Array,
    inputs: PyTree,
) -> tuple[Array, Array]:
    """Run all chains for a segment: positions after every step (chain, steps, dim), and the mean acceptance."""
    sampler = make(density, step_size)

    def chain(vector: Array, rng_key: Array, inputs: PyTree) -> tuple[Array, Array]:
        def step(state, input):
            state, info = sampler.step(state, input)
            return state, (density.vector(state.position), info.acceptance_rate)

        return jax.lax.scan(step, sampler.init(density.inverse(vector), rng_key), inputs)[1]

    draws, acceptance = jax.vmap(chain)(vectors, rng_keys, inputs)
    return draws, acceptance.mean()


def adapt(
    target: Target,
    sampler: type[Sampler] | Configured,
    vectors: Float[Array, "chain dim"],
    rng_keys: Array,
    num_warmup: int,
    *,
    step_size: float | None = None,
    keep_draws: bool = False,
    report: Callable[[int], None] = lambda steps: None,
) -> Adaptation:
    """Adapt step size and covariance to the posterior, sequentially.

    Segments with fixed parameters follow each other: some short ones for the step size; then segments of doubling
    length, after each of which the covariance is estimated from the draws of all chains in it (dense up to 100
    dimensions, diagonal above) and the step size tuned again; the rest tunes the step size.

    Args:
        target: to sample.
        sampler: its class, with options or without. Its target acceptance steers the step size. A sampler without
            accept/reject is warmed up by MALA, and gets the step size that it asks for beside MALA's
            (`Sampler.beside_mala`). For one without a gradient (`Sampler.warm_up_by_mala`) MALA finds the covariance,
            and it only tunes its step size.
        vectors: starts, flat positions.
        rng_keys: one a chain.
        num_warmup: steps a chain. 0 leaves the target's own coordinates and, if it is not given, a step size of 0.1.
        step_size: fixed by the user, dimensionless, in the standardised coordinates; None to adapt it.
        keep_draws: return the positions of every step.
        report: called with the number of steps of each segment as it ends.

    Cost: one gradient a step, a chain.

    Source: Stan's windowed adaptation (Stan reference manual, "HMC algorithm parameters"); here chains share what they
    learn, parameters change only between segments, and the covariance is regularised without a unit.
    """
    make = sampler if isinstance(sampler, Configured) else Configured(sampler)
    density = plain(target)
    if num_warmup == 0:
        return Adaptation(density, step_size or 0.1, vectors, np.empty((len(vectors), 0, vectors.shape[1])))
    adjusts = make.target_acceptance is not None
    warmer = make if adjusts and not make.warm_up_by_mala else Configured(MALA)
    run = _Warmup(warmer, density, vectors, rng_keys, num_warmup, keep_draws, report)
    run.find_step_size()
    for _ in range(FIRST):
        run.segment(1)
    for units in COVARIANCE_SEGMENTS:
        draws = run.segment(units)
        if draws.shape[1] > 1:
            run.density = _standardise(density, draws.reshape(-1, draws.shape[-1]))
            run.find_step_size()
        for _ in range(TUNING):
            run.segment(1)
    if adjusts and warmer is not make:
        run.begin(make)
        run.find_step_size()
    while run.done < num_warmup:
        run.segment(1)
    found = math.exp(run.averaging.log_average)
    if not adjusts:
        share, power, power_of_dim = make.beside_mala
        found = share * found**power * vectors.shape[1] ** power_of_dim
    return Adaptation(run.density, step_size or found, run.vectors, np.concatenate(run.kept, 1))


class _Warmup:
    """Where warm-up stands."""

    def __init__(
        self,
        make: Configured,
        density: Standardised,
        vectors: Array,
        rng_keys: Array,
        num_warmup: int,
        keep_draws: bool,
        report: Callable[[int], None],
    ):
        """Begin with a sampler."""
        self.density, self.vectors = density, vectors
        self.rng_keys, self.keep_draws, self.report = rng_keys, keep_draws, report
        self.num_warmup, self.unit, self.done = num_warmup, max(1, num_warmup // UNITS), 0
        self.kept = [np.empty((len(vectors), 0, vectors.shape[1]), vectors.dtype)]
        self.begin(make)

    def begin(self, make: Configured) -> None:
        """Go on with this sampler from where the chains stand, and draw its inputs of all steps."""
        self.make = make
        self.averaging = DualAveraging(1.0, make.target_acceptance or 0.0)
        first = make(self.density, jnp.ones((), self.vectors.dtype))
        self.has_step_size = first.has_step_size
        self.inputs = draw(first, self.rng_keys, self.vectors, 0, self.num_warmup)

    def run(self, step_size: float, start: int) -> tuple[Array, float]:
        """Run one unit from where the chains stand, with the inputs of the steps from `start` on."""
        inputs = jax.tree.map(lambda leaf: leaf[:, start : start + self.unit], self.inputs)
        size = jnp.asarray(step_size, self.vectors.dtype)
        # Only positions go on from unit to unit; what else is unknown is drawn anew.
        keys = start_keys(self.rng_keys, start)
        draws, acceptance = _run_segment(self.make, self.density, size, self.vectors, keys, inputs)
        return draws, float(acceptance)

    def segment(self, units: int) -> Float[Array, "chain steps dim"]:
        """Run a segment with fixed parameters, a unit at a time so that one compiled program serves all segments."""
        draws, acceptances = [self.vectors[:, None, :][:, :0]], []
        for _ in range(units):
            if self.done == self.num_warmup:
                break
            part, acceptance = self.run(math.exp(self.averaging.log_step), self.done)
            self.vectors = part[:, -1]
            self.done += part.shape[1]
            self.report(part.shape[1])
            draws.append(part)
            acceptances.append(acceptance)
        if acceptances and self.has_step_size:
            self.averaging.update(float(np.mean(acceptances)))
        joined = jnp.concatenate(draws, 1)
        if self.keep_draws:
            self.kept.append(np.asarray(joined))
        return joined

    def find_step_size(self) -> None:
        """Double or halve the step size until the mean acceptance of a unit crosses the target; go on from there."""
        if not self.has_step_size:
            return
        step_size, direction = 1.0, 0
        start = min(self.done, self.num_warmup - self.unit)
        for _ in range(DOUBLINGS):
            wanted = 1 if self.run(step_size, start)[1] > self.averaging.target else -1
            if direction not in (0, wanted):
                break
            direction = wanted
            step_size *= 2.0**direction
        self.averaging.log_step = math.log(step_size)
        self.averaging.restart()


@eqx.filter_jit
def _standardise(density: Standardised, draws: Float[Array, "draws dim"]) -> Standardised:
    """Return the coordinates in which these draws have unit scale, regularised as Stan does.

    Stan adds 0.001 with the weight of five draws, which takes a posterior of a much smaller scale for a wide one; here
    it is 0.001 of each variance.
    """
    num_draws, dim = draws.shape
    weight = num_draws / (num_draws + 5)
    center = draws.mean(0)
    centred = draws - center
    # Chains that all stand still have no variance: then the rounding errors of a position are the scale.
    smallest = (jnp.finfo(draws.dtype).eps * (1 + jnp.abs(center))) ** 2
    variances = centred.var(0, ddof=1) + smallest
    floor = 1e-3 * (1 - weight) * variances
    if dim > LARGEST_DENSE:
        root = jnp.sqrt(weight * variances + floor)
    else:
        with jax.default_matmul_precision("highest"):
            covariance = weight * (centred.T @ centred) / (num_draws - 1) + jnp.diag(floor + smallest)
            root = jnp.linalg.cholesky(covariance)
            # Chains that have hardly moved can leave a covariance that is singular to working precision.
            root = jnp.where(jnp.isfinite(root).all(), root, jnp.diag(jnp.sqrt(jnp.diagonal(covariance))))
    return Standardised(density.target, center, root, density.unravel, StandardNormal())
