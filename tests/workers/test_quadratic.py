"""The quadratic function that fits runs: found where there is one, the same in other coordinates, no fit to noise."""

import numpy as np
import pytest

from parsample.workers.quadratic import Seen, fit, moved

DIM = 4
RNG = np.random.default_rng(0)
HALF = RNG.normal(size=(DIM, DIM))
PRECISION, PULL = HALF @ HALF.T / DIM + np.eye(DIM), RNG.normal(size=DIM)


def value(points: np.ndarray) -> np.ndarray:
    return points @ PULL - 0.5 * np.einsum("ni,ij,nj->n", points, PRECISION, points) + 7.0


@pytest.mark.parametrize("has_gradient", [True, False])
def test_a_quadratic_log_density_is_found(has_gradient: bool) -> None:
    points = RNG.normal(size=(300, DIM))
    found = fit(points, value(points), PULL - points @ PRECISION if has_gradient else None)
    assert found is not None
    tilt, bend = found
    np.testing.assert_allclose(tilt, PULL, atol=2e-3)
    np.testing.assert_allclose(bend, (np.eye(DIM) - PRECISION) / 2, atol=2e-3)


def test_it_is_the_same_function_in_other_coordinates() -> None:
    centers, roots = RNG.normal(size=(2, DIM)), np.tril(RNG.normal(size=(2, DIM, DIM))) + 2 * np.eye(DIM)
    tilt, half = RNG.normal(size=DIM), RNG.normal(size=(DIM, DIM))
    bend = half + half.T
    new_tilt, new_bend = moved(centers[0], roots[0], tilt, bend, centers[1], roots[1])
    positions = RNG.normal(size=(5, DIM))

    def of(place: int, tilt: np.ndarray, bend: np.ndarray) -> np.ndarray:
        z = np.linalg.solve(roots[place], (positions - centers[place]).T).T
        return z @ tilt + np.einsum("ni,ij,nj->n", z, bend, z) - 0.5 * (z**2).sum(1)

    before, after = of(0, tilt, bend), of(1, new_tilt, new_bend)
    np.testing.assert_allclose(after - after[0], before - before[0], rtol=1e-9, atol=1e-9)


def test_noise_is_not_fitted() -> None:
    points = RNG.normal(size=(60, DIM))
    assert fit(points, RNG.normal(size=60) - 0.5 * (points**2).sum(1), None) is None


def test_a_fit_is_made_anew_when_there_are_half_as_many_runs_again() -> None:
    seen, center, root = Seen(), np.zeros(DIM), np.eye(DIM)
    assert seen.fit(center, root, has_gradient=False) is None
    for number, expected in ((100, 100), (20, 100), (40, 160)):
        points = RNG.normal(size=(number, DIM))
        seen.add(points, value(points), np.zeros_like(points))
        seen.fit(center, root, has_gradient=False)
        assert seen.fitted_at == expected
    seen.add(np.zeros((1, DIM)), np.array([-np.inf]), np.zeros((1, DIM)))
    assert seen.count == 160
