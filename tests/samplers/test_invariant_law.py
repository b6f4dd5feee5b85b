"""The law that a sampler leaves invariant: moments of long chains against the truth, by the sequential loop.

A new sampler is a row or more in `CASES`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import polygamma, psi

import parsample
from parsample.samplers import GHMC, HMC, MALA, PCN, RWM, AdjustedMCLMC, Barker, Gibbs, Sampler, Tempering
from parsample.targets import LogGamma, MultivariateNormal, Target, TwoWells
from tests.samplers.moments import check_moments

CHAINS = 8
CORRELATION = 0.95
CONCENTRATION = np.array([0.5, 1.0, 3.0])

# Draws of shape (chain, draw, dim) -> name -> values along the chains, and their expectation.
Moments = dict[str, tuple[np.ndarray, float]]


class Law(NamedTuple):
    """A target whose moments are known."""

    target: Callable[[], Target]
    moments: Callable[[np.ndarray], Moments]


def of_correlated_gaussian(draws: np.ndarray) -> Moments:
    first, second = draws[..., 0], draws[..., 1]
    return {
        "x0": (first, 0.0),
        "x1": (second, 0.0),
        "x0^2": (first**2, 1.0),
        "x1^2": (second**2, 1.0),
        "x0 x1": (first * second, CORRELATION),
        # The narrow direction, whose variance hides behind the wide one above.
        "(x0 - x1)^2": ((first - second) ** 2, 2 - 2 * CORRELATION),
    }


def of_skewed(draws: np.ndarray) -> Moments:
    moments: Moments = {}
    for i, a in enumerate(CONCENTRATION):
        x, mean = draws[..., i], float(psi(a))
        moments |= {
            f"x{i}": (x, mean),
            f"variance of x{i}": ((x - mean) ** 2, float(polygamma(1, a))),
            f"third moment of x{i}": ((x - mean) ** 3, float(polygamma(2, a))),
            f"exp(x{i})": (np.exp(x), a),
        }
    return moments


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "x0": lambda a, b: a,
    "x1": lambda a, b: b,
    "x0^2": lambda a, b: a**2,
    "x1^2": lambda a, b: b**2,
    "x0^3": lambda a, b: a**3,
    "x0 x1": lambda a, b: a * b,
    "right well": lambda a, b: (a > 0.0).astype(float),
    "on the barrier": lambda a, b: (np.abs(a - 0.1) < 0.375).astype(float),
}


@functools.cache
def expectations_of_two_wells() -> dict[str, float]:
    """By quadrature on a grid that holds all but 1e-12 of the mass."""
    target = TwoWells()
    axis = np.linspace(-9.0, 9.0, 361)
    x0, x1 = np.meshgrid(axis, axis, indexing="ij")
    grid = jnp.asarray(np.stack([x0, x1], -1).reshape(-1, 2), jnp.float32)
    density = np.exp(np.asarray(jax.jit(jax.vmap(lambda x: target.logdensity({"x": x})))(grid), np.float64))
    density = density.reshape(x0.shape) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(density.sum(), 1, rtol=1e-5)
    return {name: float(np.sum(function(x0, x1) * density)) for name, function in STATISTICS.items()}


def of_two_wells(draws: np.ndarray) -> Moments:
    expected = expectations_of_two_wells()
    return {name: (function(draws[..., 0], draws[..., 1]), expected[name]) for name, function in STATISTICS.items()}


LAWS = {
    "correlated": Law(
        lambda: MultivariateNormal(covariance=[[1.0, CORRELATION], [CORRELATION, 1.0]]), of_correlated_gaussian
    ),
    "skewed": Law(lambda: LogGamma(CONCENTRATION.astype(np.float32)), of_skewed),
    "two wells": Law(TwoWells, of_two_wells),
}

Make = Callable[[Callable], Sampler]
DIAGONAL, DENSE = (np.asarray(mass, np.float32) for mass in ([2.0, 0.5], [[1.0, 0.7], [0.7, 0.8]]))

# Name -> the law, how the sampler is made from its log density, and the steps of each of the chains.
CASES: dict[str, tuple[str, Make, int]] = {
    "mala, identity": ("correlated", lambda density: MALA(density, 0.06), 20_000),
    "mala, diagonal": ("correlated", lambda density: MALA(density, 0.06, DIAGONAL), 20_000),
    "mala, dense": ("correlated", lambda density: MALA(density, 0.15, DENSE), 20_000),
    "mala, skewed": ("skewed", lambda density: MALA(density, 0.3), 20_000),
    "mala, two wells": ("two wells", lambda density: MALA(density, 0.4), 20_000),
    "barker, dense": ("correlated", lambda density: Barker(density, 0.8, DENSE), 20_000),
    "barker, skewed": ("skewed", lambda density: Barker(density, 1.2), 20_000),
    "barker, two wells": ("two wells", lambda density: Barker(density, 1.3), 20_000),
    "rwm, dense": ("correlated", lambda density: RWM(density, 0.9, DENSE), 40_000),
    "rwm, skewed": ("skewed", lambda density: RWM(density, 1.6), 40_000),
    "rwm, two wells": ("two wells", lambda density: RWM(density, 2.0), 20_000),
    "pcn, dense": ("correlated", lambda density: PCN(density, 0.3, None, 1.5 * DENSE), 40_000),
    "pcn, skewed": ("skewed", lambda density: PCN(density, 0.3, None, np.full(3, 4, np.float32)), 60_000),
    "pcn, two wells": ("two wells", lambda density: PCN(density, 0.4, 0.1, np.full(2, 9, np.float32)), 20_000),
    "gibbs": ("correlated", lambda density: Gibbs(density, 0.7), 20_000),
    "gibbs, skewed": ("skewed", lambda density: Gibbs(density, 1.5), 20_000),
    "gibbs, two wells": ("two wells", lambda density: Gibbs(density, 1.5), 20_000),
    "ghmc, dense": ("correlated", lambda density: GHMC(density, 0.5, DENSE, 0.3), 20_000),
    "ghmc, skewed": ("skewed", lambda density: GHMC(density, 0.8, None, 0.3, 2), 20_000),
    "ghmc, two wells": ("two wells", lambda density: GHMC(density, 0.8, None, 0.3), 20_000),
    "hmc, identity": ("correlated", lambda density: HMC(density, 0.35, None, 5), 5_000),
    "hmc, dense": ("correlated", lambda density: HMC(density, 0.5, DENSE, 4, step_size_jitter=0), 5_000),
    "hmc, skewed": ("skewed", lambda density: HMC(density, 0.9, None, 3, min_integration_steps=1), 5_000),
    "hmc, two wells": ("two wells", lambda density: HMC(density, 0.9, DIAGONAL, 3), 10_000),
    "hmc, several": ("skewed", lambda density: HMC(density, 0.9, None, 2, num_trajectories=2), 5_000),
    "adjusted mclmc": ("correlated", lambda density: AdjustedMCLMC(density, 0.5, 5), 5_000),
    "adjusted mclmc, skewed": ("skewed", lambda density: AdjustedMCLMC(density, 2.0, 3), 5_000),
    "adjusted mclmc, two wells": ("two wells", lambda density: AdjustedMCLMC(density, 1.5, 3), 10_000),
    "tempering": ("correlated", lambda density: Tempering(density, 0.06, num_temperatures=3, hottest=0.2), 20_000),
    "tempering, skewed": ("skewed", lambda density: Tempering(density, 0.2, num_temperatures=3, hottest=0.3), 20_000),
    "tempering, two wells": ("two wells", lambda density: Tempering(density, 0.4, num_temperatures=2), 20_000),
}


def draw(target: Target, make: Make, num_steps: int, seed: int = 0) -> np.ndarray:
    """Positions of all chains, shape (chain, draw, dim), without the first tenth, which forgets the start."""
    sampler = make(target.logdensity)

    def chain(rng_key: jax.Array) -> jax.Array:
        key_start, key_inputs = jax.random.split(rng_key)
        position = target.initial_position(key_start)
        start = sampler.unknowns(sampler.init(position, key_start))
        inputs = sampler.draw_inputs(key_inputs, num_steps, position)
        states = parsample.evaluate_sequential(sampler.transition, start, inputs).states
        return jax.vmap(lambda unknowns: sampler.resume(unknowns).position["x"])(states)

    keys = jax.random.split(jax.random.key(seed), CHAINS)
    return np.asarray(jax.jit(jax.vmap(chain))(keys), np.float64)[:, num_steps // 10 :]


# One target for every sampler; the others with `make test-all`.
@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow if "," in case else ()) for case in CASES])
def test_moments(case: str) -> None:
    law, make, num_steps = CASES[case]
    check_moments(LAWS[law].moments(draw(LAWS[law].target(), make, num_steps)))


# --- detailed balance: between exact draws x and their successors y, flows are the same there and back


SKEWED_DENSE = np.array([[1.0, 0.4, 0.0], [0.4, 2.0, -0.3], [0.0, -0.3, 0.5]], np.float32)
REVERSIBLE: dict[str, Make] = {
    "mala": lambda density: MALA(density, 0.5),
    "mala, dense": lambda density: MALA(density, 0.3, np.diag([1.0, 2.0, 0.5]).astype(np.float32)),
    "barker, dense": lambda density: Barker(density, 1.2, SKEWED_DENSE),
    "rwm, dense": lambda density: RWM(density, 1.2, SKEWED_DENSE),
    "pcn, dense": lambda density: PCN(density, 0.3, 0.2, SKEWED_DENSE),
    "adjusted mclmc": lambda density: AdjustedMCLMC(density, 2.0, 3),
    "hmc": lambda density: HMC(density, 1.0, None, 3, min_integration_steps=1),
    "hmc, dense": lambda density: HMC(density, 0.7, np.diag([1.0, 2.0, 0.5]).astype(np.float32), 3),
}
PAIRS: dict[str, tuple[Any, Any]] = {
    "x0, x0^2": (lambda x: x[:, 0], lambda x: x[:, 0] ** 2),
    "x0, x1": (lambda x: x[:, 0], lambda x: x[:, 1]),
    "x1, exp(x2)": (lambda x: x[:, 1], lambda x: np.exp(x[:, 2])),
    "x2 > 1, x2": (lambda x: x[:, 2] > 1, lambda x: x[:, 2]),
}


@pytest.mark.parametrize("case", REVERSIBLE)
def test_detailed_balance(case: str) -> None:
    target = LogGamma(CONCENTRATION.astype(np.float32))
    sampler = REVERSIBLE[case](target.logdensity)
    count = 200_000
    rng = np.random.default_rng(0)
    before = np.log(rng.gamma(CONCENTRATION, size=(count, 3))).astype(np.float32)

    @jax.jit
    def step(before: jax.Array) -> tuple[jax.Array, jax.Array]:
        position = {"x": before}
        inputs = sampler.draw_inputs(jax.random.key(1), count, {"x": before[0]})
        state, info = jax.vmap(sampler.transition.step)(position, inputs)
        return state.position["x"], info.is_accepted

    after, accepted = (np.asarray(x, np.float64) for x in step(jnp.asarray(before)))
    assert 0.2 < accepted.mean() < 0.95
    for name, (one, other) in PAIRS.items():
        flow = one(before) * other(after) - other(before) * one(after)
        error = flow.std() / np.sqrt(count)
        assert abs(flow.mean()) < 4 * error, f"{name}: {flow.mean() / error:.1f} standard errors"
