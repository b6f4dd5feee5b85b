"""Constrained variables: densities against scipy, Jacobians against their definition, and draws against the truth."""

from typing import Any

import arviz
import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.targets.bijectors import NAMES, find
from parsample.targets.density import LogDensity
from tests.tolerances import MIN_EFFECTIVE_SAMPLES, check_mean

SETTINGS: dict[str, Any] = {"num_warmup": 500, "num_samples": 2000, "progress": False, "compare": False}
# A value inside each constraint, and its free coordinates in matrices and simplices.
VALUES = {
    "real": np.array([-1.0, 2.0]),
    "positive": np.array([0.5, 3.0]),
    "unit_interval": np.array([0.2, 0.9]),
    "simplex": np.array([0.2, 0.3, 0.5]),
    "ordered": np.array([-1.0, 0.5, 2.0]),
    "positive_ordered": np.array([0.1, 0.5, 2.0]),
    "correlation_cholesky": np.linalg.cholesky(np.array([[1, 0.3], [0.3, 1]])),
    "covariance": np.array([[2.0, 0.5], [0.5, 1.0]]),
}
# The entries of a value that its free coordinates determine, one for one.
ENTRIES = {
    "simplex": lambda x: x[:-1],
    "correlation_cholesky": lambda x: x[jnp.tril_indices(2, -1)],
    "covariance": lambda x: x[jnp.tril_indices(2)],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("x64")
def test_the_jacobian_is_that_of_the_map(name: str) -> None:
    bijector = find("x", name)
    free = jax.jit(lambda value: bijector.inverse(value))(jnp.asarray(VALUES[name]))
    value, log_jacobian = jax.jit(lambda free: bijector.forward(free))(free)
    np.testing.assert_allclose(value, VALUES[name], rtol=1e-10, atol=1e-12)
    entries = ENTRIES.get(name, lambda x: x)
    jacobian = jax.jit(jax.jacobian(lambda z: entries(bijector.forward(z)[0])))(free)
    np.testing.assert_allclose(log_jacobian, np.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_draws_of_a_log_density_of_constrained_variables() -> None:
    def logdensity(position: Any) -> Any:
        gamma = 2 * jnp.log(position["scale"]) - position["scale"] / 2
        return gamma + jnp.sum(jnp.asarray([1.0, 2.0, 4.0]) * jnp.log(position["parts"]))

    start = {"scale": 1.0, "parts": jnp.full(3, 1 / 3)}
    trace = as_datatree(
        ps.sample(
            logdensity, initial_position=start, bijectors={"scale": "positive", "parts": "simplex"}, **SETTINGS
        )
    )  # fmt: skip
    truth = stats.gamma(3, scale=2), stats.dirichlet([2, 3, 5])
    scale, parts = (np.asarray(trace["posterior"][name], np.float64) for name in ("scale", "parts"))
    assert scale.min() > 0
    np.testing.assert_allclose(parts.sum(-1), 1, rtol=1e-5)
    check(scale, truth[0].mean())
    check((scale - truth[0].mean()) ** 2, truth[0].var())
    for part in range(3):
        check(parts[..., part], truth[1].mean()[part])
        check((parts[..., part] - truth[1].mean()[part]) ** 2, truth[1].var()[part])


def check(draws: np.ndarray, expected: float) -> None:
    """Assert that the mean of draws, shape (chain, draw), is the expected one."""
    size = float(arviz.ess(draws, method="mean"))
    assert size > MIN_EFFECTIVE_SAMPLES
    check_mean(draws.mean(), expected, draws.std() / np.sqrt(size))


@pytest.mark.parametrize("bijector", ["positive", distrax.Lambda(jnp.exp)])
def test_a_distrax_distribution(bijector: Any) -> None:
    trace = as_datatree(ps.sample(distrax.Gamma(3.0, 0.5), bijectors={"x": bijector}, **SETTINGS))
    draws = np.asarray(trace["posterior"]["x"], np.float64)
    check(draws, 6.0)
    check((draws - 6.0) ** 2, 12.0)


@pytest.mark.slow
def test_a_distrax_distribution_over_all_numbers_needs_none() -> None:
    target = distrax.MultivariateNormalTri(jnp.asarray([1.0, -1.0]), jnp.asarray([[1.0, 0.0], [0.8, 0.6]]))
    trace = as_datatree(ps.sample(target, **SETTINGS))
    draws = np.asarray(trace["posterior"]["x"], np.float64)
    check(draws[..., 1], -1.0)
    check((draws[..., 0] - 1) * (draws[..., 1] + 1), 0.8)


def of_two(position: Any) -> Any:
    return -jnp.sum(position["a"] ** 2) - position["b"] ** 2


START = {"a": jnp.ones(2), "b": 1.0}


@pytest.mark.parametrize(
    ("bijectors", "start", "message"),
    [
        ({"a": "positiv"}, START, "the bijector of 'a' is 'positiv', expected one of real, .*Did you mean 'positive'"),
        ({"c": "positive"}, START, "a name in bijectors is 'c', expected one of a, b"),
        ({"a": 3}, START, "the bijector of 'a' is a int, expected one of real, positive, .*, or a distrax bijector"),
        ({"b": "positive"}, START | {"b": -1.0}, "initial_position of 'b' is -1.0, which its bijector does not reach"),
    ],
)
def test_a_bijector_that_cannot_be(bijectors: Any, start: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogDensity(of_two, start, bijectors)


def test_bijectors_of_other_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="bijectors: something was given, but the target banana has its own"):
        ps.sample("banana", bijectors={"x": "positive"})
