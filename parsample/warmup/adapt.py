"""Warm-up: find the step size and the scale of the posterior, in segments with fixed parameters."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, loop_plan
from parsample.samplers.configured import Configured
from parsample.samplers.mala import MALA
from parsample.targets.base import Target
from parsample.warmup.coordinates import Standardised, plain
from parsample.warmup.course import FIRST_STEP_SIZE, Course
from parsample.warmup.hosted import has_gradient
from parsample.warmup.length import how_much_further
from parsample.warmup.scale import check_mass, trimmed, unscaled

# Units of the segments that follow, with fixed parameters; each is followed by `TUNING` units for the step size. After
# every segment of either kind the coordinates are estimated anew, from it alone: what a bad one said is soon forgotten.
SEGMENTS = (8, 12, 24)
TUNING = 2
# Before the first two of them a sampler's options follow steps that turn out to be smaller than first thought down to
# this: what makes them smaller may be narrow places, where long trajectories only cost.
SMALL_STEP_SIZE = 0.125
# The loop; the window, the number of steps and the tolerances have no meaning for it.
LOOP = loop_plan(1)


class Adaptation(NamedTuple):
    """What warm-up found.

    Attributes:
        density: the target, its effects centred as suits them, in coordinates where the posterior has about unit scale.
        step_size: dimensionless, in those coordinates.
        last: flat positions of this target, shape (chain, dim).
        draws: of all warm-up steps, flat positions of this target, shape (chain, steps, dim), empty unless they were
            asked for.
        stats: of all warm-up steps by name, each (chain, steps), empty unless they were asked for: `lp`,
            `acceptance_rate`, `step_size`, and `is_divergent` where the sampler has it.
        changes: the steps after which the coordinates were estimated anew.
        sampler_options: those to sample with, where a sampler or tuning chose some; None for those that were given.
        tuning: what was traded, in words.
        moved: how many times a chain that was lost was moved to where others had been.
        target_acceptance: what the step size was steered to, where that is another than was asked for, or usual,
            since steps of warm-up were divergent; None where it is not.
        seconds_per_step: wall time of a step of all chains by the loop, the least that a part of warm-up took after
            the sampler was chosen, or where there was none before; infinite where none was timed.
    """

    density: Standardised
    step_size: float
    last: Float[Array, "chain dim"]
    draws: Float[np.ndarray, "chain steps dim"]
    stats: dict[str, np.ndarray]
    changes: tuple[int, ...] = ()
    sampler_options: dict[str, Any] | None = None
    tuning: str = "none"
    moved: int = 0
    target_acceptance: float | None = None
    seconds_per_step: float = math.inf


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
    may_be_careful: bool = False,
    report: Callable[[int], None] = lambda steps: None,
) -> Adaptation:
    """Adapt step size and covariance to the posterior, and what a sampler derives from the step size.

    First chains come down from where the density is absurdly small (`descent.descend`). Then segments follow each
    other. In the first ones every chain has a step size of its own, which follows its acceptance, and the scale of the
    coordinates is estimated anew after one, two, four, eight and sixteen units. Three longer ones have fixed
    parameters and one step size for all chains but those that need a far smaller one; after each the covariance is
    estimated from its draws and gradients (`scale.standardise`), with a structure that the draws themselves bear out,
    and the step size tuned again. A chain that by then is still in a place with next to nothing of the posterior, both
    narrower and far lower than the others' or so much lower than another's that its width does not make up for it, is
    moved to where one of them has been, and counted (`Adaptation.moved`). Effects of a target that has some are centred
    after each of the three as suits its draws (`centring.recentre`). An estimate rests on one segment, so that the next
    undoes a bad one. A sampler that chooses options by the step size (`Sampler.options_at`) does so before the
    longest segment and after it, and before the other two where steps are smaller than first thought: trajectories that
    are too short leave little to estimate from. At last it is told if the draws of the longest segment depend on each
    other so much that steps should go further, or be made of several moves (`length.how_much_further`). The rest tunes
    the step size. Inside a segment the kernel is fixed, so it can be evaluated in parallel like any chain, and is the
    same chain whatever the method. Where a target outside of JAX has no gradient, those of the normal distribution that
    fits the log densities of all runs take their place (`levels.Levels`).

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
            the directions that are far from it), or "auto": what the draws bear out, of the diagonal and, up to 256
            dimensions, dense ones, above them those of low rank.
        plan: how segments are evaluated: method, window and tolerances; None for the sequential loop.
        density: coordinates to begin in, which are trusted; None to find them from the target's own.
        keep_draws: return the positions and the statistics of every step.
        may_be_careful: steer to an acceptance of 0.95, in place of the sampler's, where steps of the longest segment
            are divergent: a density with narrow places, where smaller steps are worth more than they cost.
        report: called with the number of steps of each part as it ends.

    Raises:
        ValueError: an unknown structure.

    Cost: the gradients of a step of the sampler, or of MALA's, and one, a step, a chain, in sequence; by a parallel
        method what that costs, a few dozen steps at a time, and a program for every number of leapfrog steps. The
        searches for a step size, two or three units each, come to about a third more; the way down to 20 to 300
        gradients.

    Source: Stan's windowed adaptation (Stan reference manual, "HMC algorithm parameters") and nutpie's, from gradients
    (Seyboldt, Carlson & Carpenter 2026); here chains share what they learn, and parameters change only between
    segments. The acceptance that steers the step size is the harmonic mean over the chains, as in Hoffman, Radul &
    Sountsov 2021 ("An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo"), there of every
    step: a chain that is stuck counts for more than its share, and gets the smaller steps by which it leaves.
    """
    make = sampler if isinstance(sampler, Configured) else Configured(sampler)
    check_mass(mass)
    if num_warmup == 0:
        empty = np.empty((len(vectors), 0, vectors.shape[1]))
        return Adaptation(plain(target) if density is None else density, step_size or 0.1, vectors, empty, {})
    adjusts = make.target_acceptance is not None
    warms_itself = adjusts and not (make.warm_up_by_mala and has_gradient(target))
    chooses = warms_itself and step_size is None
    warmer = make if warms_itself else Configured(MALA)
    if chooses:
        warmer = make.chosen(make.options_at(FIRST_STEP_SIZE))
    first = unscaled(plain(target), mass) if density is None else density
    run = Course(warmer, first, vectors, rng_keys, num_warmup, LOOP if plan is None else plan, report, keep_draws)
    run.find_in(is_known=density is not None)
    for units in SEGMENTS:
        if chooses and units == SEGMENTS[-1]:
            run.choose_options(make)
        elif chooses:
            # Trajectories of steps that are small would be short, and draws that say little would be all that is known.
            run.choose_options(make, 0, (SMALL_STEP_SIZE, FIRST_STEP_SIZE))
        draws, gradients = run.segment(units)
        draws, gradients = run.recentre(draws, gradients)
        log_densities = run.seen[1] if draws.shape[1] and run.seen is not None else np.empty(draws.shape[:2])
        make = run.heed_divergence(make, may_be_careful and warms_itself and units == SEGMENTS[-1])
        run.estimate(draws[run.shares], gradients[run.shares], mass)
        run.learn_options(make)
        run.find_step_size()
        run.gather()
        run.tune(TUNING)
        if chooses and units == SEGMENTS[-1]:
            run.further = how_much_further(draws[run.shares], log_densities[run.shares])
    chosen = run.choose_options(make) if chooses else None
    if adjusts and not warms_itself:
        run.hand_over(make)
    while run.done < num_warmup:
        run.tune(1)
    tuned = run.step_size
    if not adjusts:
        tuned = make.beside_mala(tuned, vectors.shape[1])
    kept, stats = run.history() if keep_draws else (np.empty((len(vectors), 0, vectors.shape[1])), {})
    density, changes = trimmed(run.density), tuple(run.changes)
    options = run.learnt or chosen
    found = Adaptation(density, step_size or tuned, run.on_device, kept, stats, changes, options, "none", run.moved)
    seconds = run.seconds if math.isfinite(run.seconds) else run.seconds_before
    seconds = seconds if adjusts and run.is_loop else math.inf
    return found._replace(target_acceptance=run.careful, seconds_per_step=seconds)
