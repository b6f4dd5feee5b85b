"""The polynomial that fits runs: found where there is one, the same in other coordinates, no fit to noise."""

import itertools

import numpy as np
import pytest

from parsample.workers.polynomial import Coordinates, Polynomial, Seen, fit, nothing

DIM = 4
RNG = np.random.default_rng(0)
HALF = RNG.normal(size=(DIM, DIM))
PRECISION, PULL = HALF @ HALF.T / DIM + np.eye(DIM), RNG.normal(size=DIM)
THIRD = 0.05 * RNG.normal(size=(DIM, DIM, DIM))
TWIST = np.sum([THIRD.transpose(axes) for axes in itertools.permutations(range(3))], 0)
HERE = Coordinates(np.zeros(DIM), np.eye(DIM))


def value(points: np.ndarray) -> np.ndarray:
    return points @ PULL - 0.5 * np.einsum("ni,ij,nj->n", points, PRECISION, points) + 7.0


@pytest.mark.parametrize("has_gradient", [True, False])
def test_a_quadratic_log_density_is_found(has_gradient: bool) -> None:
    points = RNG.normal(size=(300, DIM))
    found = fit(points, value(points), PULL - points @ PRECISION if has_gradient else None)
    assert found is not None
    np.testing.assert_allclose(found.tilt, PULL, atol=2e-3)
    np.testing.assert_allclose(found.bend, (np.eye(DIM) - PRECISION) / 2, atol=2e-3)
    assert (found.twist is not None) == has_gradient
    if found.twist is not None:
        np.testing.assert_allclose(found.twist, np.zeros((DIM, DIM, DIM)), atol=2e-3)


def test_the_third_order_is_found_by_gradients() -> None:
    points = RNG.normal(size=(300, DIM))
    gradients = PULL - points @ PRECISION + 3 * np.einsum("ijk,nj,nk->ni", TWIST, points, points)
    found = fit(points, value(points), gradients)
    assert found is not None
    np.testing.assert_allclose(found.tilt, PULL, atol=2e-3)
    np.testing.assert_allclose(found.bend, (np.eye(DIM) - PRECISION) / 2, atol=2e-3)
    assert found.twist is not None
    np.testing.assert_allclose(found.twist, TWIST, atol=2e-3)


def test_fewer_runs_than_the_third_order_needs_give_the_second() -> None:
    dim = 25
    points = RNG.normal(size=(60, dim))
    found = fit(points, np.zeros(60), np.cos(points) - 2 * points)
    assert found is not None
    assert found.twist is not None
    assert not found.twist.any()


@pytest.mark.parametrize(("dim", "has_twist"), [(60, True), (70, False)])
def test_there_is_no_third_order_in_many_dimensions(dim: int, has_twist: bool) -> None:
    points = RNG.normal(size=(40, dim))
    found = fit(points, np.zeros(40), -2 * points)
    assert found is not None
    assert [leaf is None for leaf in found] == [leaf is None for leaf in nothing(dim, has_gradient=True)]
    assert (found.twist is not None) == has_twist


@pytest.mark.parametrize("twist", [TWIST, None])
def test_it_is_the_same_function_in_other_coordinates(twist: np.ndarray | None) -> None:
    centers, roots = RNG.normal(size=(2, DIM)), np.tril(RNG.normal(size=(2, DIM, DIM))) + 2 * np.eye(DIM)
    old, new = (Coordinates(*pair) for pair in zip(centers, roots, strict=True))
    half = RNG.normal(size=(DIM, DIM))
    found = Polynomial(RNG.normal(size=DIM), half + half.T, twist)
    positions = RNG.normal(size=(5, DIM))

    def of(coordinates: Coordinates, function: Polynomial) -> np.ndarray:
        z = np.linalg.solve(coordinates.root, (positions - coordinates.center).T).T
        third = 0.0 if function.twist is None else np.einsum("ijk,ni,nj,nk->n", function.twist, z, z, z)
        return z @ function.tilt + np.einsum("ni,ij,nj->n", z, function.bend, z) - 0.5 * (z**2).sum(1) + third

    before, after = of(old, found), of(new, found.moved(old, new))
    np.testing.assert_allclose(after - after[0], before - before[0], rtol=1e-9, atol=1e-9)


def test_noise_is_not_fitted() -> None:
    points = RNG.normal(size=(400, DIM))
    found = fit(points, RNG.normal(size=400) - 0.5 * (points**2).sum(1), None)
    assert found is None or max(np.abs(found.tilt).max(), np.abs(found.bend).max()) < 0.2
    assert fit(points[:60], points[:60, 0] - 0.5 * (points[:60] ** 2).sum(1), None, share=1.0) is None


def test_a_fit_is_made_anew_when_there_are_half_as_many_runs_again() -> None:
    seen = Seen()
    assert seen.fit(HERE, has_gradient=False) is None
    for number, expected in ((100, 100), (20, 100), (40, 160)):
        points = RNG.normal(size=(number, DIM))
        seen.add(points, value(points), np.zeros_like(points))
        seen.fit(HERE, has_gradient=False)
        assert seen.fitted_at == expected
    seen.add(np.zeros((1, DIM)), np.array([-np.inf]), np.zeros((1, DIM)))
    assert seen.count == 160
