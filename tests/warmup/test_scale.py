"""The scale of a posterior from draws and gradients: low rank, and what is asked for by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.targets.density import LogDensity
from parsample.warmup import scale
from parsample.warmup.coordinates import Standardised, plain
from parsample.warmup.low_rank import LowRank
from tests.tolerances import SAME_COMPUTATION
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


def seen(density: Standardised, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws of four chains, and the gradients there."""
    rows = draws[: len(draws) // 4 * 4].reshape(-1, 4, draws.shape[-1]).swapaxes(0, 1)
    slope = jax.grad(lambda vector: density.target.logdensity(density.unravel(vector)))
    return rows, np.asarray(jax.jit(jax.vmap(jax.vmap(slope)))(rows.astype(np.float32)))


def standardised(own: Standardised, draws: np.ndarray, mass: str = "auto") -> Standardised:
    return scale.standardise(scale.unscaled(own, mass), *seen(own, draws), mass)


@pytest.mark.parametrize(
    ("mass", "most"), [("auto", 1.5), ("low_rank", 8), pytest.param("dense", 1.5, marks=pytest.mark.slow)]
)
def test_a_normal_distribution_is_found_from_draws_that_are_not_of_it(mass: str, most: float) -> None:
    """Long directions are hardly explored, far from the mean: a covariance of draws would miss them."""
    covariance = correlated(1e4)
    values, vectors = np.linalg.eigh(covariance)
    draws = 3 + np.random.default_rng(1).normal(size=(1500, DIM)) * np.minimum(1, np.sqrt(values)) @ vectors.T
    found = scale.trimmed(standardised(normal(covariance), draws, mass)).root
    assert condition_left(matrix_of(found), covariance) < most, "4 is what directions within a factor of 2 leave"
    if mass == "low_rank":
        assert isinstance(found, LowRank)
        assert DIM / 2 < found.stretch.size < DIM
        np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(found.stretch.size), atol=1e-5)
        np.testing.assert_allclose(found.dense(), matrix_of(found), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_draws", [24, 400])
def test_the_unit_of_a_coordinate_does_not_matter(num_draws: int) -> None:
    dim = 10
    factor = np.tril(np.ones((dim, dim)))
    units = 10.0 ** np.arange(-4, dim - 4)
    draws = np.random.default_rng(0).normal(size=(num_draws, dim)) @ factor
    matrices = []
    for unit in (np.ones(dim), units):
        covariance = unit[:, None] * factor.T @ factor * unit
        precision = np.linalg.inv(covariance)
        rows = (draws * unit).reshape(4, -1, dim)
        own = plain(LogDensity(lambda x: -0.5 * jnp.sum(x**2), jnp.zeros(dim)))
        matrices.append(matrix_of(scale.standardise(scale.unscaled(own, "auto"), rows, -rows @ precision).root))
    np.testing.assert_allclose(matrices[1], units[:, None] * matrices[0], rtol=2e-3, atol=2e-4 * units.min())


def long_directions(count: int, dim: int, variance: float = 400) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal columns, and the covariance that has this variance along them and 1 elsewhere."""
    columns, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(dim, count)))
    return columns, np.eye(dim) + (variance - 1) * columns @ columns.T


@pytest.mark.parametrize(("count", "looked_at"), [(0, 0), (1, 4), (3, 12), (40, 100)])
def test_in_many_dimensions_only_what_both_halves_show_is_looked_at(
    count: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "SUBSPACE", 100)
    dim = scale.LARGEST_DENSE + 44
    columns, covariance = long_directions(count, dim)
    rows = np.random.default_rng(1).normal(size=(280, dim)) @ np.linalg.cholesky(covariance).T
    basis = scale._looked_at(rows, -rows @ np.linalg.inv(covariance), np.arange(280) < 140)
    # A half of the draws or of the gradients may each show what the others show, and no half much beside.
    assert basis.shape[1] <= looked_at
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-9)
    assert np.linalg.norm(basis.T @ columns, axis=0) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("draws", "left"), [(280, 20), (400, 2.5)])
@pytest.mark.parametrize("mass", ["auto", "low_rank"])
def test_long_directions_in_many_dimensions_are_found(mass: str, draws: int, left: float) -> None:
    """By draws that span the space exactly, up to the factor that is left to the diagonal; by fewer nearly so."""
    dim = scale.LARGEST_DENSE + 44
    columns, covariance = long_directions(2, dim)
    rows = np.random.default_rng(1).normal(size=(draws, dim)) @ np.linalg.cholesky(covariance).T
    found = scale.trimmed(standardised(normal(covariance), rows, mass)).root
    assert isinstance(found, LowRank)
    assert np.linalg.norm(found.directions.T @ columns, axis=0) == pytest.approx(1, abs=0.1)
    assert condition_left(matrix_of(found), covariance) < left, "of 400"


def test_in_many_dimensions_no_estimate_is_made_where_the_diagonal_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "choose", None)
    dim = scale.LARGEST_DENSE + 44
    variances = np.logspace(-4, 4, dim)
    draws = np.random.default_rng(1).normal(size=(280, dim)) * np.sqrt(variances)
    root = standardised(normal(np.diag(variances)), draws).root
    assert isinstance(root, jax.Array)
    np.testing.assert_allclose(np.asarray(root) ** 2, variances, rtol=0.5)


@pytest.mark.parametrize(("far", "room"), [(0, 0), (1, 16), (16, 16), (17, 40)])
def test_a_root_has_room_for_one_of_a_few_numbers_of_directions(far: int, room: int) -> None:
    """Programs are compiled for them, and every step has so many products: where none is needed there are none."""
    dim = 40
    covariance = np.diag(np.where(np.arange(dim) < far, 100.0, 1.0))
    directions, stretch = scale._stretched(covariance, np.eye(dim))
    assert directions.shape == (dim, room)
    np.testing.assert_allclose(stretch, np.where(np.arange(room) < far, 10.0, 1.0))
    density = scale._with_root(normal(np.eye(dim)), np.zeros(dim), np.ones(dim), covariance, np.eye(dim))
    assert isinstance(density.root, jax.Array)
    assert density.root.ndim == 2
    diagonal = scale.unscaled(normal(np.eye(dim)), "low_rank")
    found = scale._with_root(diagonal, np.zeros(dim), np.ones(dim), covariance, np.eye(dim)).root
    assert isinstance(found, LowRank) == (far > 0)
    np.testing.assert_allclose(matrix_of(found) ** 2, covariance, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    own = normal(np.eye(DIM))
    draws, gradients = seen(own, np.random.default_rng(2).normal(size=(600, DIM)))
    draws, gradients = draws.copy(), gradients.copy()
    gradients[:, ::7, 0] = np.nan
    draws[:, 3::7, 1], gradients[:, 3::7] = np.inf, np.nan
    matrix = matrix_of(scale.standardise(scale.unscaled(own, "auto"), draws, gradients).root)
    np.testing.assert_allclose(matrix, np.eye(DIM), atol=0.2)
    nothing = scale.standardise(own, draws, np.full_like(gradients, np.nan))
    assert nothing is own


@pytest.mark.parametrize("rows", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_few_draws_or_draws_that_stand_still_leave_a_root_that_can_be_inverted(rows: int) -> None:
    for draws in (np.ones((rows, DIM)), np.random.default_rng(3).normal(size=(rows, DIM))):
        for mass in scale.MASSES:
            matrix = matrix_of(standardised(normal(np.eye(DIM)), draws, mass).root)
            assert np.isfinite(matrix).all()
            assert np.linalg.cond(matrix) < 1e4


def test_a_coordinate_that_stands_still_keeps_its_scale() -> None:
    own = normal(np.eye(3))
    before = scale.standardise(scale.unscaled(own, "dense"), *seen(own, np.random.default_rng(4).normal(size=(80, 3))))
    draws = np.random.default_rng(5).normal(size=(80, 3))
    draws[:, 1] = 7.0
    after = scale.standardise(before, *seen(own, draws))
    assert scale.scale_of(after)[1] == pytest.approx(scale.scale_of(before)[1], rel=0.1)


@pytest.mark.parametrize("mass", ["diagonal", "low_rank", "dense"])
def test_the_structure_is_the_one_that_was_asked_for(mass: str) -> None:
    factor = np.tril(np.ones((3, 3)))
    draws = np.random.default_rng(4).normal(size=(52, 3)) @ factor
    own = normal(factor.T @ factor)
    # Until there are directions to stretch, a root that has some is a diagonal.
    begun = {"low_rank": "diagonal"}.get(mass, mass)
    for density, expected in ((scale.unscaled(own, mass), begun), (standardised(own, draws, mass), mass)):
        root = density.root
        assert ("low_rank" if isinstance(root, LowRank) else {1: "diagonal", 2: "dense"}[root.ndim]) == expected
    np.testing.assert_array_equal(matrix_of(scale.unscaled(own, mass).root), np.eye(3))


def test_another_structure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mass is 'low-rank', expected one of auto, .* Did you mean 'low_rank'"):
        scale.check_mass("low-rank")


def test_deviations_of_low_rank_coordinates_need_no_dense_matrix(rng: np.random.Generator) -> None:
    directions = np.linalg.qr(rng.normal(size=(7, 3)))[0]
    scales, stretch = rng.uniform(0.1, 10.0, 7), np.array([0.1, 1.0, 20.0])
    root = LowRank(*(jnp.asarray(part, jnp.float32) for part in (scales, directions, stretch)))
    dense = np.asarray(root.dense(), float)
    np.testing.assert_allclose(root.deviations(), np.sqrt(np.diag(dense @ dense.T)), **SAME_COMPUTATION())
    # A dense matrix of so many dimensions would take 40 GB.
    wide = LowRank(jnp.full(100_000, 2.0), jnp.eye(100_000, 1), jnp.asarray([3.0]))
    density = plain(LogDensity(lambda x: -0.5 * x @ x, jnp.zeros(100_000)))
    density = Standardised(density.target, density.center, wide, density.unravel)
    np.testing.assert_allclose(scale.scale_of(density)[:2], [6.0, 2.0], **SAME_COMPUTATION())
