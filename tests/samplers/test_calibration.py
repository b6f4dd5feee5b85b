"""Simulation-based calibration: data from the prior, a parallel chain on their posterior, and the rank of the truth.

1. Draw parameters from the prior, and data from the model with these parameters. Given the data, the parameters are a
   draw from the posterior.
2. From them, run a reversible chain for a random number of steps backwards and the rest forwards: `LENGTH` further
   draws. All of them together are a stretch of a stationary chain with the truth at a random place, so its rank among
   them is uniform, however slowly the chain moves.

Source: Gandy & Scott 2020, "Unit testing for MCMC and other Monte Carlo methods", section 3.2; Talts et al. 2018.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Key
from scipy import stats

import parsample
from parsample.samplers import HMC, MALA, RWM, Barker, Sampler

LENGTH = 31
REPLICATES = 2048
# A state that stayed is the same within the tolerance of the evaluation.
TIE = 2e-3
X = np.linspace(-1.5, 1.5, 12, dtype=np.float32)


class Model(NamedTuple):
    """Parameters from the prior, data given parameters, and the log density of parameters given data."""

    prior: Callable[[Key[Array, ""]], Array]
    data: Callable[[Key[Array, ""], Array], Array]
    logdensity: Callable[[Array, Array], Array]


def regression_density(theta: Array, y: Array) -> Array:
    """Intercept and slope ~ N(0, 1), log sigma ~ N(-0.5, 0.5^2), y ~ N(intercept + slope x, sigma^2)."""
    z = (y - theta[0] - theta[1] * X) * jnp.exp(-theta[2])
    prior = -0.5 * (theta[0] ** 2 + theta[1] ** 2 + ((theta[2] + 0.5) / 0.5) ** 2)
    return prior - 0.5 * jnp.sum(z**2) - X.size * theta[2]


def counts_density(theta: Array, y: Array) -> Array:
    """Intercept and slope ~ N(0, 1), y ~ Poisson(exp(intercept + slope x))."""
    eta = theta[0] + theta[1] * X
    return -0.5 * jnp.sum(theta**2) + jnp.sum(y * eta - jnp.exp(eta))


MODELS = {
    "regression": Model(
        lambda key: jax.random.normal(key, (3,)) * jnp.asarray([1.0, 1.0, 0.5]) + jnp.asarray([0.0, 0.0, -0.5]),
        lambda key, theta: theta[0] + theta[1] * X + jnp.exp(theta[2]) * jax.random.normal(key, X.shape),
        regression_density,
    ),
    "counts": Model(
        lambda key: jax.random.normal(key, (2,)),
        lambda key, theta: jax.random.poisson(key, jnp.exp(theta[0] + theta[1] * X)).astype(jnp.float32),
        counts_density,
    ),
}

# Reversible samplers, with steps that accept and reject often.
SAMPLERS: dict[str, Callable[[Callable], Sampler]] = {
    "mala": lambda density: MALA(density, 0.03),
    "hmc": lambda density: HMC(density, 0.2, num_integration_steps=3),
    "rwm": lambda density: RWM(density, 0.3),
    "barker": lambda density: Barker(density, 0.3),
}


def ranks(model: Model, make: Callable[[Callable], Sampler]) -> tuple[np.ndarray, np.ndarray]:
    """The rank of every parameter in every replicate, shape (replicate, parameter), and how often chains moved."""

    def replicate(rng_key: Array) -> tuple[Array, Array]:
        keys = jax.random.split(rng_key, 5)
        truth = model.prior(keys[0])
        y = model.data(keys[1], truth)
        sampler = make(lambda theta: model.logdensity(theta, y))

        def chain(key: Array) -> Any:
            inputs = sampler.draw_inputs(key, LENGTH, truth)
            return parsample.evaluate(sampler.transition, truth, inputs, atol=1e-4, rtol=1e-4, throw=False).states

        backwards, forwards = chain(keys[2]), chain(keys[3])
        place = jax.random.randint(keys[4], (), 0, LENGTH + 1)
        row = jnp.arange(LENGTH)
        draws = jnp.where((row < place)[:, None], backwards, forwards[row - place])
        moved = jnp.any(jnp.diff(forwards, axis=0) != 0, 1)
        return _rank(draws, truth, keys[4]), moved.mean()

    found, moved = jax.jit(jax.vmap(replicate))(jax.random.split(jax.random.key(0), REPLICATES))
    return np.asarray(found), np.asarray(moved)


def _rank(draws: Array, truth: Array, rng_key: Array) -> Array:
    """The rank of the truth among draws. Equal ones, where the chain stayed, come before or after it at random."""
    equal = jnp.abs(draws - truth) < TIE
    before = jnp.sum(~equal & (draws < truth), 0)
    return before + jnp.floor(jax.random.uniform(rng_key, truth.shape) * (equal.sum(0) + 1)).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_rank_of_the_truth_is_uniform(sampler: str, model: str) -> None:
    found, moved = ranks(MODELS[model], SAMPLERS[sampler])
    assert 0.3 < moved.mean() < 0.97
    for parameter in found.T:
        counts = np.bincount(parameter, minlength=LENGTH + 1)
        assert counts.size == LENGTH + 1
        # With the seed fixed: one right sampler in a thousand would fail.
        assert stats.chisquare(counts).pvalue > 1e-3, counts
