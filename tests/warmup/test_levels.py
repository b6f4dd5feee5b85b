"""What log densities tell of the scale: the covariance of a normal posterior, and nothing of one that is not normal."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.targets.external import External
from parsample.warmup.levels import Levels

DIM = 4
RNG = np.random.default_rng(0)
TURN = np.linalg.qr(RNG.normal(size=(DIM, DIM)))[0]
COVARIANCE = (TURN * [1e-2, 1.0, 30.0, 1e4]) @ TURN.T
PRECISION, CENTER = np.linalg.inv(COVARIANCE), np.array([3.0, -40.0, 500.0, 0.0])


def normal(vectors: np.ndarray) -> np.ndarray:
    apart = vectors - CENTER
    return -0.5 * np.einsum("...i,ij,...j->...", apart, PRECISION, apart) + 1234.0


def draws_of(covariance: np.ndarray, chains: int = 2, steps: int = 60) -> np.ndarray:
    """Draws of a chain that has hardly moved: of a corner of the posterior, and of another shape."""
    return CENTER + RNG.multivariate_normal(np.zeros(DIM), covariance, (chains, steps))


def test_the_gradients_of_a_normal_posterior_are_found_from_a_corner_of_it() -> None:
    draws = draws_of(np.diag(np.diagonal(COVARIANCE)) / 400)
    rows = draws.reshape(-1, DIM)
    found = Levels(rows, normal(rows)).gradients(draws, float(np.median(normal(rows))))
    expected = -(draws - CENTER) @ PRECISION
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    turned = np.linalg.lstsq(rows - rows.mean(0), found.reshape(-1, DIM) - found.mean((0, 1)), rcond=None)[0]
    np.testing.assert_allclose(turned, -PRECISION, atol=0.02 * np.abs(PRECISION).max())


def test_neither_the_order_of_runs_nor_repeated_ones_make_a_difference() -> None:
    """Runs return in any order."""
    draws = draws_of(COVARIANCE / 9)
    rows, order = draws.reshape(-1, DIM), RNG.permutation(120)
    more = np.concatenate([rows[order], rows[:7]])
    one, other = (Levels(part, normal(part)).gradients(draws, 1230.0) for part in (rows, more))
    np.testing.assert_array_equal(one, other)


def test_what_is_far_below_tells_nothing() -> None:
    """A model may return anything where chains will never be."""
    draws = draws_of(COVARIANCE / 9)
    rows = draws.reshape(-1, DIM)
    far = np.concatenate([rows, rows * 50 + 1e4])
    values = np.concatenate([normal(rows), -1e6 * RNG.uniform(1, 2, 119), [-np.inf]])
    one, other = Levels(rows, normal(rows)), Levels(far, values)
    np.testing.assert_array_equal(one.gradients(draws, 1230.0), other.gradients(draws, 1230.0))


def test_where_nothing_normal_fits_the_gradients_are_of_the_covariance_of_draws() -> None:
    covariance = (TURN * [1.0, 2.0, 4.0, 9.0]) @ TURN.T
    draws = draws_of(covariance, steps=4000)
    rows = draws.reshape(-1, DIM)
    found = Levels(rows, RNG.normal(size=len(rows))).gradients(draws, 0.0).reshape(-1, DIM)
    slope = np.linalg.lstsq(rows - rows.mean(0), found, rcond=None)[0]
    np.testing.assert_allclose(slope, -np.linalg.inv(np.cov(rows.T)), atol=0.02)


def test_a_coordinate_that_never_moved_has_no_gradient() -> None:
    draws = draws_of(COVARIANCE)
    draws[..., 2] = 500.0
    rows = draws.reshape(-1, DIM)
    found = Levels(rows, normal(rows)).gradients(draws, 1230.0)
    np.testing.assert_array_equal(found[..., 2], 0.0)
    assert np.isfinite(found).all()
    assert np.abs(found[..., [0, 1, 3]]).min() > 0


def sample(logdensity: Any, dim: int, **options: Any) -> Any:
    target = External(lambda at: logdensity(at["x"]), {"x": np.zeros(dim)}, vectorized=True, workers=32)
    return ps.sample(target, num_warmup=800, num_chains=4, progress=False, **options)


def least_ess(trace: Any) -> float:
    return float(ps.summarize(trace)["ess_bulk"].min())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["turned", "far away"])
def test_a_random_walk_without_gradients_draws_as_well_as_one_that_has_them_in_warmup(kind: str) -> None:
    """At a condition number of 10,000 in six dimensions, and where the start is hundreds of deviations away."""
    dim = 6
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(dim, dim)))[0]
    spread = np.geomspace(1, 1e4, dim) if kind == "turned" else np.geomspace(1e-3, 1, dim)
    precision = np.linalg.inv((turn * spread) @ turn.T)
    center = np.zeros(dim) if kind == "turned" else np.full(dim, 10.0)

    def outside(x: np.ndarray) -> np.ndarray:
        return -0.5 * np.einsum("ni,ij,nj->n", x - center, precision, x - center)

    def inside(x: Any) -> Any:
        return -0.5 * jnp.vdot(x - center, jnp.asarray(precision, x.dtype) @ (x - center))

    expected = ps.sample(
        inside,
        initial_position=jnp.zeros(dim),
        sampler="rwm",
        num_warmup=800,
        num_samples=1000,
        num_chains=4,
        progress=False,
    )
    trace = sample(outside, dim, num_samples=1000)
    assert least_ess(trace) > 0.5 * least_ess(expected)
    found = np.asarray(as_datatree(trace)["posterior"]["x"]).reshape(-1, dim)
    np.testing.assert_allclose((found.mean(0) - center) @ turn / np.sqrt(spread), 0, atol=0.5)
