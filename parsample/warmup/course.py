"""The course of warm-up: chains run in segments with fixed parameters, and what is learnt from each."""

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine.arrays import to_jax
from parsample.samplers.base import BLOCK
from parsample.samplers.chains import Plan, draw, is_loop, loop_plan, room_of_the_loop, run_part
from parsample.samplers.configured import Configured
from parsample.targets.external import External
from parsample.warmup.centring import carried, recentre
from parsample.warmup.coordinates import Standardised, begin_chains
from parsample.warmup.descent import Descent, descend, descend_outside
from parsample.warmup.hosted import has_gradient, is_hosted, place, run_hosted
from parsample.warmup.length import Further
from parsample.warmup.levels import Levels, joined
from parsample.warmup.lost import LOST, outweighed
from parsample.warmup.scale import standardise
from parsample.warmup.step_size import DOUBLINGS, DualAveraging

# Warm-up is counted in units of this fraction of its length; every segment is a whole number of units.
UNITS = 80
# Units of the segments in which chains find in, each with a step size of its own, before they share one.
FINDING = (1, 1, 2, 4, 8)
# The step size at which a sampler first chooses the options that depend on it, and where the search for it begins:
# about that of a normal distribution.
FIRST_STEP_SIZE = 0.5
# Units more for the step size at which it chooses them again; it is tuned anew with these.
CHOOSING = 4
# A chain whose step size is this many halvings below that of most has its own.
FAR = 2.5
# How far the logarithm of a chain's own step size moves, from unit to unit, for a difference of 1 in its acceptance.
GAIN = 2.0
# Where more than this share of the longest segment's steps is divergent, which is what the verdict lets pass, the step
# size is steered to this acceptance, unless one was asked for.
DIVERGENT, CAREFUL = 0.001, 0.95
# Units of the segments in which a sampler that MALA warmed up learns its options.
LEARNING = (4, 4)
# Units of a part that is evaluated at a time, where there is room; the segments above are whole numbers of such parts.
STRETCH = 4
# Statistics of the steps that are kept, as the samplers name them.
KEPT = ("acceptance_rate", "is_divergent")


class Course:
    """Where warm-up stands, and its parts: segments with fixed parameters, and what is learnt from each."""

    def __init__(
        self,
        make: Configured,
        density: Standardised,
        vectors: Array,
        rng_keys: Array,
        num_warmup: int,
        plan: Plan,
        report: Callable[[int], None],
        keep_draws: bool = False,
    ):
        """Begin with a sampler."""
        self.keep_draws = keep_draws
        # Where the chains stand is on the host between segments: an array that is put on the device before it is needed
        # takes several times as long.
        self.density, self.one = density, to_jax(1.0, vectors.dtype)
        self.vectors = np.asarray(vectors)
        self.rng_keys, self.report = rng_keys, report
        self.num_warmup, self.unit, self.done = num_warmup, max(1, num_warmup // UNITS), 0
        self.plan, self.is_loop = plan, is_loop(plan)
        # A model outside of JAX needs no program for a length: its segments are whole, so that runs go far ahead.
        self.is_hosted, self.is_scaled = is_hosted(density), False
        self.levels: list[Levels] = []
        self.kept: list[tuple[Standardised, np.ndarray, dict[str, np.ndarray]]] = []
        self.averaging = DualAveraging(1.0, 0.0)
        self.log_steps = np.zeros(len(vectors))
        self.shares = np.ones(len(vectors), bool)
        self.changes: list[int] = []
        self.seen: tuple[np.ndarray, np.ndarray] | None = None
        self.moved, self.further = 0, Further()
        self.divergent = 0.0
        self.careful: float | None = None
        self.passed: list[dict[str, np.ndarray]] = []
        self.learnt: dict[str, Any] | None = None
        self.seconds = math.inf
        self.begin(make)

    @property
    def on_device(self) -> Float[Array, "chain dim"]:
        """Where the chains stand, for what is called now and then."""
        return to_jax(self.vectors, self.vectors.dtype)

    def begin(self, make: Configured) -> None:
        """Go on with this sampler from where the chains stand, and draw its inputs of all steps."""
        # Of a step; where none is timed after this, what one took before is the nearest that is known.
        self.make, self.seconds, self.seconds_before = make, math.inf, self.seconds
        self.averaging.target = make.target_acceptance or 0.0
        self.renew()
        self.has_step_size = self.sampler.has_step_size
        # One compiled program serves all segments of the loop, two those in parallel. Longer parts are fewer calls.
        room = (room_of_the_loop(self.sampler, self.on_device) or 0) if self.is_loop else STRETCH * self.unit
        self.room = room if self.is_loop and room >= self.unit else None
        self.part = self.unit * next((units for units in (STRETCH, STRETCH // 2) if units * self.unit <= room), 1)
        # Whole blocks, so that one program serves warm-ups of several lengths.
        steps = -(-(self.num_warmup + self.unit) // BLOCK) * BLOCK
        self.inputs = draw(self.sampler, self.rng_keys, self.on_device, 0, steps)

    def renew(self) -> None:
        """Go on in coordinates that are new, or with a sampler that is."""
        sampler = self.make(self.density, self.one)
        # Asked for once: of a module, a method is made anew each time, which takes longer than to call it.
        self.vectors_at = self.density.vectors
        self.sampler: Any = sampler.for_loop() if self.is_loop and not self.is_hosted else sampler
        self.programs: dict[int, Callable] = {}
        self.beginning = begin_chains.of(self.sampler)

    def start(self, step: int) -> PyTree:
        """Return the sampler's unknowns where the chains stand.

        Only positions go on from segment to segment; what else is unknown is drawn anew.
        """
        states = self.beginning(self.vectors, self.rng_keys, np.uint32(step))
        return place(self.sampler, states, self.on_device) if self.is_hosted else states

    def program(self, steps: int) -> Callable:
        """Return what runs so many steps at once."""
        if steps not in self.programs:
            window = min(self.plan.window, steps)
            plan = self.plan._replace(steps=steps, window=window, max_iterations=max(64, steps // 2))
            if self.is_hosted:
                self.programs[steps] = functools.partial(run_hosted, self.sampler, plan, self.is_scaled, self.levels)
            else:
                works_out = not self.sampler.holds_gradient
                plan = loop_plan(steps) if self.is_loop else plan
                self.programs[steps] = run_part.of((self.sampler, plan, works_out))
        return self.programs[steps]

    def run(
        self,
        states: PyTree,
        log_steps: Float[np.ndarray, " chain"],
        start: int,
        steps: int,
        report: Callable[[int], None] = lambda steps: None,
        is_whole: bool = True,
    ) -> tuple[PyTree, np.ndarray, Any, dict[str, np.ndarray]]:
        """Run `steps` steps with the inputs of those from `start` on, and step sizes of which the logarithms are given.

        Returns the unknowns at their end, draws and gradients in the coordinates of the sampler, each (chain, steps,
        dim), and statistics; of what need not be whole, the last draw and the acceptance. `report` is told of the
        steps, where a model runs outside of JAX as they are made.
        """
        step_sizes = np.exp(log_steps).astype(self.vectors.dtype)
        began = time.perf_counter()
        if self.is_hosted:
            states, found = self.program(steps)(states, self.inputs, np.int32(start), step_sizes, report)
            draws, slopes, stats = found
        else:
            # What is left at the end is the beginning of a whole unit: it needs no program of its own.
            program = self.program(self.room or max(steps, self.unit))
            states, _, details = program(states, self.inputs, np.int32(start), np.int32(steps), step_sizes)
            names = (*KEPT, *self.sampler.learns_from) if is_whole else KEPT[:1]
            wanted = {name: details.info[name] for name in names if name in details.info}
            wanted |= {"lp": details.lp, "gradient": details.gradient} if is_whole else {}
            stats = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :steps], wanted)
            slopes = stats.pop("gradient", None)
            draws = self.vectors_at(np.asarray(details.position)[:, 0 if is_whole else steps - 1 : steps])
            report(steps)
        self.seconds = min(self.seconds, (time.perf_counter() - began) / steps)
        return states, draws, slopes, stats

    def segment(self, units: int, shared: bool = True, is_whole: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Run a segment with fixed parameters, and return its draws and gradients, each (chain, steps, dim).

        It is run in parts of equal length so that few programs have to be compiled. What is put together is put
        together on the host, where nothing has to be compiled for it. Of one that need not be whole, nothing is kept
        but where the chains come to and what the step size learns.
        """
        empty = np.asarray(self.vectors)[:, None][:, :0]
        draws, slopes, lp, accepted = [empty], [empty], [empty[..., 0]], np.zeros(len(self.vectors))
        divergent = 0
        first, end = self.done, min(self.done + units * self.unit, self.num_warmup)
        log_steps = np.where(shared & self.shares, self.averaging.log_step, self.log_steps)
        self.passed.clear()
        if first < end:
            states = self.start(first)
        while self.done < end:
            steps = self.part if self.done + self.part <= end else min(self.unit, end - self.done)
            steps = end - self.done if self.is_hosted else steps
            states, moved, pulls, stats = self.run(states, log_steps, self.done, steps, self.report, is_whole)
            self.vectors = moved[:, -1].copy()
            accepted += stats["acceptance_rate"].mean(1) * steps
            self.done += steps
            if not is_whole:
                continue
            self.passed.append({name: stats.pop(name) for name in self.sampler.learns_from})
            draws.append(moved)
            slopes.append(pulls)
            lp.append(stats["lp"])
            divergent += stats.get("is_divergent", np.zeros(0)).sum()
            if self.keep_draws:
                step_sizes = np.broadcast_to(np.exp(log_steps)[:, None], stats["lp"].shape)
                self.kept.append((self.density, moved, stats | {"step_size": step_sizes.astype(stats["lp"].dtype)}))
        if first < end and self.has_step_size:
            self.learn(accepted / (end - first), shared)
        if first < end and is_whole:
            self.divergent = divergent / ((end - first) * len(self.vectors))
            self.seen = np.concatenate(draws, 1), np.concatenate(lp, 1)
        if len(draws) == 1:
            return empty, empty
        return np.concatenate(draws, 1), self.density.at_positions(np.concatenate(slopes, 1))

    def learn(self, acceptance: Float[np.ndarray, " chain"], shared: bool) -> None:
        """Take the mean acceptance of a segment into account."""
        moved = self.log_steps + GAIN * (acceptance - self.averaging.target)
        self.log_steps = np.clip(moved, -DOUBLINGS * math.log(2), DOUBLINGS * math.log(2))
        if shared:
            self.averaging.update(_over_chains(acceptance[self.shares]))

    def find_in(self, is_known: bool) -> None:
        """Run chains from where they start to where they belong, each with a step size that follows its acceptance.

        Unless the coordinates are known, the scale is taken from the way down, and then from segments of doubling
        length.
        """
        self.is_scaled = is_known
        if not is_known:
            found = self.descend()
            self.vectors = np.asarray(found.vectors)
            self.estimate(np.asarray(found.path), np.asarray(found.gradients), "diagonal")
        for units in FINDING:
            self.find_step_size()
            parts = [self.segment(1, shared=False) for _ in range(units)]
            draws, gradients = (np.concatenate(part, 1) for part in zip(*parts, strict=True))
            if not is_known:
                self.estimate(draws, gradients, "diagonal")
        self.find_step_size()
        self.gather()

    def descend(self) -> Descent:
        """Return how chains come down from where they start."""
        if not isinstance(self.density.target, External):
            return descend(self.density, self.on_device)
        found, levels = descend_outside(self.density.target, self.on_device)
        self.levels.append(levels)
        self.seen = np.asarray(found.path), np.asarray(found.values)
        return found

    def estimate(self, draws: np.ndarray, gradients: np.ndarray, mass: str) -> None:
        """Go on in coordinates in which the draws of a segment have unit scale."""
        # One draw tells nothing.
        if draws.shape[1] > 1:
            self.is_scaled = True
            has_none = not has_gradient(self.density.target) or (self.is_hosted and np.isnan(gradients).all())
            if has_none and self.seen is not None:
                gradients = joined(self.levels).gradients(draws, float(np.median(self.seen[1])))
            self.density = standardise(self.density, draws, gradients, mass)
            self.renew()
            self.changes += [self.done] if self.done else []

    def recentre(self, draws: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Go on with effects that are centred as suits the draws of the last segment; return these as they are there.

        An estimate of the coordinates must follow.
        """
        if draws.shape[1] < 2 or self.seen is None or not getattr(self.density.target, "centred", None):
            return draws, gradients
        self.density, draws, gradients, lp = recentre(self.density, draws, gradients, self.seen[1], self.shares)
        self.vectors, self.seen = draws[:, -1].copy(), (draws, lp)
        return draws, gradients

    @property
    def step_size(self) -> float:
        """What has been found so far."""
        return math.exp(self.averaging.log_average)

    def heed_divergence(self, make: Configured, may: bool) -> Configured:
        """Steer to a higher acceptance from here on, if it `may` and too many steps of the last segment diverged."""
        if not may or self.divergent <= DIVERGENT or self.averaging.target >= CAREFUL:
            return make
        self.averaging.target = self.careful = CAREFUL
        return make.steered_to(CAREFUL)

    def tune(self, units: int) -> None:
        """Tune the step size."""
        for _ in range(units):
            self.segment(1, is_whole=self.keep_draws)

    def choose_options(
        self, given: Configured, units: int = CHOOSING, between: tuple[float, float] = (0.0, math.inf)
    ) -> dict[str, Any] | None:
        """Let the sampler choose the options that it was not given, and go on with them; None if it chooses none.

        The step size at which it does is first tuned for some units, and taken for one `between` two.
        """
        if given.options_at(self.step_size) is None:
            return None
        self.tune(units)
        chosen = given.options_at(min(max(self.step_size, between[0]), between[1]), *self.further)
        if chosen != self.make.sampler_options:
            self.begin(given.chosen(chosen))
        return chosen

    def hand_over(self, make: Configured) -> None:
        """Go on with a sampler that another one has found the scale for."""
        self.begin(make)
        self.find_step_size()
        for units in LEARNING if make.sampler_class.learns_from else ():
            self.segment(units)
            self.learn_options(make)
            self.find_step_size()

    def learn_options(self, given: Configured) -> None:
        """Let the sampler learn options from where the last segment passed, and go on with them.

        Of its first half nothing is learnt: what else is unknown than the position had yet to find in.
        """
        if not self.sampler.learns_from or not self.passed:
            return
        seen = jax.tree.map(lambda *parts: np.concatenate(parts, 1)[self.shares], *self.passed)
        seen = {name: leaf[:, leaf.shape[1] // 2 :] for name, leaf in seen.items()}
        learnt = self.sampler.options_learnt(given.sampler_options, seen)
        if learnt is not None:
            self.learnt = learnt
            self.begin(given.chosen(learnt))

    def find_step_size(self) -> None:
        """Double or halve the step size of each chain until its acceptance of a unit crosses the target.

        They then share what most of them found, but for a chain that needs a far smaller one: it is in a place of
        another scale, and keeps its own until it leaves.
        """
        if not self.has_step_size:
            return
        start = min(self.done, self.num_warmup - self.unit)
        states = self.start(start)
        log_steps = np.full(len(self.vectors), math.log(FIRST_STEP_SIZE))
        direction, looking = np.zeros(len(log_steps)), np.ones(len(log_steps), bool)
        for _ in range(DOUBLINGS):
            stats = self.run(states, log_steps, start, self.unit, is_whole=False)[3]
            acceptance = stats["acceptance_rate"].mean(1)
            wanted = np.where(acceptance > self.averaging.target, 1, -1)
            looking &= (direction == 0) | (direction == wanted)
            direction = wanted
            if not looking.any():
                break
            log_steps = log_steps + looking * wanted * math.log(2)
        # Between the last step size on this side and the first on the other.
        self.log_steps = log_steps = log_steps + direction * math.log(2) / 2
        self.shares = log_steps >= np.median(log_steps) - FAR * math.log(2)
        self.averaging.log_step = float(np.mean(log_steps[self.shares]))
        self.averaging.restart()

    def gather(self) -> None:
        """Move each chain that is lost to where another was in the last segment."""
        if self.seen is None:
            return
        draws, lp = self.seen
        means = lp.mean(1)
        far = LOST + draws.shape[-1]
        lost = ~self.shares & ~(means >= np.median(means[self.shares]) - far)
        lost |= outweighed(draws, means, far)
        if not (self.shares & ~lost).any():
            # The one step size was that of a place with next to nothing: those elsewhere share theirs.
            self.shares = ~lost
        there = np.flatnonzero(self.shares & ~lost)
        for chain in np.flatnonzero(lost):
            other = there[chain % len(there)]
            self.vectors = np.array(self.vectors)
            self.vectors[chain] = draws[other, draws.shape[1] // 2]
            self.log_steps[chain], self.shares[chain] = self.log_steps[other], self.shares[other]
            self.moved += 1
        if lost.any():
            self.averaging.log_step = float(np.mean(self.log_steps[self.shares]))
            self.averaging.restart()

    def history(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return positions and statistics of all steps, on the host; of the statistics those that every part has."""
        draws = [carried(density, self.density.target, part)[0] for density, part, _ in self.kept]
        parts = [stats for *_, stats in self.kept]
        names = [name for name in parts[0] if all(name in stats for stats in parts)]
        return np.concatenate(draws, 1), {name: np.concatenate([stats[name] for stats in parts], 1) for name in names}


def _over_chains(acceptance: Float[np.ndarray, " chain"]) -> float:
    """Return the harmonic mean, 0 where a chain accepted nothing."""
    return float(statistics.harmonic_mean(acceptance.tolist()))
