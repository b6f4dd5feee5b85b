"""One chain for every (sampler, target): where it starts, how far it steps, and what the plain loop makes of it.

Nothing here is chosen by hand for a target, so that a new row of the tables is enrolled as it is: a pilot run of the
sampler itself finds the scale of the posterior and a step size, and the chain goes on from where the pilot ended.
"""

import functools
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import parsample
from parsample.engine.methods import METHODS
from parsample.samplers import MALA, SAMPLERS, Sampler
from parsample.targets import TARGETS, Target
from parsample.warmup.coordinates import Standardised
from tests.covering import covering

SEED = 0
STEPS = 256
PILOT_STEPS = 2000
# The pilot steers to this acceptance rate. Chains with smaller steps than those that mix best are the ones that are
# worth evaluating in parallel; so it is this much above the acceptance rate that a sampler asks for, if that is higher.
PILOT_ACCEPTANCE = 0.8
PILOT_MARGIN = 0.05
# A sampler without accept/reject gets this share of the step size at which MALA has that acceptance rate.
UNADJUSTED_SHARE = 0.5
# ULA and MALA meet every method on every target. The other samplers meet the methods of their row, or of the last one,
# on a few targets that differ in kind: every combination would take hours, and the engine sees only transitions.
PARALLEL = tuple(name for name, row in SAMPLERS.items() if not row.loop_only)
EVERY_METHOD = ("ula", "mala")
SUITABLE_METHODS: dict[str, tuple[str, ...]] = {
    "": ("picard", "quasi_newton", "newton"),
    "ghmc": ("quasi_newton", "block_quasi_newton", "newton"),
    "mclmc": ("quasi_newton", "block_quasi_newton", "newton"),
    "underdamped_langevin": ("quasi_newton", "block_quasi_newton", "newton"),
    # Jacobians that are multiples of the identity: quasi-Newton is Newton.
    "barker": ("picard", "secant", "quasi_newton"),
    "rwm": ("picard", "secant", "quasi_newton"),
    "pcn": ("jacobi", "picard", "secant", "quasi_newton"),
    # A random walk's Jacobian is the identity: picard has it for nothing, and quasi_newton knows it.
    "gibbs": ("picard", "quasi_newton"),
    # The Jacobian of a swap is a permutation of replicas.
    "tempering": ("newton", "permutation"),
}
# Eight leapfrog steps, the default, mix best and are hard to foresee: with the banana two chains part. Half as many are
# worth evaluating in parallel.
OPTIONS: dict[str, dict[str, Any]] = {"HMC": {"num_integration_steps": 4}}
FEW_TARGETS = ("multivariate_normal", "log_gamma", "banana", "eight_schools")
# Residual and correction of every step, in standard deviations of the posterior.
TOLERANCE = 1e-10

# What the constructor needs where the defaults are not enough, given the folder of data.
ARGUMENTS = {"german_credit": lambda data: {"data": data / "german.data-numeric"}}


# They would double the rows, and have nothing of their own to show there: data that cannot ship, and shapes that other
# rows have. Their densities are tested in tests/targets.
NOT_ENROLLED = ("kidscore_interaction", "blr", "autoregressive", "garch", "gp_regression", "lotka_volterra")
ENROLLED = tuple(name for name in TARGETS if name not in NOT_ENROLLED)


def rows() -> list[tuple[str, str, str]]:
    """The rows of the contract: (method, sampler, target)."""
    found = []
    for sampler in PARALLEL:
        every = sampler in EVERY_METHOD
        targets = ENROLLED if every else FEW_TARGETS
        suitable = METHODS if every else SUITABLE_METHODS.get(sampler, SUITABLE_METHODS[""])
        found += [(method, sampler, target) for target in targets for method in suitable]
    return found


def first_rows() -> set[tuple[str, str, str]]:
    """Every method, sampler and target, with few chains to prepare: the rows that `make test` runs.

    ULA and MALA take turns, and share the methods and targets between them; every other sampler meets one of its
    methods on one target, another one than the sampler before it.
    """
    turns = zip(*map(itertools.cycle, (METHODS, EVERY_METHOD, ENROLLED)), strict=False)
    shared = set(itertools.islice(turns, max(len(METHODS), len(ENROLLED))))
    others = [name for name in PARALLEL if name not in EVERY_METHOD]
    for number, sampler in enumerate(others):
        suitable = SUITABLE_METHODS.get(sampler, SUITABLE_METHODS[""])
        shared.add((suitable[number % len(suitable)], sampler, FEW_TARGETS[number % len(FEW_TARGETS)]))
    return shared


def markers() -> dict[tuple[str, str, str], str | None]:
    """Say for every row which marker of pytest keeps it from being run always: none, "slow", or "grid".

    With the slow tests every sampler meets every method and every target that it meets in the table: a method sees
    nothing of a target but the transition of a sampler.
    """
    table, first = rows(), first_rows()
    second = set(covering(table, first, columns=((0, 1), (1, 2))))
    return {row: None if row in first else "slow" if row in second else "grid" for row in table}


class Problem(NamedTuple):
    """A chain to evaluate from its first unknowns, and the plain loop's account of it."""

    sampler: Sampler
    start: Any
    inputs: Any
    states: Any
    is_accepted: np.ndarray


def make_sampler(sampler_class: type[Sampler], *arguments: Any) -> Sampler:
    """The sampler of a problem: with its defaults, or with its row of `OPTIONS`."""
    return sampler_class(*arguments, **OPTIONS.get(sampler_class.__name__, {}))


class TracedOnce(eqx.Module):
    """A density whose trace JAX keeps, instead of tracing it again for every method: a third of the time of a row."""

    density: Standardised

    def __call__(self, z: jax.Array) -> jax.Array:
        return _value(self.density, z)

    @property
    def hessian_diagonal(self) -> Any:
        known = self.density.hessian_diagonal
        return None if known is None else lambda z: _curvature(self.density, z)


@jax.jit
def _value(density: Standardised, z: jax.Array) -> jax.Array:
    return density(z)


@jax.jit
def _curvature(density: Standardised, z: jax.Array) -> jax.Array:
    known = density.hessian_diagonal
    assert known is not None
    return known(z)


def static_jit(function: Any) -> Any:
    """`eqx.filter_jit`, but what is no array is static in the result too."""

    @functools.partial(jax.jit, static_argnums=1)
    def compiled(arrays, static):
        return function(*eqx.combine(arrays, static))

    return lambda *given: compiled(*eqx.partition(given, eqx.is_array))


def make_target(name: str, data: Path | None) -> Target:
    return TARGETS[name](**ARGUMENTS[name](data)) if name in ARGUMENTS else TARGETS[name]()


@functools.cache
def problem(sampler_name: str, target_name: str, data: Path | None) -> Problem:
    """Tune a sampler on a target, and run its chain by the loop. In double precision: call it under x64."""
    sampler_class, target = SAMPLERS[sampler_name], make_target(target_name, data)
    adjusts = sampler_class.target_acceptance is not None
    density, position, step_size = settle(sampler_class if adjusts else MALA, target_name, data)
    if not adjusts:
        _, power_of_dim = sampler_class.beside_mala
        step_size = UNADJUSTED_SHARE * step_size ** (sampler_class.power_of_length / 2) * position.size**power_of_dim
    sampler = make_sampler(sampler_class, TracedOnce(density), step_size)
    start = sampler.unknowns(sampler.init(position, jax.random.key(SEED + 3)))
    inputs = sampler.draw_inputs(jax.random.key(SEED + 2), STEPS, position)
    states, is_accepted = run_loop(sampler, start, inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states)), (
        f"{sampler_name} on {target_name} leaves the numbers: {target} wants smaller steps"
    )
    return Problem(sampler, start, inputs, states, is_accepted)


@functools.cache
def settle(sampler_class: type[Sampler], target_name: str, data: Path | None) -> tuple[Standardised, Any, Any]:
    """Return coordinates with the scale of the posterior, a position that belongs to it, and a step size."""
    target = make_target(target_name, data)
    vector, unravel = ravel_pytree(target.initial_position(jax.random.key(SEED)))
    density = Standardised(target, jnp.zeros_like(vector), jnp.eye(vector.size), unravel)
    draws, _ = pilot(sampler_class, density, vector)
    late = draws[PILOT_STEPS // 2 :]
    root = jnp.linalg.cholesky(jnp.cov(late.T) + 1e-3 * jnp.eye(vector.size))
    density = Standardised(target, late.mean(0), root, unravel)
    draws, step_size = pilot(sampler_class, density, draws[-1])
    return density, density.inverse(draws[-1]), step_size


@static_jit
def pilot(sampler_class: type[Sampler], density: Standardised, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Run a chain whose step size follows its acceptance rate: its flat positions, and the last step size."""
    position, key = density.inverse(vector), jax.random.key(SEED + 1)
    acceptance = max(PILOT_ACCEPTANCE, (sampler_class.target_acceptance or 0.0) + PILOT_MARGIN)
    first = make_sampler(sampler_class, density)
    start, inputs = first.unknowns(first.init(position, key)), first.draw_inputs(key, PILOT_STEPS, position)

    def step(carry, element):
        unknowns, log_step_size = carry
        number, input = element
        sampler = make_sampler(sampler_class, density, jnp.exp(log_step_size))
        state, info = sampler.transition.step(unknowns, input)
        log_step_size += (info.acceptance_rate - acceptance) / jnp.sqrt(1 + number / 4)
        return (sampler.unknowns(state), log_step_size), density.vector(state.position)

    carry = (start, jnp.asarray(-2.0, position.dtype))
    (_, log_step_size), draws = jax.lax.scan(step, carry, (jnp.arange(PILOT_STEPS), inputs))
    return draws, jnp.exp(log_step_size)


@static_jit
def _loop(sampler: Sampler, start: Any, inputs: Any) -> tuple[Any, jax.Array]:
    def step(state, input):
        state, info = sampler.step(state, input)
        return state, (sampler.unknowns(state), info.is_accepted)

    return jax.lax.scan(step, sampler.resume(start), inputs)[1]


def run_loop(sampler: Sampler, start: Any, inputs: Any) -> tuple[Any, np.ndarray]:
    """Run a chain as anyone would: unknowns and decisions of every step."""
    states, is_accepted = _loop(sampler, start, inputs)
    return jax.tree.map(np.asarray, states), np.asarray(is_accepted)


@static_jit
def solve(
    method: str, sampler: Sampler, start: Any, inputs: Any, window: int | None = None
) -> tuple[parsample.Solution, jax.Array]:
    """Evaluate a chain in parallel, for as long as it takes: the solution, and the decisions along its states."""
    solution = parsample.evaluate(
        sampler.transition, start, inputs, method=method, window=window, atol=TOLERANCE, rtol=TOLERANCE, throw=False
    )
    before = jax.tree.map(lambda first, rows: jnp.concatenate([first[None], rows[:-1]]), start, solution.states)
    _, info = jax.vmap(sampler.transition.step)(before, inputs)
    return solution, info.is_accepted
