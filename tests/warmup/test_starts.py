"""Where warm-up begins: draws from the normal distribution at the mode, in its coordinates, or given positions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.targets import MultivariateNormal
from parsample.targets.density import LogDensity
from parsample.warmup.low_rank import LowRank
from parsample.warmup.starts import begin_at
from tests.warmup.test_coordinates import matrix_of

COVARIANCE = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.1], [0.0, 0.1, 0.05]])


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


@pytest.mark.parametrize("mass", ["diagonal", "dense", "low_rank"])
def test_starts_and_coordinates_are_those_of_the_normal_distribution_at_the_mode(mass: str) -> None:
    mean = np.array([1.0, -2.0, 3.0])
    target = MultivariateNormal(mean=mean, covariance=COVARIANCE)
    vectors, density = begin_at(target, keys(2000), "laplace", mass)
    assert density is not None
    np.testing.assert_allclose(density.center, mean, atol=1e-3)
    assert density.surrogate is not None
    expected = np.diag(np.diag(COVARIANCE)) if mass == "diagonal" else COVARIANCE
    matrix = matrix_of(density.root).astype(np.float64)
    if mass == "low_rank":
        # A direction that is not stretched has the variance 1.4 in the coordinates of the diagonal.
        assert isinstance(density.root, LowRank)
        values = np.linalg.eigvals(np.linalg.solve(matrix @ matrix.T, COVARIANCE))
        assert 0.5 < values.real.min() < values.real.max() < 2
    else:
        np.testing.assert_allclose(matrix @ matrix.T, expected, rtol=2e-3, atol=1e-3)
    spread = np.linalg.solve(matrix, (np.asarray(vectors, np.float64) - mean).T)
    np.testing.assert_allclose(np.cov(spread), np.eye(3), atol=4 * np.sqrt(2 / 2000))


def overflowing(kind: str) -> tuple[LogDensity, np.ndarray]:
    """A regression on covariates that nobody scaled, and its mode by SciPy in double precision.

    Rates are exponentials of exponents up to 160 at a random start: the log density is -1e30, or has no finite Hessian.
    """
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(60), rng.uniform(18, 80, 60), rng.random(60) < 0.4])
    eta = x @ [1.0, -0.02, 0.5]
    y = rng.poisson(np.exp(eta)) if kind == "poisson" else rng.gamma(2.0, np.exp(eta) / 2)

    def energy(beta: Any, numpy: Any) -> Any:
        eta = x @ beta
        loss = numpy.exp(eta) - y * eta if kind == "poisson" else 2 * eta + 2 * y * numpy.exp(-eta)
        return numpy.sum(loss) + 0.5 * numpy.sum(beta**2)

    mode = minimize(energy, np.zeros(3), args=(np,), method="BFGS", options={"gtol": 1e-8}).x
    return LogDensity(lambda beta: -energy(beta, jnp), jnp.zeros(3)), mode


class Wide(LogDensity):
    """Random starts as NumPyro has them."""

    def initial_position(self, rng_key: Any) -> Any:
        return 2 * super().initial_position(rng_key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poisson", "gamma"])
def test_the_mode_is_found_from_a_start_where_the_density_overflows(kind: str) -> None:
    density, mode = overflowing(kind)
    make: Any = Wide
    target = make(density.logdensity_fn, density.center)
    for seed in range(6):
        found = begin_at(target, jax.random.split(jax.random.key(seed), 1), "laplace")[1]
        assert found is not None
        np.testing.assert_allclose(found.center, mode, rtol=1e-2, atol=1e-3)


def test_a_draw_without_a_density_is_the_mode_instead() -> None:
    """A gamma distribution: its normal approximation reaches below 0."""
    target = LogDensity(lambda x: jnp.sum(jnp.where(x > 0, jnp.log(x), -jnp.inf) - x), jnp.ones(2))
    vectors = begin_at(target, keys(100), "laplace")[0]
    at_the_mode = np.isclose(vectors, 1, atol=1e-3).all(1)
    assert 10 < at_the_mode.sum() < 60
    assert float(vectors.min()) > 0


def test_without_a_mode_the_sentence_says_so() -> None:
    with pytest.raises(ValueError, match=r"start is 'laplace', but logdensity_fn has no maximum .* begin at random"):
        begin_at(LogDensity(lambda x: jnp.sum(x), jnp.zeros(2)), keys(2), "laplace")


@pytest.mark.slow
def test_at_the_mode_no_warm_up_is_needed_and_the_surrogate_is_the_target() -> None:
    """The method that takes its matrices from the surrogate alone, out of the box: the chain of the loop, soon."""
    trace = ps.sample(
        MultivariateNormal(covariance=COVARIANCE),
        method="surrogate",
        start="laplace",
        num_warmup=0,
        step_size=0.1,
        num_chains=1,
        num_samples=128,
        window=128,
        progress=False,
    )
    verdict = ps.read_verdict(trace)
    assert verdict.converged
    assert verdict.decisions_that_differ == 0
    assert verdict.iterations < 10
    rate = float(as_datatree(trace)["sample_stats"]["acceptance_rate"].mean())
    assert rate > 0.9, "in the target's own coordinates this step is too long"
