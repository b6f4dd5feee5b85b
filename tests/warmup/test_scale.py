"""The scale of a posterior from draws and gradients: low rank, and what is asked for by name."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from parsample.targets.density import LogDensity
from parsample.warmup import scale
from parsample.warmup.coordinates import Standardised, plain
from parsample.warmup.low_rank import LowRank
from tests.warmup.test_coordinates import matrix_of

DIM = 120


def correlated(condition: float, dim: int = DIM) -> np.ndarray:
    """A covariance with variances spread evenly, in logarithms, along directions that are no coordinates."""
    directions, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    return directions @ np.diag(np.logspace(-0.5, 0.5, dim) ** np.log10(condition)) @ directions.T


def normal(covariance: np.ndarray) -> Standardised:
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    return plain(LogDensity(lambda x: -0.5 * x @ precision @ x, jnp.zeros(len(covariance))))


def condition_left(root: Any, covariance: np.ndarray) -> float:
    """The condition number of the covariance in the coordinates of a root."""
    values = np.linalg.svd(np.linalg.solve(np.asarray(root, float), np.linalg.cholesky(covariance)))[1]
    return float((values[0] / values[-1]) ** 2)


def test_low_rank_finds_a_normal_distribution_from_draws_that_are_not_of_it() -> None:
    """White noise, far from the mean: a covariance of draws would see nothing, the gradients see everything."""
    covariance = correlated(1e4)
    draws = jnp.asarray(3 + np.random.default_rng(1).normal(size=(1500, DIM)), jnp.float32)
    found = scale.trimmed(scale.standardise(normal(covariance), draws)).root
    assert isinstance(found, LowRank)
    assert DIM / 2 < found.stretch.size < DIM
    assert condition_left(matrix_of(found), covariance) < 8, "4 is what directions within a factor of 2 leave"
    dense = scale.standardise(normal(covariance), draws, "dense").root
    assert condition_left(dense, covariance) > 3e3
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(found.stretch.size), atol=1e-5)
    np.testing.assert_allclose(found.dense(), matrix_of(found), rtol=1e-4, atol=1e-5)


def test_the_geometric_mean_maps_one_covariance_to_the_other() -> None:
    x, g = (correlated(condition, 6) for condition in (50.0, 7.0))
    g = g + 0.5 * np.eye(6) + 0.1
    mean = scale._geometric_mean(x, g)
    np.testing.assert_allclose(mean @ g @ mean, x, rtol=1e-9, atol=1e-10)


def test_a_few_directions_are_found_in_more_dimensions_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "SUBSPACE", 40)
    dim = 60
    long = np.ones(dim) / np.sqrt(dim)
    covariance = np.eye(dim) + 399 * np.outer(long, long)
    draws = np.random.default_rng(1).normal(size=(400, dim)) @ np.linalg.cholesky(covariance).T
    found = scale.trimmed(scale.standardise(normal(covariance), jnp.asarray(draws, jnp.float32), "low_rank")).root
    assert isinstance(found, LowRank)
    widest = int(np.argmax(found.stretch))
    assert abs(float(found.directions[:, widest] @ long)) > 0.95
    assert np.linalg.norm(matrix_of(found).T @ long) == pytest.approx(20, rel=0.3)


def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    target = LogDensity(lambda x: -0.5 * jnp.sum(x**2) + 0 * jnp.sqrt(x[0] + 3).sum(), jnp.zeros(DIM))
    draws = np.random.default_rng(2).normal(size=(600, DIM))
    draws[::7, 0] = -5
    found = scale.standardise(plain(target), jnp.asarray(draws, jnp.float32), "low_rank").root
    matrix = matrix_of(found)
    assert np.isfinite(matrix).all()
    assert 0.5 < np.linalg.svd(matrix[1:, 1:])[1].min()


@pytest.mark.parametrize("rows", [2, 5])
def test_few_draws_or_draws_that_stand_still_leave_a_root_that_can_be_inverted(rows: int) -> None:
    for draws in (np.ones((rows, DIM)), np.random.default_rng(3).normal(size=(rows, DIM))):
        matrix = matrix_of(scale.standardise(normal(np.eye(DIM)), jnp.asarray(draws, jnp.float32)).root)
        assert np.isfinite(matrix).all()
        assert np.linalg.cond(matrix) < 1e4


@pytest.mark.parametrize("mass", ["diagonal", "low_rank", "dense"])
def test_the_structure_is_the_one_that_was_asked_for(mass: str) -> None:
    draws = jnp.asarray(np.random.default_rng(4).normal(size=(50, 3)) @ np.tril(np.ones((3, 3))), jnp.float32)
    own = normal(np.eye(3))
    for density in (scale.unscaled(own, mass), scale.standardise(own, draws, mass)):
        root = density.root
        shape = "low_rank" if isinstance(root, LowRank) else {1: "diagonal", 2: "dense"}[root.ndim]
        assert shape == mass
    np.testing.assert_array_equal(matrix_of(scale.unscaled(own, mass).root), np.eye(3))


def test_another_structure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mass is 'low-rank', expected one of auto, .* Did you mean 'low_rank'"):
        scale.check_mass("low-rank")
