"""Distributions as targets: the density in unconstrained numbers is that of the library's draws, or it is refused."""

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree
from tensorflow_probability.substrates import jax as tfp

import parsample as ps
from parsample.targets import distribution, supports
from parsample.targets.distribution import Distribution
from parsample.targets.given import as_target
from tests.targets.distributions import DENSITIES, REFUSED
from tests.tolerances import STATISTICAL

DRAWS, PROPOSALS = 1000, 8000
# One of each way to a bijector; all others are of the grid, for each compiles programs of its own.
QUICK = (
    *("distrax.Gamma", "distrax.Joint", "distrax.Transformed", "distrax.Uniform"),
    *("tfd.JointDistributionNamed", "tfd.VonMises", "numpyro.Independent"),
)
QUICKLY_REFUSED = (
    *("distrax.Categorical", "distrax.Bernoulli", "distrax.ClippedNormal", "distrax.mixed", "tfd.Poisson"),
    *("tfd.Binomial", "tfd.Inflated", "tfd.uniforms", "numpyro.Poisson", "numpyro.Delta", "numpyro.Independent"),
    *("numpyro.ImproperUniform", "numpyro.ProjectedNormal", "numpyro.LeftCensored", "numpyro.MaskedDistribution"),
)

# TensorFlow Probability's own: what it asks of JAX, and what it says of the distributions that are built here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:shape requires ndarray or scalar arguments:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You have created an Inflated distribution:UserWarning"),
]


# What densities integrate to that are known up to a constant, which no chain sees: TensorFlow Probability's bijectors
# to a simplex measure areas on it, where those of others measure its coordinates.
INTEGRALS = {
    "tfd.Dirichlet": 3**0.5,
    "tfd.FlatDirichlet": 3**0.5,
    "tfd.RelaxedOneHotCategorical": 3**0.5,
    "tfd.ExpRelaxedOneHotCategorical": 3**0.5,
}


def rows(table: Any, quick: tuple[str, ...]) -> list[Any]:
    assert not set(quick) - set(table)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.grid) for name in table]


def unconstrained(target: Distribution, given: Any, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Draws of the library in unconstrained numbers; those that rounding put to the end of the support left out."""
    monkeypatch.setattr(distribution, "DRAWS", DRAWS)
    drawn = distribution._draws(given, supports.library_of(given))
    free = np.asarray(
        jax.jit(jax.vmap(lambda event: ravel_pytree(target.bijector.inverse(event))[0]))(drawn), np.float64
    )
    finite = np.isfinite(free).all(1)
    assert finite.mean() > 0.99
    return free[finite]


@pytest.mark.parametrize("name", rows(DENSITIES, QUICK))
def test_the_density_is_that_of_the_draws(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its mass is there the draws are: by quadrature, or by importance sampling."""
    integral = INTEGRALS.get(name, 1.0)
    given = DENSITIES[name]()
    target = Distribution(given)
    vector, unravel = ravel_pytree(target.center)
    logdensity = jax.jit(jax.vmap(lambda free: target.logdensity(unravel(free))))
    in_double = lambda points: np.asarray(logdensity(jnp.asarray(points, vector.dtype)), np.float64)  # noqa: E731
    free = unconstrained(target, given, monkeypatch)
    if vector.size == 1:
        check_line(in_double, free[:, 0], integral)
    else:
        check_space(in_double, free, integral)


def check_line(logdensity: Any, free: np.ndarray, integral: float) -> None:
    grid = np.linspace(-20, 20, 20001)  # of arsinh z, for tails
    density = np.exp(logdensity(np.sinh(grid)[:, None])) * np.cosh(grid)
    density = np.where(np.isfinite(density), density, 0)
    cumulative = np.cumsum(density) * (grid[1] - grid[0])
    assert cumulative[-1] == pytest.approx(integral, abs=1e-2)
    assert scipy.stats.kstest(np.interp(np.arcsinh(free), grid, cumulative / integral), "uniform").pvalue > 1e-4


def check_space(logdensity: Any, free: np.ndarray, integral: float) -> None:
    center, near = np.median(free, 0), np.clip(free, *np.percentile(free, [1, 99], axis=0))
    proposal = scipy.stats.multivariate_t(center, 1.5 * np.cov(near.T) + 1e-9 * np.eye(free.shape[1]), df=4, seed=1)
    points = proposal.rvs(PROPOSALS)
    weights = np.exp(logdensity(points) - proposal.logpdf(points))
    weights = np.where(np.isfinite(weights), weights, 0) / integral
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(PROPOSALS) + 0.01
    shares = weights / weights.sum()
    ours, theirs = np.tanh(points - center), np.tanh(free - center)
    variance = theirs.var(0) * (1 / len(free) + (shares**2).sum())
    assert (np.abs(shares @ ours - theirs.mean(0)) < (STATISTICAL + 1) * np.sqrt(variance)).all()


@pytest.mark.parametrize("name", rows(REFUSED, QUICKLY_REFUSED))
def test_what_is_no_density_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        Distribution(make())


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (distrax.Normal(jnp.zeros(3), 1.0), r"has batch_shape \(3,\).*distrax.Independent\(distribution, .*=1\)"),
        (tfp.distributions.Normal(jnp.zeros((2, 3)), 1.0), r"\(2, 3\).*tfd.Independent\(distribution, .*=2\)"),
        (dist.Normal(jnp.zeros(3), 1.0), r"has batch_shape \(3,\).*with distribution.to_event\(1\)"),
    ],
)
def test_batch_axes_are_no_event(given: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        Distribution(given)


def test_the_trace_holds_the_distributions_own_coordinates() -> None:
    options: dict[str, Any] = {"num_warmup": 200, "num_samples": 256, "num_chains": 2, "progress": False}
    trace = ps.sample(dist.Dirichlet(jnp.asarray([2.0, 3.0, 4.0])), method="sequential", **options)
    posterior = trace.posterior.to_dataset() if hasattr(trace.posterior, "to_dataset") else trace.posterior
    draws = posterior["x"].values
    assert draws.shape == (2, 256, 3)
    np.testing.assert_allclose(draws.sum(-1), 1, rtol=1e-5)
    assert (draws > 0).all()


class Mine:
    """A distribution of one's own, of which nothing but a density and draws is known."""

    batch_shape, event_shape = (), ()

    def log_prob(self, x: Any) -> Any:
        return -x

    def sample(self, seed: Any, sample_shape: Any) -> Any:
        return jax.random.exponential(seed, sample_shape)


def test_a_bijector_that_is_given_takes_the_place_of_the_support() -> None:
    with pytest.raises(ValueError, match=r"Mine has a support that is not known; give bijectors=\{'x': ...\}"):
        Distribution(Mine())
    target, _, _ = as_target(Mine(), (), {}, None, {"x": "positive"})
    half: Any = jnp.asarray(0.5)
    assert target.logdensity(half) == pytest.approx(-np.exp(0.5) + 0.5)
    with pytest.raises(ValueError, match=r"a name in bijectors is 'y', expected one of x"):
        Distribution(Mine(), None, {"y": "positive"})
    with pytest.raises(ValueError, match=r"initial_position is -1.0, which is not inside the support of .* Gamma"):
        Distribution(distrax.Gamma(2.0, 1.0), -1.0)
    with pytest.raises(ValueError, match=r"initial_position has shape \(2,\), expected \(\), that of a draw"):
        Distribution(distrax.Gamma(2.0, 1.0), jnp.ones(2))
