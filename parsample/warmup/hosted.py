"""Chains on a target outside of JAX: how its runs and the samplers of this package come together."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from parsample.engine import methods
from parsample.engine.transition import Transition
from parsample.samplers.base import Sampler
from parsample.samplers.chains import Plan, begin, draw, is_loop
from parsample.targets.base import Target
from parsample.targets.external import External, values_at, whole
from parsample.warmup.coordinates import Standardised
from parsample.warmup.levels import Levels
from parsample.workers.holes import Holes
from parsample.workers.polynomial import Coordinates, Polynomial, nothing, reach
from parsample.workers.rollout import Problem, Standing, count, stand
from parsample.workers.speculate import Speculation

# Runs are prepared and joined with the prior in batches of so many, or of a power of `LARGER` times as many.
BATCH, LARGER = 32, 4
# A polynomial of the second order has about half as many coefficients as the square of the dimension.
LARGEST_FITTED = 100


class Hosted(Problem):
    """A sampler on an external target, in coordinates where the posterior has about unit scale.

    Attributes:
        sampler: with `Holes` in the place of its log density.
        density: the target in these coordinates.
        surplus: what is added to the standard normal log density to foresee the model by; None where it is nothing, as
            with an emulator, or in too many dimensions for a fit.
        foresees: whether anything is foreseen.
        has_gradient: whether the model has a gradient.
    """

    sampler: Sampler
    density: Standardised
    surplus: Polynomial | None
    foresees: bool = eqx.field(static=True)
    has_gradient: bool = eqx.field(static=True)

    def transition(self, step_size: Float[Array, ""]) -> Transition:
        """Return the sampler's transition on `Holes`."""
        return eqx.tree_at(lambda sampler: sampler.step_size, self.sampler, step_size).transition

    def vector(self, point: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return the flat position."""
        return self.density.vector(point)

    def prior(self, point: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return the prior's log density."""
        return self._target.logprior(self.density.position(point))

    def guess(self, point: Float[Array, " dim"]) -> Float[Array, ""] | None:
        """Return the prior and the emulator, or a standard normal log density; None where nothing is foreseen."""
        if not self.foresees:
            return None
        emulator = self._target.emulator
        if emulator is not None:
            return self.prior(point) + emulator(self._target.values(self.density.position(point)))
        return -0.5 * jnp.vdot(point, point) if self.surplus is None else _value(self.surplus, point)

    def sent(self, vectors: Float[np.ndarray, "run dim"]) -> dict[str, np.ndarray]:
        """Return what the model is given."""
        padded: Any = _padded(vectors)
        sent = jax.device_get(values_at(self._target, padded))
        return {name: leaf[: len(vectors)] for name, leaf in sent.items()}

    def whole(
        self, vectors: np.ndarray, values: np.ndarray, slopes: dict[str, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log densities and gradients with the prior's, and keep them to learn from."""
        joined = whole(self._target, *jax.tree.map(_padded, (vectors, values, slopes)))
        rows = (*joined, _in_points(self.density, joined[1]))
        found, gradients, pulls = (np.asarray(leaf)[: len(vectors)] for leaf in rows)
        self._target.seen.add(vectors, found, gradients)
        return found, pulls

    def learnt(self) -> "Hosted":
        """Return the same, foreseeing by all the runs so far."""
        if self.surplus is None:
            return self
        coordinates = Coordinates(*(np.asarray(part, float) for part in (self.density.center, self.density.basis)))
        found = self._target.seen.fit(coordinates, self.has_gradient)
        return self if found is None else dataclasses.replace(self, surplus=_like(self.density, found))

    @property
    def _target(self) -> External:
        target = self.density.target
        assert isinstance(target, External)
        return target


def _like(density: Standardised, surplus: Polynomial) -> Polynomial:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, density.center.dtype), surplus)


def _value(surplus: Polynomial, point: Float[Array, " dim"]) -> Float[Array, ""]:
    """Return the log density that a fit has at a point; far out the third order grows no more, nor falls."""
    tilt, bend, twist = jax.tree.map(jnp.asarray, tuple(surplus))
    squared = jnp.vdot(point, point)
    value = jnp.vdot(tilt, point) + jnp.vdot(point, bend @ point) - 0.5 * squared
    if twist is None:
        return value
    limit = reach(point.size)
    near = point * jnp.sqrt(limit / jnp.maximum(squared, limit))
    return value + jnp.vdot(near, twist @ near @ near)


def _padded(leaf: np.ndarray) -> np.ndarray:
    """Return rows in a batch of a few sizes, so that few programs are compiled for them; the first is repeated."""
    size = BATCH
    while size < len(leaf):
        size *= LARGER
    return np.concatenate([leaf, np.repeat(leaf[:1], size - len(leaf), 0)])


@eqx.filter_jit
def _in_points(density: Standardised, gradients: Float[Array, "run dim"]) -> Float[Array, "run dim"]:
    """Return gradients in standardised coordinates, run after run."""
    pull_back = jax.vjp(density.vector, density.center)[1]
    return jax.lax.map(lambda gradient: pull_back(gradient)[0], gradients)


def is_hosted(density: Standardised) -> bool:
    """Whether the target of these coordinates runs outside of JAX."""
    return isinstance(density.target, External)


def has_gradient(target: Target) -> bool:
    """Whether a target has a gradient: in JAX every one has."""
    return not isinstance(target, External) or target.has_gradient


def hosted(sampler: Sampler, foresees: bool) -> Hosted:
    """Return a sampler on an external target as what its chains are speculated by."""
    density: Any = sampler.logdensity_fn
    emptied = eqx.tree_at(lambda sampler: sampler.logdensity_fn, sampler, Holes(density.target.has_gradient))
    has_gradient, surplus = density.target.has_gradient, None
    if foresees and density.target.emulator is None and density.center.size <= LARGEST_FITTED:
        surplus = _like(density, nothing(density.center.size, has_gradient))
    return Hosted(sampler=emptied, density=density, surplus=surplus, foresees=foresees, has_gradient=has_gradient)


def check_sampler(sampler: Sampler) -> None:
    """Raise ValueError if a sampler needs what its model outside of JAX does not have; nothing is run.

    Args:
        sampler: on a `Standardised` density.
    """
    density: Any = sampler.logdensity_fn
    problem = hosted(sampler, foresees=False)
    keys, vectors = jax.random.split(jax.random.key(0), 1), density.center[None]
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
    try:
        states = begin(problem.sampler, vectors, keys)
        inputs = draw(problem.sampler, keys, vectors, 0, 1)
        count(problem, first(place(sampler, states, vectors).carry), first(first(inputs)))
    except ValueError as error:
        name = type(sampler).__name__
        raise ValueError(f"sampler is {name}, which does not go with this model outside of JAX: {error}") from error


def place(sampler: Sampler, states: PyTree, vectors: Float[Array, "chain dim"]) -> Standing:
    """Return chains that begin at these unknowns, and positions: the model is run at the latter."""
    return stand(hosted(sampler, foresees=False), states, vectors)


def speculate(
    sampler: Sampler,
    standing: Standing,
    inputs: Callable[[int, int], PyTree],
    limit: int,
    plan: Plan,
    step_sizes: Float[np.ndarray, " chain"] | None = None,
    is_scaled: bool = True,
    keeps_runs: bool = False,
) -> Speculation:
    """Return the evaluation of chains on an external target, from where they stand.

    Args:
        sampler: on a `Standardised` density.
        standing: of the chains.
        inputs: from the first step and the one after the last to these steps' inputs, axes (chain, steps).
        limit: steps, after which nothing is run.
        plan: the loop runs no step ahead.
        step_sizes: of each chain; None for the sampler's.
        is_scaled: whether the coordinates are made to fit the posterior.
        keeps_runs: as `Speculation` has it.
    """
    density: Any = sampler.logdensity_fn
    knows = is_scaled or density.target.emulator is not None
    problem = hosted(sampler, foresees=knows and not isinstance(plan.method, methods.Picard))
    if step_sizes is None:
        step_sizes = np.full(len(standing.vector), sampler.step_size, standing.vector.dtype)
    window = 1 if is_loop(plan) else plan.window
    tolerances = (float(plan.atol), float(plan.rtol))
    return Speculation(
        problem,
        density.target.workers,
        standing,
        inputs,
        limit,
        step_sizes=step_sizes,
        window=window,
        tolerances=tolerances,
        keeps_runs=keeps_runs,
    )


def run_hosted(
    sampler: Sampler,
    plan: Plan,
    is_scaled: bool,
    levels: list[Levels],
    standing: Standing,
    inputs: PyTree,
    start: Any,
    step_sizes: Float[np.ndarray, " chain"],
    report: Callable[[int], None],
) -> tuple[Standing, tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Run some steps of warm-up.

    Args:
        sampler: on a `Standardised` density.
        plan: with the number of steps.
        is_scaled: whether the coordinates are made to fit the posterior.
        levels: takes where the model was run for these steps.
        standing: of the chains.
        inputs: axes (chain, steps).
        start: the first of the steps, by its place in these.
        step_sizes: of each chain.
        report: is told how many steps more every chain has made.

    Returns:
        Where the chains end; flat positions after each step, the gradients there in the coordinates of the sampler,
        which are NaN where the model has none, and statistics.
    """
    drawn, steps = jax.device_get(inputs), plan.steps
    rows = lambda first, last: jax.tree.map(lambda leaf: leaf[:, start + first : start + last], drawn)  # noqa: E731
    chains = speculate(sampler, standing, rows, steps, plan, step_sizes, is_scaled, keeps_runs=True)
    try:
        found = chains.evaluate(steps, report)
    finally:
        chains.close()
    levels.extend(Levels(*runs) for runs in chains.runs_passed)
    density: Any = sampler.logdensity_fn
    vectors, slopes = found.states.vector, getattr(found.states.carry, "gradient", None)
    gradients = np.full_like(vectors, np.nan)
    if slopes is not None and density.target.has_gradient:
        gradients = slopes
    stats = {"lp": found.details.lp, **found.details.info}
    return jax.tree.map(lambda leaf: leaf[:, -1], found.states), (vectors, gradients, stats)
