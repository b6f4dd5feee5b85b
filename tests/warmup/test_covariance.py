"""Estimates of a covariance, against scikit-learn, closed forms, and a choice that is known beforehand."""

import numpy as np
import pytest
from sklearn.covariance import oas

from parsample.warmup import covariance
from parsample.warmup.covariance import ESTIMATES, Moments, choose, cost, shrunk
from tests.warmup.test_scale import correlated


@pytest.mark.parametrize(("rows", "dim"), [(10, 30), (50, 10), (400, 3)])
def test_shrinkage_is_that_of_scikit_learn(rows: int, dim: int) -> None:
    draws = np.random.default_rng(rows).normal(size=(rows, dim)) * np.linspace(0.5, 2, dim)
    draws -= draws.mean(0)
    expected, _ = oas(draws, assume_centered=True)
    np.testing.assert_allclose(shrunk(draws.T @ draws / rows, float(rows)), expected, rtol=1e-10)


def test_the_geometric_mean_maps_one_covariance_to_the_other() -> None:
    x, g = (correlated(condition, 6) for condition in (50.0, 7.0))
    g = g + 0.5 * np.eye(6) + 0.1
    mean = covariance.geometric_mean(x, g)
    np.testing.assert_allclose(mean @ g @ mean, x, rtol=1e-9, atol=1e-10)


def test_the_cost_is_the_root_of_the_condition_number_where_nothing_is_known() -> None:
    truth = correlated(100.0, 8)
    found = Moments(truth, np.linalg.inv(truth), 1e6)
    assert cost(np.eye(8), found) == pytest.approx(10)
    assert cost(truth, found) == pytest.approx(1)
    assert cost(-np.eye(8), found) == np.inf


@pytest.mark.parametrize("dim", [64, 65, 150])
def test_the_cost_is_the_same_by_iteration(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, draws, gradients = (correlated(condition, dim) for condition in (3.0, 30.0, 7.0))
    found = Moments(draws, np.diag(1 + np.arange(dim)) @ gradients @ np.diag(1 + np.arange(dim)), 1e6)
    by_default = cost(matrix, found)
    monkeypatch.setattr(covariance, "FEW_DIMENSIONS", 10**6)
    assert by_default == pytest.approx(cost(matrix, found), rel=1e-3)


def test_draws_that_stand_still_have_a_cost() -> None:
    assert cost(np.eye(80), Moments(np.zeros((80, 80)), np.eye(80), 2.0)) == pytest.approx(np.sqrt(covariance.LEAST))


def normal_draws(truth: np.ndarray, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed).normal(size=(rows, len(truth))) @ np.linalg.cholesky(truth).T
    return draws, -draws @ np.linalg.inv(truth)


@pytest.mark.parametrize("rows", [30, 60, 500])
def test_where_there_is_nothing_to_find_the_diagonal_is_taken(rows: int) -> None:
    draws, pulls = normal_draws(np.eye(40), rows)
    # Gradients with noise of their own: the exact identity of a normal distribution would make all estimates alike.
    pulls = pulls + 0.5 * np.random.default_rng(1).normal(size=pulls.shape)
    name, matrix = choose(draws, pulls, np.arange(rows) < rows // 2, 1.0, tuple(ESTIMATES))
    assert np.linalg.cond(matrix) < 3
    if rows < 100:
        assert name == "diagonal"


@pytest.mark.parametrize("condition", [100.0, 1e4])
def test_correlation_is_found_where_there_is_some(condition: float) -> None:
    truth = correlated(condition, 20)
    draws, pulls = normal_draws(truth, 200)
    name, matrix = choose(draws, pulls, np.arange(200) < 100, 1.0, tuple(ESTIMATES))
    assert name != "diagonal"
    root = np.linalg.cholesky(truth)
    assert np.linalg.cond(np.linalg.solve(root, np.linalg.solve(root, matrix).T)) < 4


def test_what_one_half_says_and_the_other_does_not_is_not_believed() -> None:
    """The first half came in along a line: an estimate of it would stretch that line, which the second half denies."""
    draws, pulls = normal_draws(np.eye(5), 400)
    far = np.zeros((400, 5))
    far[:200, 0] = np.linspace(60, 0, 200)
    name, _ = choose(draws + far, pulls, np.arange(400) < 200, 1.0, ("diagonal", "draws, shrunk"))
    assert name == "diagonal"


def test_a_chain_on_its_way_in_is_not_typical() -> None:
    pulls = np.random.default_rng(0).normal(size=(100, 5))
    pulls[:20] *= 1e6
    np.testing.assert_array_equal(covariance.typical(pulls), np.arange(100) >= 20)


def test_the_scale_of_a_coordinate_does_not_depend_on_where_chains_are() -> None:
    sd = np.array([1e-3, 1.0, 1e3])
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 12, 3)) * sd * 0.1 + rng.normal(size=(4, 1, 3)) * sd * 50
    np.testing.assert_allclose(covariance.scale_of_coordinates(draws, -draws / sd**2), sd, rtol=1e-6)
    draws[2] = draws[2, :1]
    gradients = -draws / sd**2
    gradients[3] *= 1e12
    np.testing.assert_allclose(covariance.scale_of_coordinates(draws, gradients), sd, rtol=1e-6)
    assert np.isnan(covariance.scale_of_coordinates(np.ones((2, 5, 1)), np.ones((2, 5, 1)))).all()


def test_the_worth_of_draws_is_that_of_an_autoregression() -> None:
    rng, correlation = np.random.default_rng(0), 0.8
    draws = np.zeros((4, 4000, 3))
    for step in range(1, 4000):
        draws[:, step] = correlation * draws[:, step - 1] + rng.normal(size=(4, 3))
    assert covariance.worth_of_draws(draws) == pytest.approx((1 - correlation) / (1 + correlation), rel=0.2)
    assert covariance.worth_of_draws(np.ones((2, 50, 3))) == 1 / 50


@pytest.mark.parametrize("rows", [10, 100])
def test_an_estimate_without_a_root_is_the_diagonal(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATES, "draws, shrunk", lambda found: -np.eye(len(found.draws)))
    draws, pulls = normal_draws(np.eye(3), rows)
    name, matrix = choose(draws, pulls, np.arange(rows) < rows // 2, 1.0, ("draws, shrunk",))
    assert name == "diagonal"
    np.testing.assert_array_equal(matrix, np.eye(3))
