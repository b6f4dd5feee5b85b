"""Where warm-up begins: draws from the normal distribution at the mode, in its coordinates, or given positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
