"""Gaussian processes with unknown hyperparameters, and a spatial model."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem


def kernel(x: Any, variance: Any, lengthscale: Any, jitter: float = 1e-4) -> Any:
    """Return the squared-exponential covariance of points on a line."""
    distance = (x[:, None] - x[None]) / lengthscale
    return variance * jnp.exp(-0.5 * distance**2) + jitter * jnp.eye(len(x))


def gp_regression() -> Problem:
    """40 points, the process summed out; variance, lengthscale and noise unknown."""
    rng = np.random.default_rng(70)
    x = np.sort(rng.uniform(-3, 3, 40))
    y = rng.normal(np.sin(2 * x) + 0.3 * x, 0.25)

    def model(x: Any, y: Any) -> None:
        variance = numpyro.sample("variance", dist.LogNormal(0, 1))
        lengthscale = numpyro.sample("lengthscale", dist.InverseGamma(3, 2))
        noise = numpyro.sample("noise", dist.HalfNormal(1))
        covariance = kernel(x, variance, lengthscale) + noise**2 * jnp.eye(len(x))
        numpyro.sample("y", dist.MultivariateNormal(0, covariance), obs=y)

    return model, (x, y), {}


def gp_counts() -> Problem:
    """Counts in 30 cells, Poisson with a log rate that is a process, by its Cholesky factor."""
    rng = np.random.default_rng(71)
    x = np.linspace(0, 10, 30)
    count = rng.poisson(np.exp(1 + np.sin(x)))

    def model(x: Any, count: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0, 2))
        variance = numpyro.sample("variance", dist.HalfNormal(2))
        lengthscale = numpyro.sample("lengthscale", dist.InverseGamma(3, 5))
        raw = numpyro.sample("raw", dist.Normal(0, 1).expand([len(x)]).to_event(1))
        log_rate = mean + jnp.linalg.cholesky(kernel(x, variance, lengthscale)) @ raw
        numpyro.sample("count", dist.Poisson(jnp.exp(log_rate)), obs=count)

    return model, (x, count), {}


def gp_basis() -> Problem:
    """A process of 100 points by 15 functions of the Laplace operator (a Hilbert-space approximation)."""
    rng = np.random.default_rng(72)
    x = np.linspace(-1, 1, 100)
    y = rng.normal(np.sin(5 * x) * np.exp(-x), 0.3)
    root = np.arange(1, 16) * np.pi / 3.0
    basis = np.sqrt(1 / 1.5) * np.sin(root * (x[:, None] + 1.5))

    def model(basis: Any, root: Any, y: Any) -> None:
        amplitude = numpyro.sample("amplitude", dist.HalfNormal(2))
        lengthscale = numpyro.sample("lengthscale", dist.InverseGamma(3, 1))
        noise = numpyro.sample("noise", dist.HalfNormal(1))
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([15]).to_event(1))
        spectrum = amplitude * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * lengthscale) * jnp.exp(-((lengthscale * root) ** 2) / 4)
        numpyro.sample("y", dist.Normal(basis @ (spectrum * beta), noise), obs=y)

    return model, (basis, root, y), {}


def spatial_car() -> Problem:
    """Cases on a grid of 6 x 6 areas: a conditional autoregression of the log rate."""
    rng = np.random.default_rng(73)
    at = np.stack(np.meshgrid(range(6), range(6)), axis=-1).reshape(-1, 2)
    adjacency = (np.abs(at[:, None] - at).sum(-1) == 1).astype(float)
    expected = rng.uniform(5, 30, 36)
    cases = rng.poisson(expected * np.exp(0.4 * np.sin(at[:, 0]) + 0.1 * at[:, 1] - 0.2))

    def model(adjacency: Any, expected: Any, cases: Any) -> None:
        intercept = numpyro.sample("intercept", dist.Normal(0, 1))
        rho = numpyro.sample("rho", dist.Uniform(0, 1))
        precision = numpyro.sample("precision", dist.Gamma(2, 0.5))
        effect = numpyro.sample("effect", dist.CAR(jnp.zeros(36), rho, precision, adjacency))
        numpyro.sample("cases", dist.Poisson(expected * jnp.exp(intercept + effect)), obs=cases)

    return model, (adjacency, expected, cases), {}
