"""Trajectories are made longer where the draws of warm-up depend on each other."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from parsample.samplers import HMC
from parsample.samplers.configured import Configured
from parsample.targets.density import LogDensity
from parsample.warmup.length import LONGEST, times_longer
from tests.warmup.test_adapt import run


def autoregressive(correlation: float, chains: int = 4, steps: int = 2000) -> np.ndarray:
    """Two coordinates, one independent from step to step, of the other this correlation."""
    noise = np.random.default_rng(3).normal(size=(chains, steps, 2))
    for step in range(1, steps):
        noise[:, step, 1] = correlation * noise[:, step - 1, 1] + np.sqrt(1 - correlation**2) * noise[:, step, 1]
    return noise


# A draw of such a series is worth (1 - r) / (1 + r): 1, 0.33, 0.053, 0.0101, 0.0025; a quarter is wanted, and it grows
# as the square of the length.
@pytest.mark.parametrize(("correlation", "times"), [(0.0, 1), (0.5, 1), (0.9, 4), (0.98, 8), (0.995, LONGEST)])
@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_lengths_follow_the_effective_draws_of_the_worst_coordinate(
    correlation: float, times: int, apart: float
) -> None:
    draws = autoregressive(correlation)
    assert times_longer(draws + apart * np.arange(len(draws))[:, None, None]) == times
    assert times_longer(draws[:1]) == times


def test_draws_that_say_nothing_leave_the_length() -> None:
    assert times_longer(np.zeros((4, 300, 2))) == times_longer(np.zeros((4, 0, 2))) == 1
    assert times_longer(np.random.default_rng(0).normal(size=(4, 2, 2))) == 1
    still = np.concatenate([autoregressive(0.9), np.ones((4, 2000, 1))], -1)
    assert times_longer(still) == 4


def test_a_posterior_of_changing_scale_gets_longer_trajectories_and_a_normal_one_does_not() -> None:
    # A funnel: the narrow end sets the step size, and the wide one needs many such steps to be crossed.
    def log_funnel(x: Array) -> Array:
        return -0.5 * x[0] ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 5 * x[0]

    funnel, normal = (LogDensity(density, jnp.zeros(11)) for density in (log_funnel, lambda x: -0.5 * x @ x))
    for target, is_longer in ((funnel, True), (normal, False)):
        found = run(target, 1000, HMC)
        assert found.sampler_options is not None
        usual = HMC.options_at({}, found.step_size)
        assert usual is not None
        length, usual_length = (row["num_integration_steps"] for row in (found.sampler_options, usual))
        assert (length >= 2 * usual_length) is is_longer, (length, usual_length, found.step_size)


@pytest.mark.parametrize("options", [{"num_integration_steps": 4}, {"trajectory_length": 1.0}])
def test_what_was_given_is_kept(options: dict) -> None:
    make = Configured(HMC, options)
    assert make.options_at(0.25, 4) == make.options_at(0.25)


def test_a_longer_trajectory_is_that_many_times_the_usual_one() -> None:
    assert HMC.options_at({}, 0.5, 4) == {"num_integration_steps": 16}
    assert HMC.options_at({"step_size_jitter": 0.1}, 0.01, 2) == {"num_integration_steps": 128, "step_size_jitter": 0.1}
