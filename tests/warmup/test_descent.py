"""The way down: chains come from absurd places to usual ones, and stay where they were if that is usual."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.targets.density import LogDensity
from parsample.targets.external import External
from parsample.warmup.coordinates import plain
from parsample.warmup.descent import descend, descend_outside

X = np.random.default_rng(0).normal(size=(100, 6)) * np.logspace(-1, 1.3, 6)
Y = np.random.default_rng(1).poisson(1.0, 100)


def poisson(beta: Any) -> Any:
    rate = jnp.asarray(X, jnp.float32) @ beta
    return jnp.sum(jnp.asarray(Y, jnp.float32) * rate - jnp.exp(rate)) - 0.5 * jnp.sum(beta**2)


def start(dim: int, chains: int = 4) -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (chains, dim), minval=-2.0, maxval=2.0)


def density_of(logdensity: Any, dim: int) -> Any:
    return plain(LogDensity(logdensity, jnp.zeros(dim)))


def test_a_rate_that_is_too_large_for_a_number_is_left() -> None:
    vectors = start(6)
    before, after = (jax.vmap(poisson)(rows) for rows in (vectors, descend(density_of(poisson, 6), vectors).vectors))
    assert float(before.min()) == -np.inf
    assert float(after.min()) > -300
    assert bool(jnp.all(after >= before))


def test_coordinates_of_any_scale_come_down_together() -> None:
    sd = jnp.array([1e-3, 1.0, 30.0])
    found = descend(density_of(lambda x: -0.5 * jnp.sum((x / sd) ** 2), 3), start(3))
    assert float(jnp.abs(found.vectors[:, 0]).max()) < 0.1
    assert found.path.shape == found.gradients.shape == (4, 10, 3)
    np.testing.assert_allclose(found.gradients, -found.path / sd**2, rtol=1e-5)


def funnel(x: Any) -> Any:
    return -0.5 * (x[0] / 3) ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (x.size - 1) * x[0]


@pytest.mark.parametrize("logdensity", [lambda x: -0.5 * jnp.sum(x**2), funnel], ids=["normal", "funnel"])
def test_chains_in_usual_places_stay_there(logdensity: Any) -> None:
    """The highest place of a funnel is its bottom, where no draw is."""
    vectors = start(20)
    found = descend(density_of(logdensity, 20), vectors)
    np.testing.assert_array_equal(found.vectors, vectors)


def test_a_chain_that_goes_over_an_edge_comes_back() -> None:
    """Above 1 there is no density; the climb goes there, and comes back to try shorter steps."""
    found = descend(density_of(lambda x: 1e4 * jnp.sum(jnp.where(x < 1, x, jnp.nan)), 2), start(2) / 4)
    assert bool(jnp.isfinite(found.vectors).all())
    assert bool(jnp.all(found.vectors < 1))
    assert bool(jnp.all(found.vectors.max(-1) > 0.9))


def test_a_start_that_is_absurd_is_moved_towards_zero() -> None:
    """A rate of raw covariates overflows and underflows within a step of each other: no way leads down from there."""
    rows = jnp.asarray(np.random.default_rng(2).uniform(18, 120, (100, 4)), jnp.float32)

    def logdensity(beta: Any) -> Any:
        return jnp.sum(2.0 * jnp.log(jnp.exp(rows @ beta)) - jnp.exp(rows @ beta)) - 0.5 * jnp.sum(beta**2)

    vectors = start(4)
    assert not bool(jnp.isfinite(jax.vmap(logdensity)(vectors)).all())
    found = descend(density_of(logdensity, 4), vectors)
    assert float(jax.vmap(logdensity)(found.vectors).min()) > -1e4


def outside(logdensity: Any, dim: int, gradient: bool) -> External:
    """The same model by NumPy, a position at a time."""

    def run(position: dict[str, np.ndarray]) -> Any:
        value, slope = ascent(jnp.asarray(position["x"], jnp.float32))
        return (float(value), {"x": np.asarray(slope, float)}) if gradient else float(value)

    ascent = jax.jit(jax.value_and_grad(logdensity))
    return External(run, {"x": np.zeros(dim)}, executor="threads", workers=2, gradient=gradient, on_error="reject")


def test_a_model_outside_with_a_gradient_comes_down_the_same_way() -> None:
    vectors = start(6)
    expected = descend(density_of(poisson, 6), vectors)
    found, levels = descend_outside(outside(poisson, 6, gradient=True), vectors)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert set(np.asarray(found.values).ravel()) <= set(levels.values.astype(np.float32))


@pytest.mark.parametrize("case", ["poisson", "edge"])
def test_a_model_without_a_gradient_comes_down_by_differences(case: str) -> None:
    """Also where one side of a difference, or both, has no density."""
    edge = lambda x: 1e4 * jnp.sum(jnp.where(x < 1, x, -jnp.inf))  # noqa: E731
    logdensity, dim, vectors = (poisson, 6, start(6)) if case == "poisson" else (edge, 2, start(2) / 4)
    target = outside(logdensity, dim, gradient=False)
    found, levels = descend_outside(target, vectors)
    expected = descend(density_of(logdensity, dim), vectors)
    one, other = (jax.vmap(logdensity)(way.vectors) for way in (found, expected))
    assert bool(jnp.all(one > other - 0.1 * jnp.abs(other).max()))
    # Beyond the edge a way may end in no number at all, which no model is given.
    is_number = np.isfinite(levels.vectors).all(-1)
    assert target.workers.counts.runs == len(np.unique(levels.vectors[is_number], axis=0))


@pytest.mark.parametrize("logdensity", [lambda x: -0.5 * jnp.sum(x**2), funnel], ids=["normal", "funnel"])
def test_chains_outside_that_are_in_usual_places_stay_there(logdensity: Any) -> None:
    """That they are costs ten nearer places and ten steps, each of a run and two a dimension."""
    vectors = start(5)
    target = outside(logdensity, 5, gradient=False)
    found, _ = descend_outside(target, vectors)
    np.testing.assert_array_equal(found.vectors, vectors)
    assert target.workers.counts.runs <= 4 * (10 + 10 * 11)
    assert target.workers.counts.rounds <= 11
