"""Gaussian surrogates: their density by another library, and the mode of a density as their mean."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal

from parsample.engine.surrogates import Gaussian, laplace
from tests.tolerances import SAME_COMPUTATION

COVARIANCE = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
MEAN = {"a": jnp.asarray(1.0), "b": jnp.asarray([-2.0, 0.5])}
FLAT = np.array([1.0, -2.0, 0.5])


def unflatten(vector: Any) -> Any:
    return {"a": vector[0], "b": vector[1:]}


@pytest.mark.parametrize("covariance", [COVARIANCE, np.diag(COVARIANCE)], ids=["dense", "diagonal"])
def test_the_density_is_that_of_the_normal_distribution_up_to_a_constant(covariance: np.ndarray) -> None:
    gaussian = Gaussian(MEAN, covariance)
    full = covariance if covariance.ndim == 2 else np.diag(covariance)
    points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    found = jax.jit(jax.vmap(lambda point: gaussian(unflatten(point))))(points)
    logpdf = lambda x: np.asarray(multivariate_normal.logpdf(x, jnp.asarray(FLAT), jnp.asarray(full)))  # noqa: E731
    expected, constant = logpdf(points), logpdf(jnp.asarray(FLAT))
    np.testing.assert_allclose(found, expected - constant, rtol=1e-5, atol=1e-5)
    assert gaussian(MEAN) == 0


@pytest.mark.parametrize("covariance", [COVARIANCE, np.diag(COVARIANCE)], ids=["dense", "diagonal"])
def test_its_hessian_diagonal_is_that_of_its_hessian(covariance: np.ndarray) -> None:
    gaussian = Gaussian(MEAN, covariance)
    found = gaussian.hessian_diagonal(MEAN)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, MEAN)
    hessian = jax.jit(jax.hessian(lambda vector: gaussian(unflatten(vector))))(FLAT.astype(np.float32))
    SAME_COMPUTATION.check(np.concatenate([found["a"][None], found["b"]]), np.diagonal(hessian))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones((2, 2)), r"covariance has shape \(2, 2\), expected \(3, 3\) or \(3,\), because mean holds 3 numbers"),
        (np.ones(4), r"covariance has shape \(4,\), expected \(3, 3\) or \(3,\)"),
        (1.0, r"covariance has shape \(\), expected"),
        (np.diag([1.0, np.nan, 1.0]), "covariance holds values that are not finite"),
        (np.diag([2.0, -0.5, 1.0]), "not positive definite: eigenvalue 0 of 3 is -0.5, expected all above 0"),
        (np.array([1.0, 2.0, -0.25]), "not positive definite: eigenvalue 2 of 3 is -0.25"),
        (np.ones((3, 3)), "not positive definite: eigenvalue [01] of 3 is .*; add a little to its diagonal"),
        (np.zeros(3), "not positive definite: eigenvalue 0 of 3 is 0"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gaussian(MEAN, covariance)


def test_laplace_recovers_a_gaussian() -> None:
    truth = Gaussian(MEAN, COVARIANCE)
    found = laplace(truth, jax.tree.map(lambda leaf: leaf + 5.0, MEAN))
    np.testing.assert_allclose(found.mean, FLAT, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.linalg.inv(np.asarray(found.precision, np.float64)), COVARIANCE, rtol=1e-4, atol=1e-4)


def test_laplace_of_a_logistic_regression() -> None:
    """At the mean the gradient is 0, and the precision is X^T diag(p (1 - p)) X + 1: both in NumPy."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 4)) * [1.0, 3.0, 0.3, 1.0]
    labels = (rng.random(200) < 1 / (1 + np.exp(-features @ [0.5, -0.3, 1.0, 0.0]))).astype(float)
    x, y = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.float32)

    def logdensity_fn(weights: Any) -> Any:
        logits = x @ weights
        return jnp.sum(y * logits - jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(weights**2)

    found = laplace(logdensity_fn, jnp.zeros(4))
    mean = np.asarray(found.mean, np.float64)
    probability = 1 / (1 + np.exp(-features @ mean))
    gradient = features.T @ (labels - probability) - mean
    precision = features.T @ (features * (probability * (1 - probability))[:, None]) + np.eye(4)
    # In standard deviations of the posterior.
    assert np.abs(np.linalg.solve(np.linalg.cholesky(precision), gradient)).max() < 1e-3
    np.testing.assert_allclose(found.precision, precision, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "logdensity_fn",
    [lambda x: jnp.sum(x), lambda x: jnp.sum(x**2), lambda x: 0 * jnp.sum(x), lambda x: -jnp.sum(x**2) * jnp.nan],
    ids=["slope", "minimum", "flat", "nan"],
)
def test_a_density_without_a_maximum_is_refused(logdensity_fn: Any) -> None:
    with pytest.raises(
        ValueError, match=r"logdensity_fn has no maximum near where the search ended: gradient .*; start"
    ):
        laplace(logdensity_fn, jnp.asarray([1.0, 2.0]))


def test_a_search_that_steps_over_the_edge_goes_on_from_where_it_began() -> None:
    """A gamma distribution, whose density below 0 is NaN, with a gradient of 0: from far above BFGS ends there."""
    found = laplace(lambda x: jnp.sum(jnp.where(x > 0, 5 * jnp.log(x) - x, jnp.nan)), jnp.full(3, 50.0))
    np.testing.assert_allclose(found.mean, 5.0, rtol=1e-3)
    np.testing.assert_allclose(found.precision, np.eye(3) / 5, atol=1e-3)
